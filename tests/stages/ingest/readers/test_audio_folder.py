"""Discovery and ingestion of any folder of audio files."""

from __future__ import annotations

import errno
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from melmill.stages.contract import IngestStage
from melmill.stages.errors import CorpusUnreadable, PackageMissing
from melmill.stages.formats.audio import decode
from melmill.stages.formats.containers import ffmpeg
from melmill.stages.ingest.readers.audio_folder import AudioFolder
from melmill.stages.numeric.errors import ParameterError, Unusable
from melmill.stages.numeric.resample import resample
from melmill.storage.files.sources import SourceTree
from tests.stages.formats.containers.made import by_ffmpeg
from tests.stages.ingest.corpora import Tree, flac, ids, tone

VCTK = {"wav48/p225/p225_001.wav": b"", "wav48/p225/p225_001.txt": b"Please call Stella.\n", "wav48/p226/a.wav": b""}
LJSPEECH = {
    "wavs/LJ001-0001.wav": b"",
    "wavs/LJ001-0002.wav": b"",
    "metadata.csv": b"LJ001-0001|In 1455|In fourteen fifty-five\nLJ001-0003|not here\n",
}
ESC = {"Rain/1-21189-A.ogg": b"", "Dog/1-21189-A.ogg": b""}
LIBRITTS = {
    "dev-clean/84/121123/84_121123_000007_000001.wav": b"",
    "dev-clean/84/121123/84_121123_000007_000001.normalized.txt": b"Maximilian.",
    "dev-clean/84/121123/84_121123_000007_000001.original.txt": b"MAXIMILIAN",
}


@pytest.mark.parametrize(
    ("files", "fields", "expected"),
    [
        # Every file: id, subset, speaker, chapter, text.
        (
            VCTK,
            {},
            [
                ("wav48--p225--p225_001", "wav48", "p225", "", "Please call Stella."),
                ("wav48--p226--a", "wav48", "p226", "", ""),
            ],
        ),
        (
            {path.removeprefix("wav48/"): data for path, data in VCTK.items()},
            {"folders": ("speaker",)},
            [("p225--p225_001", "", "p225", "", "Please call Stella."), ("p226--a", "", "p226", "", "")],
        ),
        (
            VCTK,
            {"folders": ("-", "speaker"), "files": ("*/p226/*",)},
            [("wav48--p226--a", "", "p226", "", "")],
        ),
        (
            LJSPEECH,
            {},
            [
                ("wavs--LJ001-0001", "wavs", "", "", "In fourteen fifty-five"),
                ("wavs--LJ001-0002", "wavs", "", "", ""),
            ],
        ),
        # The same stem in two folders.
        (ESC, {}, [("Dog--1-21189-A", "Dog", "", "", ""), ("Rain--1-21189-A", "Rain", "", "", "")]),
        (ESC, {"subsets": ("Rain",)}, [("Rain--1-21189-A", "Rain", "", "", "")]),
        (
            LIBRITTS,
            {},
            [("dev-clean--84--121123--84_121123_000007_000001", "dev-clean", "84", "121123", "Maximilian.")],
        ),
        # Levels that are not there, and levels that have no name.
        ({"a.flac": b"", "1/2/3/4/a.flac": b""}, {}, [("1--2--3--4--a", "1", "2", "3", ""), ("a", "", "", "", "")]),
    ],
)
def test_folders_name_what_they_hold(
    files: dict[str, bytes], fields: dict[str, Any], expected: list[tuple[str, ...]]
) -> None:
    found = AudioFolder(root="x", **fields).discover(Tree(files), {}).utterances
    assert [(u.utterance_id, u.subset, u.speaker_id, u.chapter_id, u.text) for u in found] == expected


@pytest.mark.parametrize(
    ("files", "text"),
    [
        # A path below the table's folder, with suffix. The nearest table that has the file goes
        # first.
        ({"metadata.csv": b"s/a.wav|far", "s/b.txt": b"other"}, "far"),
        ({"metadata.csv": b"s/a|far", "s/metadata.csv": b"a|near"}, "near"),
        ({"metadata.csv": b"s/a|far", "s/metadata.csv": b"b|near"}, "far"),
        ({"metadata.csv": b"a|listed", "s/a.txt": b"two\n lines "}, "two lines"),  # what lies beside it counts first
        ({"metadata.csv": "\ufeffa|in UTF-8 with a mark".encode()}, "in UTF-8 with a mark"),
    ],
)
def test_transcripts_come_from_beside_or_the_nearest_table(files: dict[str, bytes], text: str) -> None:
    (found,) = AudioFolder(root="x").discover(Tree({"s/a.wav": b"", **files}), {}).utterances
    assert found.text == text


