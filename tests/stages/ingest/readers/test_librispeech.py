"""Discovery and ingestion of a corpus in LibriSpeech's layout."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from melmill.stages.contract import Kind, Outcome
from melmill.stages.ingest.decode import to_pcm
from melmill.stages.ingest.readers.librispeech import LibriSpeech
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.resample import resample
from melmill.storage.files.sources import SourceTree
from melmill.storage.utterance import Utterance
from tests.stages.ingest.corpora import Tree, flac, ids, outcome_of, rejected, tone


def corpus() -> dict[str, bytes]:
    return {
        "dev-clean/84/121123/84-121123-0000.flac": flac(tone(8000)),
        "dev-clean/84/121123/84-121123-0001.flac": flac(tone(9001)),
        "dev-clean/84/121123/84-121123.trans.txt": b"84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT IN LESS\n",
        "test-clean/61/70968/61-70968-0000.flac": flac(tone(100)),
        "README.TXT": b"a corpus",
    }


def ingested(data: bytes, sr: int = 16000, catalogued: bytes | None = None) -> Outcome:
    """Catalogue a file and ingest it; `catalogued` is what lay there at the time of cataloguing."""
    path = "s/1/2/1-2-0000.flac"
    stage = LibriSpeech(root="corpus", sr=sr)
    (utterance,) = stage.discover(Tree({path: data if catalogued is None else catalogued}), {}).utterances
    outcome = outcome_of(stage, utterance, data)
    if outcome.array is not None:
        assert outcome.array.dtype == np.int16
        assert outcome.array.shape == (utterance.n_samples,)
    return outcome


def test_discovery_reads_names_headers_and_transcripts() -> None:
    first, second, third = LibriSpeech(root="corpus").discover(Tree(corpus()), {}).utterances
    assert first == Utterance(
        utterance_id="84-121123-0000",
        subset="dev-clean",
        speaker_id="84",
        chapter_id="121123",
        text="GO DO YOU HEAR",
        path="dev-clean/84/121123/84-121123-0000.flac",
        size_bytes=len(corpus()["dev-clean/84/121123/84-121123-0000.flac"]),
        mtime_ns=1,
        source_sr=16000,
        source_n_samples=8000,
        sr=16000,
        n_samples=8000,
    )
    assert (second.n_samples, second.text) == (9001, "BUT IN LESS")
    assert (third.subset, third.text) == ("test-clean", "")  # it has no transcript


@pytest.mark.parametrize("above", ["", "data/LibriSpeech/"])
def test_the_table_of_speakers_is_read_where_there_is_one(above: str) -> None:
    table = b"; a comment\n84   | F | dev-clean        |  8.00 | Christie Nowak\nnot a row\n"
    files = {f"{above}{path}": data for path, data in {**corpus(), "SPEAKERS.TXT": table}.items()}
    found = LibriSpeech(root="corpus").discover(Tree(files), {}).utterances
    assert [(u.speaker_id, u.sex, u.speaker_name) for u in found] == [
        ("84", "F", "Christie Nowak"),
        ("84", "F", "Christie Nowak"),
        ("61", "", ""),
    ]


def test_chosen_subsets_alone_are_discovered() -> None:
    found = LibriSpeech(root="corpus", subsets=("test-clean",)).discover(Tree(corpus()), {}).utterances
    assert ids(found) == ["61-70968-0000"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("*-0000.flac",), ["84-121123-0000", "61-70968-0000"]),  # '*' matches '/' too
        (("dev-clean/*-000[1-9].flac",), ["84-121123-0001"]),
        (("test-clean/*", "*-0001.flac"), ["84-121123-0001", "61-70968-0000"]),  # in the corpus's order
    ],
)
def test_patterns_choose_files(files: tuple[str, ...], expected: list[str]) -> None:
    assert ids(LibriSpeech(root="corpus", files=files).discover(Tree(corpus()), {}).utterances) == expected


def test_folder_above_the_corpus_works() -> None:
    above = {f"data/LibriSpeech/{path}": data for path, data in corpus().items()}
    (found,) = LibriSpeech(root="x", subsets=("test-clean",)).discover(Tree(above), {}).utterances
    assert found.path == "data/LibriSpeech/test-clean/61/70968/61-70968-0000.flac"
    assert found.subset == "test-clean"


@pytest.mark.parametrize(
    "path",
    [
        "dev-clean/84/121123/84-121123.trans.txt",  # a transcript
        "dev-clean/84/121123/85-121123-0000.flac",  # another speaker's name
        "dev-clean/84/121123/84-121124-0000.flac",  # another chapter's name
        "dev-clean/84/121123/84-121123-0000.flac.part",  # an unfinished download
        "dev-clean/84/121123/._84-121123-0000.flac",  # what archives made on a Mac carry along
        "84-121123-0000.flac",  # no folders
        # Copies in what systems leave behind, and in folders that a dot hides.
        ".Trashes/LibriSpeech/dev-clean/84/121123/84-121123-0000.flac",
        ".Trash-1000/files/dev-clean/84/121123/84-121123-0000.flac",
        "dev-clean/84/121123/@eaDir/84/121123/84-121123-0000.flac",
        "__MACOSX/dev-clean/84/121123/84-121123-0000.flac",
        ".backup/dev-clean/84/121123/84-121123-0000.flac",
    ],
)
def test_files_of_other_names_are_passed_over(path: str) -> None:
    found = LibriSpeech(root="x").discover(Tree({**corpus(), path: b"?"}), {}).utterances
    assert ids(found) == ["84-121123-0000", "84-121123-0001", "61-70968-0000"]


def test_blanks_at_the_end_of_a_name_change_nothing() -> None:
    files = {f"{path} " if path.endswith("0001.flac") else path: data for path, data in corpus().items()}
    found = LibriSpeech(root="x").discover(Tree(files), {})
    assert ids(found.utterances) == ["84-121123-0000", "84-121123-0001", "61-70968-0000"]
    assert not any("passed over" in note for note in found.notes)


def test_a_hidden_copy_is_named_and_what_systems_leave_is_not() -> None:
    name = "dev-clean/84/121123/84-121123-0000.flac"
    hidden = {f"{folder}/{name}": b"" for folder in (".backup", ".Trash-1000", "@eaDir", "__MACOSX")}
    notes = LibriSpeech(root="x").discover(Tree({**corpus(), **hidden}), {}).notes
    assert [note for note in notes if "passed over" in note] == [f"1 passed over, hidden by a dot: '.backup/{name}'"]


@pytest.mark.parametrize(
    ("subsets", "contents", "message"),
    [
        # A misspelt subset: those there are listed.
        (
            ("dev-claen",),
            corpus(),
            r"subsets must be in 'x', got 'dev-claen'; did you mean 'dev-clean'\? \(there: dev-",
        ),
        # Nothing at all, and nothing of the right names.
        (None, {}, r"root must hold a corpus of <subset>/<speaker>/.*, got 'x' with none among 0 files"),
        (None, {"a/b.wav": b""}, r"of <subset>/<speaker>/<chapter>/.* with none among 1 files"),
        # The root is one subset.
        (
            None,
            {"84/1/84-1-0000.flac": b""},
            r"root must be the folder that holds the subsets, got 'x', .* folder above",
        ),
        # Two copies of the corpus under the root.
        (None, {"a/s/1/2/1-2-0.flac": b"", "b/s/1/2/1-2-1.flac": b""}, r"got 'x' with several: choose one of a, b"),
        # One id in two subsets: both files are named.
        (
            None,
            {"s/1/2/1-2-0.flac": b"", "t/1/2/1-2-0.flac": b""},
            r"got '1-2-0' twice in 'x': s/1/2/1-2-0.flac and t/1/2/1-2-0.flac",
        ),
    ],
)
def test_wrong_root_or_subset_is_explained(
    subsets: tuple[str, ...] | None, contents: dict[str, bytes], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        LibriSpeech(root="x", subsets=subsets).discover(Tree(contents), {})


def test_a_pattern_that_matches_nothing_is_explained() -> None:
    stage = LibriSpeech(root="x", subsets=("dev-clean",), files=("*-0000.flac", "test-clean/*"))
    message = (
        r"files must match files in 'x', got 'test-clean/\*', which matches none of its 2 utterances; .*'dev-clean/"
    )
    with pytest.raises(ParameterError, match=message):
        stage.discover(Tree(corpus()), {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"root": ""}, "root must be the folder of the corpus, got ''"),
        ({"root": "x", "sr": 0}, "sr must be at least 1, got 0"),
        ({"root": "x", "subsets": ()}, "subsets must name at least one subset"),
        ({"root": "x", "files": ()}, "files must name at least one pattern"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        LibriSpeech(**fields)


def test_unchanged_files_are_not_read_again() -> None:
    stage = LibriSpeech(root="x")
    known = {u.path: u for u in stage.discover(Tree(corpus()), {}).utterances}
    again = Tree(corpus())
    assert stage.discover(again, known).utterances == list(known.values())
    assert again.n_read == 0
    # A touched file, and a store of another rate, are looked at anew.
    assert [u.mtime_ns for u in stage.discover(Tree(corpus(), mtime_ns=2), known).utterances] == [2, 2, 2]
    assert [u.sr for u in LibriSpeech(root="x", sr=8000).discover(Tree(corpus()), known).utterances] == [8000] * 3


def test_only_new_files_are_read() -> None:
    stage = LibriSpeech(root="x")
    known = {u.path: u for u in stage.discover(Tree(corpus()), {}).utterances}
    tree = Tree({**corpus(), "dev-clean/84/1/84-1-0000.flac": flac(tone())})
    assert len(stage.discover(tree, known).utterances) == 4
    assert tree.n_read == 1


def test_identity_leaves_the_place_out() -> None:
    here, there = LibriSpeech(root="a", subsets=("y", "x")), LibriSpeech(root="b", subsets=("x", "y"))
    assert here.identity() == there.identity() == {"subsets": ["x", "y"], "sr": 16000}
    assert here.identity() != LibriSpeech(root="a", subsets=("x", "y"), sr=8000).identity()
    assert here.identity() != LibriSpeech(root="a", subsets=("x", "y"), files=("*",)).identity()


def test_product_is_a_corpus_of_int16() -> None:
    product = LibriSpeech(root="x", sr=22050).produces({})
    assert (product.kind, product.sr, product.dtype) == (Kind.UTTERANCES, 22050, "int16")


def test_pcm_at_the_wanted_rate_is_kept_bit_for_bit() -> None:
    y = np.array([-32768, 32767, 0, 1, -1, 12345] * 50, dtype=np.int16)
    outcome = ingested(flac(y))
    assert outcome.array is not None
    assert np.array_equal(outcome.array, y)


def test_facts_of_a_full_scale_square_wave() -> None:
    data = flac(np.tile(np.array([-32768, 32767], dtype=np.int16), 500))
    row = dict(ingested(data).row or {})
    assert row.pop("peak_db") == 0.0  # 20 log10(32768 / 32768)
    assert row.pop("rms_db") == pytest.approx(0.0, abs=2e-4)
    assert row == {
        "content_sha256": hashlib.sha256(data).hexdigest(),
        "source_sr": 16000,
        "n_channels": 1,
        "subtype": "PCM_16",
    }


def test_channels_are_averaged_and_the_rate_changed() -> None:
    left, right = tone(22050, 22050, 0.5), tone(22050, 22050, 0.25)
    outcome = ingested(flac(np.stack([left, right], axis=1), 22050))
    assert outcome.array is not None
    assert outcome.array.size == 16000
    expected = resample((left.astype(np.float32) + right) / 65536, 22050, 16000) * 32768
    np.testing.assert_allclose(outcome.array, expected, atol=0.51)
    inner = slice(800, -800)  # the filter rings at the ends
    np.testing.assert_allclose(outcome.array[inner], tone(16000, 16000, 0.375)[inner], atol=3)
    assert outcome.row is not None
    assert (outcome.row["source_sr"], outcome.row["n_channels"]) == (22050, 2)


def test_float_samples_are_rounded_and_clipped() -> None:
    y = np.array([[0.0], [0.4 / 32768], [0.6 / 32768], [1.0], [1.5], [-1.0], [-1.75]], dtype=np.float32)
    pcm = to_pcm(y, 16000, 16000)
    assert pcm.y.tolist() == [0, 0, 1, 32767, 32767, -32768, -32768]
    assert pcm.n_clipped == 2
    assert pcm.peak_db == pytest.approx(4.861, abs=1e-3)  # 20 log10(1.75)


def nan_in_a_wav() -> bytes:
    y = tone().astype(np.float32) / 32768
    y[100:103] = [np.nan, np.inf, -np.inf]
    return flac(y, kind="WAV", subtype="FLOAT")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"^file is empty \(0 bytes\)$"),
        (b"GIF89a" * 99, r"^not decodable as audio: Format not recognised. It starts with b'GIF89aGI'$"),
        (flac(tone())[:-2000], r"^file is truncated or damaged: header says 8,000 samples, \d,?\d* decoded$"),
        (flac(np.zeros(8000, dtype=np.int16)), "^silent: peak -inf dBFS, a recording has at least -80$"),
        (flac(np.tile([3, -3], 4000).astype(np.int16)), "^silent: peak -80.8 dBFS, a recording has at least -80$"),
        (flac(np.stack([tone(), -tone()], axis=1)), "^channels cancel when mixed: correlation -1.00"),
        (nan_in_a_wav(), "^not finite: 3 of 8,000 samples are NaN or infinite$"),
    ],
)
def test_bad_file_is_rejected_with_its_reason(data: bytes, reason: str) -> None:
    assert re.search(reason, rejected(ingested(data)).reason)


def test_quiet_recording_is_not_silent() -> None:
    outcome = ingested(flac(np.tile([4, -4], 4000).astype(np.int16)))
    assert outcome.row is not None
    assert outcome.row["peak_db"] == pytest.approx(-78.27, abs=0.01)  # 20 log10(4 / 32768)


@pytest.mark.parametrize(
    ("then", "now", "reason"),
    [
        (
            flac(tone(8000)),
            flac(tone(9000)),
            "file changed since it was catalogued: 8,000 samples at 16,000 Hz then, 9,000 at 16,000 Hz now",
        ),
        # The header alone was edited: rate 16000 to 8000, in the same number of bytes.
        (
            flac(tone(8000)),
            flac(tone(8000))[:18] + bytes([0x01, 0xF4, 0x00]) + flac(tone(8000))[21:],
            "file changed since it was catalogued: 8,000 samples at 16,000 Hz then, 8,000 at 8,000 Hz now",
        ),
    ],
)
def test_file_that_changed_since_it_was_catalogued_is_rejected(then: bytes, now: bytes, reason: str) -> None:
    assert rejected(ingested(now, catalogued=then)).reason.startswith(reason)


def test_one_bad_file_does_not_spoil_its_neighbours() -> None:
    stage = LibriSpeech(root="x")
    contents = {f"s/1/2/1-2-000{i}.flac": flac(tone()) if i != 1 else b"" for i in range(3)}
    found = stage.discover(Tree(contents), {}).utterances
    outcomes = [outcome_of(stage, u, contents[u.path]) for u in found]
    assert [o.rejected is None for o in outcomes] == [True, False, True]
    assert [u.n_samples for u in found] == [8000, 0, 8000]


def test_unreadable_header_is_left_to_ingestion_but_a_transcript_is_not(tmp_path: Path) -> None:
    for path, data in corpus().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    stage = LibriSpeech(root=str(tmp_path))
    chapter = tmp_path / "dev-clean/84/121123"
    (chapter / "84-121123-0000.flac").unlink()
    (chapter / "84-121123-0000.flac").symlink_to("gone")
    found = stage.discover(SourceTree(str(tmp_path)), {}).utterances
    assert [(u.source_sr, u.n_samples) for u in found] == [(0, 0), (16000, 9001), (16000, 100)]
    (chapter / "84-121123.trans.txt").unlink()
    (chapter / "84-121123.trans.txt").symlink_to("gone")
    with pytest.raises(ParameterError, match=r"readable transcripts, got 'dev-clean/84/121123/.*': No such file"):
        stage.discover(SourceTree(str(tmp_path)), {})


@pytest.mark.real
def test_real_corpus_is_discovered_and_ingested(real_data: Path) -> None:
    root = real_data / "corpora" / "LibriSpeech"
    stage = LibriSpeech(root=str(root))
    tree = SourceTree(str(root))
    found = stage.discover(tree, {}).utterances
    assert len(found) == 204
    assert len({u.speaker_id for u in found}) > 100
    assert all(u.text and u.text == u.text.upper() for u in found)
    for u in found:
        outcome = stage.ingest(u, tree.read(u.path))
        expected, sr = soundfile.read(root / u.path, dtype="int16")
        assert (u.source_sr, u.n_samples) == (sr, len(expected))
        assert np.array_equal(outcome.array, expected)  # type: ignore[arg-type]


def test_audio_with_other_names_is_counted() -> None:
    others = {"dev-clean/84/121123/take 1.flac": b"", "dev-clean/84/121123/84-121123-0002.wav": b"", "s/a.WAV": b""}
    found = LibriSpeech(root="corpus").discover(Tree({**corpus(), **others}), {})
    texts = "2 of 3 utterances have texts; first without: 'test-clean/61/70968/61-70968-0000.flac'"
    assert len(found.utterances) == 3
    assert found.notes == (
        "1 passed over, not named <speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac: "
        "'dev-clean/84/121123/take 1.flac'",
        "2 files are audio by their names but not read, as LibriSpeech is FLAC: 2 .wav; audio_folder reads them",
        texts,
    )
    assert LibriSpeech(root="corpus").discover(Tree(corpus()), {}).notes == (texts,)