@pytest.mark.parametrize(
    "path",
    [
        *("._a.wav", "s/._a.wav", ".Trashes/a.wav", ".Trash-1000/files/a.wav", "s/@eaDir/a.wav", "__MACOSX/s/a.wav"),
        *("$RECYCLE.BIN/a.wav", "a.wav.part", "a.txt", "wav", "a.mkv", "cover.jpg"),
    ],
)
def test_other_files_are_passed_over(path: str) -> None:
    assert ids(AudioFolder(root="x").discover(Tree({"b.WAV": b"", path: b"?"}), {}).utterances) == ["b"]


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        ({}, {}, r"root must hold audio files \(flac, wav, .*\), got 'x' with none among 0 files"),
        ({"a.txt": b"", "b.csv": b""}, {}, r"with none among 2 files"),
        # One recording in two formats, and two names that differ in what an id can't hold.
        (
            {"a.wav": b"", "a.flac": b""},
            {},
            r"twice in 'x': a.flac and a.wav; rename one, or choose with subsets or files, say files: '\*.flac'",
        ),
        ({"a b.wav": b"", "a  b.wav": b""}, {}, r"got 'a_b' twice"),
        (
            ESC,
            {"subsets": ("Rian",)},
            r"subsets must be in 'x', got 'Rian'; did you mean 'Rain'\? \(there: Dog, Rain\)",
        ),
        ({"a.wav": b""}, {"subsets": ("s",)}, r"got 's' \(there: none\)"),
        (ESC, {"files": ("*.wav",)}, r"got '\*.wav', which matches none of its 2 utterances; .*'Dog/1-21189-A.ogg'"),
    ],
)
def test_a_folder_that_will_not_do_is_explained(files: dict[str, bytes], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        AudioFolder(root="x", **fields).discover(Tree(files), {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"root": ""}, "root must be the folder of the corpus"),
        ({"root": "x", "folders": ("speakers",)}, "folders must hold only subset, speaker, chapter, -, got 'speakers'"),
        ({"root": "x", "folders": ("speaker", "-", "-", "speaker")}, "folders must name each level once"),
        ({"root": "x", "folders": ("speaker",), "subsets": ("a",)}, r"where no folder is a subset: folders is \['sp"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        AudioFolder(**fields)


def test_identity_leaves_the_place_out() -> None:
    assert AudioFolder(root="a").identity() == AudioFolder(root="b").identity()
    assert AudioFolder(root="a").identity() != AudioFolder(root="a", folders=("speaker",)).identity()


def test_it_is_an_ingest_stage() -> None:
    assert isinstance(AudioFolder(root="x"), IngestStage)


def test_only_the_first_bytes_of_a_wav_are_read_to_catalogue_it() -> None:
    class Headed(Tree):
        def read(self, path: str) -> bytes:
            assert not path.endswith(".wav"), "read whole"
            return super().read(path)

        def head(self, path: str, n: int) -> bytes:
            return self.contents[path][:n]

    found = AudioFolder(root="x").discover(Headed({"a.wav": flac(tone(9000), kind="WAV")}), {}).utterances
    assert [u.n_samples for u in found] == [9000]


def encoded(kind: str, subtype: str, sr: int) -> bytes:
    y = np.stack([tone(sr, sr, 0.5), tone(sr, sr, 0.25)], axis=1)
    file = io.BytesIO()
    soundfile.write(file, y, sr, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "kind", "subtype", "sr"),
    [
        ("a.wav", "WAV", "PCM_24", 22050),
        ("a.ogg", "OGG", "VORBIS", 44100),
        ("a.opus", "OGG", "OPUS", 48000),
        ("a.mp3", "MP3", "MPEG_LAYER_III", 44100),
        ("a.AIFF", "AIFF", "PCM_16", 8000),
    ],
)
def test_every_format_is_mixed_and_resampled(name: str, kind: str, subtype: str, sr: int) -> None:
    data = encoded(kind, subtype, sr)
    stage = AudioFolder(root="x")
    (utterance,) = stage.discover(Tree({name: data}), {}).utterances
    assert (utterance.source_sr, utterance.source_n_samples, utterance.n_samples) == (sr, sr, 16000)
    outcome = stage.ingest(utterance, data)
    assert outcome.array is not None
    assert outcome.array.shape == (16000,)
    y, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    np.testing.assert_allclose(outcome.array, 32768 * resample(y.mean(axis=1), sr, 16000), atol=0.51)


@pytest.mark.real
@pytest.mark.parametrize(
    ("corpus", "fields", "n", "n_subsets", "n_speakers"),
    [
        ("ESC-10", {"sr": 22050}, 48, 3, 0),
        ("VCTK", {"folders": ("speaker",)}, 20, 0, 6),
        ("LJSpeech", {}, 20, 1, 0),
        ("LibriTTS", {"folders": ("speaker",)}, 16, 0, 13),
    ],
)
def test_real_corpora_are_discovered_and_ingested(
    real_data: Path, corpus: str, fields: dict[str, Any], n: int, n_subsets: int, n_speakers: int
) -> None:
    root = real_data / "corpora" / corpus
    stage = AudioFolder(root=str(root), **fields)
    tree = SourceTree(str(root))
    found = stage.discover(tree, {}).utterances
    counts = (len(found), len({u.subset for u in found} - {""}), len({u.speaker_id for u in found} - {""}))
    assert counts == (n, n_subsets, n_speakers)
    chosen = found[::4]
    for u in chosen:
        outcome = stage.ingest(u, tree.read(u.path))
        assert outcome.array is not None
        assert outcome.array.shape == (u.n_samples,)
        info = soundfile.info(root / u.path)
        assert u.n_samples == -(-info.frames * u.sr // info.samplerate)


def test_a_rate_of_zero_harms_its_own_file_alone() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.full(3000, 1000, dtype=np.int16), 16000, format="WAV")
    good = file.getvalue()
    tree = Tree({"bad.wav": good[:24] + bytes(4) + good[28:], "good.wav": good})
    bad, fine = AudioFolder(root="c").discover(tree, {}).utterances
    assert (bad.source_sr, bad.n_samples, fine.n_samples) == (0, 0, 3000)
    assert bad.duration_s == 0


def test_a_reader_that_claims_a_length_without_a_rate_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AudioFolder, "claims", lambda *_: (0, 5))
    (utterance,) = AudioFolder(root="c").discover(Tree({"a.wav": b""}), {}).utterances
    assert (utterance.source_sr, utterance.source_n_samples, utterance.n_samples) == (0, 0, 0)


@pytest.fixture
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)


@pytest.fixture
def with_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: True)


def notes(files: list[str], **fields: Any) -> tuple[str, ...]:
    contents = {path: b"a\n" if path.endswith(".txt") else b"" for path in files}
    return AudioFolder(root="x", **fields).discover(Tree(contents), {}).notes


@pytest.mark.usefixtures("without_av")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.wav", "a.txt", "cover.jpg"], ["1 of 1 utterances have texts"]),
        (
            ["a.wav", "b.m4a", "s/c.M4A", "d.wma", "e.sph"],
            [
                "3 files are audio by their names but not read: 2 .m4a, 1 .wma; pip install 'melmill[av]' to read them",
            ],
        ),
        (
            ["a.wav", "b.mkv", "c.dsf", "d.dsf"],
            [
                "3 files are audio by their names but not read: 2 .dsf, 1 .mkv; convert them, say by ffmpeg -i FILE "
                "FILE.flac"
            ],
        ),
        (
            ["a.wav", "a.pt", "b.npz", "c.npy"],
            ["3 files hold arrays by their names, no audio: 1 .npy, 1 .npz, 1 .pt; mel_folder reads .npy"],
        ),
        (
            ["a.wav", "b.m4a"],
            ["1 file is audio by its name but not read: 1 .m4a; pip install 'melmill[av]' to read it"],
        ),
        # What systems leave behind.
        (["a.wav", "._b.m4a", ".Trashes/c.m4a"], []),
    ],
)
def test_files_that_are_passed_over_are_counted(files: list[str], expected: list[str]) -> None:
    assert list(notes(files)) == expected


@pytest.mark.usefixtures("with_av")
def test_of_two_formats_the_common_one_is_read() -> None:
    files = ["a.wav", "a.m4a", "b.m4a", "c.sph", "c.flac"]
    found = AudioFolder(root="x").discover(Tree(dict.fromkeys(files, b"")), {})
    assert [u.path for u in found.utterances] == ["a.wav", "b.m4a", "c.flac"]
    assert found.notes == (
        "2 files are audio but not read, as a file of another format has the name: 1 .m4a, 1 .sph; move them away",
    )


@pytest.mark.usefixtures("without_av")
def test_a_manifest_passes_over_what_it_does_not_list() -> None:
    assert notes(["a.wav", "b.wav", "train.txt"], manifest="train.txt") == ()


@pytest.mark.usefixtures("without_av")
@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        # What is not listed is nobody's loss, whatever its suffix.
        (b"a.wav\n", ()),
        (
            b"a.wav\nb.m4a\n",
            ("1 file is audio by its name but not read: 1 .m4a; pip install 'melmill[av]' to read it",),
        ),
    ],
)
def test_of_files_that_take_the_extra_those_listed_count(listed: bytes, expected: tuple[str, ...]) -> None:
    files = {"a.wav": b"", "b.m4a": b"", "c.m4a": b"", "d.sph": b"", "e.mkv": b"", "list.txt": listed}
    found = AudioFolder(root="x", manifest="list.txt").discover(Tree(files), {})
    assert found.notes == expected
    assert [u.path for u in found.utterances] == ["a.wav"]


@pytest.mark.usefixtures("without_av")
def test_of_two_formats_the_extra_is_asked_for_neither() -> None:
    assert notes(["a.wav", "a.m4a"]) == (
        "1 file is audio but not read, as a file of another format has the name: 1 .m4a; move it away",
    )


@pytest.mark.usefixtures("without_av")
def test_blanks_at_the_end_of_a_name_change_nothing() -> None:
    found = AudioFolder(root="x").discover(Tree({"a.wav ": b"", "b.m4a ": b"", "a.txt ": b"Said."}), {})
    assert [(u.path, u.utterance_id, u.text) for u in found.utterances] == [("a.wav ", "a", "Said.")]
    assert found.notes == (
        "1 file is audio by its name but not read: 1 .m4a; pip install 'melmill[av]' to read it",
        "1 of 1 utterances have texts",
    )


@pytest.mark.parametrize("hidden", [".old/a.wav", "@eaDir/a.wav", ".Trash-0/a.wav"])
def test_a_hidden_file_makes_no_name_ambiguous(hidden: str) -> None:
    files = {"s/a.wav": b"", hidden: b"", "metadata.csv": b"a|Said."}
    (found,) = AudioFolder(root="x").discover(Tree(files), {}).utterances
    assert (found.path, found.text) == ("s/a.wav", "Said.")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sr": "16 kHz"}, r"^sr must be a whole number, got '16 kHz'$"),
        ({"root": 5}, r"^root must be the folder of the corpus, got 5$"),
        ({"files": "*.wav"}, r"^files must be a list of texts such as \['\*\.flac'\], got '\*\.wav'$"),
        ({"subsets": "dev"}, r"^subsets must be a list of texts such as \['dev-clean'\], got 'dev'$"),
        ({"folders": None}, r"^folders must be a list of texts such as \['speaker'\], got None$"),
        ({"columns": 5}, r"^columns must be a list of texts such as \['path'\], got 5$"),
        ({"encoding": 5}, r"^encoding must be the name of a text encoding, .*, got 5$"),
        ({"manifest": 5}, r"^manifest must be the path of a list below the root, got 5$"),
    ],
)
def test_a_field_of_another_type_is_explained(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        AudioFolder(**{"root": "x", **fields})


@pytest.mark.usefixtures("without_av")
def test_a_folder_of_files_that_take_the_extra_says_so() -> None:
    with pytest.raises(
        ParameterError, match=r"with none among 2 files; 2 files are audio .*: 2 .m4a; pip install 'mel"
    ):
        notes(["a.m4a", "b.m4a"])


def test_the_extra_decides_no_key_and_no_catalogued_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: True)
    stage, tree = AudioFolder(root="x"), Tree({"a.wav": b"", "b.m4a": b""})
    before, identity = stage.discover(tree, {}).utterances, stage.identity()
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)
    assert stage.identity() == identity
    known = {utterance.path: utterance for utterance in before}
    assert stage.discover(tree, known).utterances == before
    assert [u.path for u in stage.discover(tree, {}).utterances] == ["a.wav"]


def m4a() -> bytes:
    return by_ffmpeg(tone(44100)[:, None], 44100, "ipod", "aac")


def test_files_of_ffmpeg_are_ingested() -> None:
    data = m4a()
    stage = AudioFolder(root="x")
    (utterance,) = stage.discover(Tree({"a.m4a": data}), {}).utterances
    y, header = decode(data)
    assert (utterance.source_sr, utterance.source_n_samples) == (44100, len(y))
    outcome = stage.ingest(utterance, data)
    assert outcome.array is not None
    assert outcome.row is not None
    assert outcome.row["subtype"] == header.subtype == "AAC"
    assert len(outcome.array) == utterance.n_samples >= 16000


def test_a_worker_without_the_extra_blames_no_utterance(monkeypatch: pytest.MonkeyPatch) -> None:
    data = m4a()
    stage = AudioFolder(root="x")
    (utterance,) = stage.discover(Tree({"a.m4a": data}), {}).utterances
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)
    with pytest.raises(PackageMissing, match=r"^reading MP4 needs the package av: pip install 'melmill\[av\]'$"):
        stage.ingest(utterance, data)
    assert issubclass(PackageMissing, ImportError)


def test_a_file_of_another_name_that_takes_the_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    data = m4a()
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)
    stage = AudioFolder(root="x")
    (utterance,) = stage.discover(Tree({"a.wav": data}), {}).utterances
    assert utterance.n_samples == 0
    with pytest.raises(Unusable, match="reading MP4 needs the package av"):
        stage.ingest(utterance, data)


def test_sphere_is_read() -> None:
    data = flac(tone(9000), 8000, "NIST", "ULAW")
    stage = AudioFolder(root="x")
    (utterance,) = stage.discover(Tree({"a.SPH": data}), {}).utterances
    assert (utterance.source_sr, utterance.source_n_samples, utterance.n_samples) == (8000, 9000, 18000)
    assert stage.ingest(utterance, data).array is not None


def test_the_catalogue_counts_what_a_header_estimates() -> None:
    data = by_ffmpeg(tone(48000)[:, None], 16000, "mp3", "libmp3lame", variable=True, write_xing="0")
    estimated = soundfile.info(io.BytesIO(data)).frames
    stage = AudioFolder(root="x")
    (utterance,) = stage.discover(Tree({"a.mp3": data}), {}).utterances
    assert utterance.n_samples >= 48000 > estimated
    outcome = stage.ingest(utterance, data)
    assert outcome.array is not None
    assert outcome.array.shape == (utterance.n_samples,)
    # A catalogue of before has the estimate.
    old = utterance._replace(source_n_samples=estimated, n_samples=estimated)
    with pytest.raises(
        Unusable, match=rf"^catalogued with {estimated:,} samples, .* estimates .*; {len(outcome.array):,} at"
    ):
        stage.ingest(old, data)


def test_a_file_that_could_not_be_read_when_it_was_catalogued_says_so() -> None:
    data = flac(tone())
    stage = AudioFolder(root="x")
    (utterance,) = stage.discover(Tree({"a.flac": data}), {}).utterances
    with pytest.raises(Unusable, match=r"^catalogued without a length, .*; 8,000 at 16,000 Hz now: run again, and"):
        stage.ingest(utterance._replace(source_sr=0, source_n_samples=0, n_samples=0), data)


class Failing(Tree):
    """A tree whose disk fails for one file."""

    error: OSError | MemoryError = FileNotFoundError(errno.ENOENT, "No such file or directory")

    def read(self, path: str) -> bytes:
        if path == "b.wav":
            raise self.error
        return super().read(path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, "Input/output error"), "Input/output error; check the disks there"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files; raise the limit of open files there"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some room there"),
        (OSError(errno.ESTALE, "Stale file handle"), "Stale file handle; check the disks there"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory; give each worker more memory"),
        (TimeoutError("the server does not answer"), "the server does not answer; check the network there"),
        (OSError("something else"), "something else, and plan again"),
        (MemoryError(), "MemoryError; give each worker more memory"),
    ],
)
def test_a_machine_that_can_not_read_a_file_blames_no_file(error: OSError | MemoryError, said: str) -> None:
    tree = Failing({"a.wav": flac(tone(), kind="WAV"), "b.wav": flac(tone(), kind="WAV")})
    tree.error = error
    with pytest.raises(CorpusUnreadable, match=rf"^can't read 'b.wav' of 'root' here: {re.escape(said)}"):
        AudioFolder(root="root").discover(tree, {})


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.ENAMETOOLONG, "File name too long"),
        FileNotFoundError("b.wav"),
    ],
)
def test_a_file_that_is_gone_or_locked_claims_nothing(error: OSError) -> None:
    tree = Failing({"a.wav": flac(tone(), kind="WAV"), "b.wav": flac(tone(), kind="WAV")})
    tree.error = error
    assert [one.n_samples for one in AudioFolder(root="root").discover(tree, {}).utterances] == [8000, 0]


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "AU"])
def test_a_file_may_shrink_after_it_was_listed(kind: str) -> None:
    class Shrinking(Tree):
        def read(self, path: str) -> bytes:
            return super().read(path)[:40]

    suffix = kind.lower()
    tree = Shrinking({f"a.{suffix}": flac(tone(), kind=kind, subtype="VORBIS" if kind == "OGG" else "PCM_16")})
    assert [one.n_samples for one in AudioFolder(root="root").discover(tree, {}).utterances] == [0]
