"""Readers of recordings that files describe."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from melmill.stages.contract import Rejected
from melmill.stages.ingest.parts import Span, number, part_of
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.files.sources import SourceTree
from tests.stages.ingest.corpora import outcome_of, rejected
from tests.stages.ingest.readers.published import noise, read, reader, said, write_audio

SR = 16000


def audio(n_samples: int = 16000, seed: int = 0, kind: str = "FLAC", channels: int = 1) -> bytes:
    y = np.stack([noise(n_samples, seed + c) for c in range(channels)], axis=1)
    file = io.BytesIO()
    soundfile.write(file, y, SR, format=kind)
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def written(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# Kaldi


@pytest.fixture
def kaldi(tmp_path: Path) -> Path:
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec/a.flac").write_bytes(audio(32000))
    (tmp_path / "rec/b.wav").write_bytes(audio(16000, 5, "WAV", channels=2))
    data = tmp_path / "data/train"
    data.mkdir(parents=True)
    (data / "wav.scp").write_text("a ../../rec/a.flac\nb ../../rec/b.wav\n")
    (data / "text").write_text("a-1 HELLO  WORLD\nb-1 YES\n")
    (data / "utt2spk").write_text("a-1 s1\na-2 s1\nb-1 s2\n")
    (data / "spk2gender").write_text("s1 f\ns2 m\n")
    (data / "segments").write_text("a-1 a 0.00 0.75\na-2 a 1.0 -1\nb-1 b 0.25 0.50003\n")
    (data / "reco2file_and_channel").write_text("b b B\n")
    return tmp_path


def test_segments_of_kaldi_are_exact(kaldi: Path) -> None:
    utterances, _, outcomes = read(reader("kaldi", kaldi, manifest="data/train/wav.scp"))
    assert said(utterances) == {
        "a-1": ("", "s1", "F", "HELLO  WORLD"),
        "a-2": ("", "s1", "F", ""),
        "b-1": ("", "s2", "M", "YES"),
    }
    a, b = noise(32000), noise(16000, 6)  # the second channel
    for name, y in (("a-1", a[:12000]), ("a-2", a[16000:]), ("b-1", b[4000:8000])):
        assert outcomes[name].array is not None
        np.testing.assert_array_equal(outcomes[name].array, y)


def test_a_data_folder_needs_no_segments(kaldi: Path) -> None:
    (kaldi / "data/train/segments").unlink()
    utterances, notes, _ = read(reader("kaldi", kaldi, manifest="data/train/wav.scp"))
    assert {name: one.n_samples for name, one in utterances.items()} == {"a": 32000, "b": 16000}
    assert any("2 of 2 texts are of no utterance of data/train/wav.scp; first: 'a-1'" in note for note in notes)


def test_data_folders_are_subsets(kaldi: Path) -> None:
    (kaldi / "data/dev").mkdir()
    (kaldi / "rec/c.wav").write_bytes(audio(8000, 9, "WAV"))
    (kaldi / "data/dev/wav.scp").write_text("c ../../rec/c.wav\n")
    (kaldi / "data/train/split2/1").mkdir(parents=True)
    (kaldi / "data/train/split2/1/wav.scp").write_text("a ../../rec/a.flac\n")
    utterances, _, _ = read(reader("kaldi", kaldi))
    assert {name: one.subset for name, one in utterances.items()} == {
        "a-1": "train", "a-2": "train", "b-1": "train", "c": "dev"
    }  # fmt: skip


def test_commands_are_refused_unless_they_are_allowed(kaldi: Path) -> None:
    scp = kaldi / "data/train/wav.scp"
    (kaldi / "data/train/segments").unlink()
    touched = kaldi / "touched"
    scp.write_text(f"a cat {kaldi}/rec/a.flac | cat |\nx touch {touched} |\nb ../../rec/b.wav\n")
    utterances, notes, _ = read(reader("kaldi", kaldi, manifest="data/train/wav.scp"))
    assert list(utterances) == ["b"]
    assert not touched.exists()
    assert any(note.startswith("2 passed over, made by commands (say pipes: run to run them)") for note in notes)
    stage = reader("kaldi", kaldi, manifest="data/train/wav.scp", pipes="run")
    tree = SourceTree(stage.root)
    found = {one.utterance_id: one for one in stage.discover(tree, {}).utterances}
    assert touched.exists()
    outcome = stage.ingest(found["a"], tree.read(found["a"].path))
    np.testing.assert_array_equal(outcome.array, noise(32000))
    assert "0 bytes" in rejected(outcome_of(stage, found["x"], tree.read(found["x"].path))).reason
    assert stage.identity() != reader("kaldi", kaldi, manifest="data/train/wav.scp").identity()
    # A catalogue that names a command does not run it for a reader that may not.
    plain = reader("kaldi", kaldi, manifest="data/train/wav.scp")
    reason = rejected(outcome_of(plain, found["a"], tree.read(found["a"].path))).reason
    assert reason == "a command makes this recording, and pipes: refuse runs none"


def test_a_command_that_fails_is_the_reason(kaldi: Path) -> None:
    (kaldi / "data/train/wav.scp").write_text("a echo no such disk >&2; exit 3 |\n")
    (kaldi / "data/train/segments").unlink()
    stage = reader("kaldi", kaldi, manifest="data/train/wav.scp", pipes="run")
    tree = SourceTree(stage.root)
    (utterance,) = stage.discover(tree, {}).utterances
    refused: Rejected = rejected(outcome_of(stage, utterance, tree.read(utterance.path)))
    assert refused.reason == "its command fails with 3 (no such disk): echo no such disk >&2; exit 3"


def test_absolute_paths_need_a_root_above_them(kaldi: Path) -> None:
    scp = kaldi / "data/train/wav.scp"
    (kaldi / "data/train/segments").unlink()
    scp.write_text(f"a {kaldi}/rec/a.flac\n")
    with pytest.raises(ParameterError, match=rf"outside of root \(say root: {kaldi} and manifest: below it"):
        read(reader("kaldi", kaldi / "data"))
    assert list(read(reader("kaldi", kaldi))[0]) == ["a"]


# Lhotse


def recording(name: str, path: str, n_samples: int = 32000, **more: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": path}
    rest = {"sampling_rate": SR, "num_samples": n_samples, "duration": n_samples / SR}
    return {"id": name, "sources": [source], **rest, **more}


def supervision(name: str, of: str, start: float, duration: float, text: str) -> dict[str, Any]:
    said = {"text": text, "speaker": "s1", "gender": "female", "language": "English"}
    return {"id": name, "recording_id": of, "start": start, "duration": duration, "channel": 0, **said}


def test_recordings_and_supervisions_of_lhotse_are_joined(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(audio(32000))
    (tmp_path / "b.flac").write_bytes(audio(16000, 1))
    transformed = recording("c", "a.flac", transforms=[{"name": "Speed"}])
    recordings = [recording("a", "a.flac"), recording("b", "b.flac", 16000), transformed]
    written(tmp_path / "x_recordings_dev.jsonl.gz", recordings)
    spoken = [supervision("a-0", "a", 0.5, 1.0, "one"), supervision("a-1", "a", 1.5, 0.5, "two")]
    spoken += [supervision("b-0", "b", 0.0, 1.0, "three"), supervision("z-0", "z", 0.0, 1.0, "four")]
    written(tmp_path / "x_supervisions_dev.jsonl.gz", spoken)
    utterances, notes, outcomes = read(reader("lhotse", tmp_path))
    assert {name: (one.path, one.text) for name, one in utterances.items()} == {
        "a-0": ("a.flac//#8000+16000", "one"),
        "a-1": ("a.flac//#24000+8000", "two"),
        "b-0": ("b.flac", "three"),
    }
    assert outcomes["a-0"].array is not None
    np.testing.assert_array_equal(outcomes["a-0"].array, noise(32000)[8000:24000])
    assert any("recordings that are changed when they are loaded (transforms)" in note for note in notes)
    assert any("supervisions of recordings that are not described" in note for note in notes)


def test_cuts_of_lhotse_are_utterances(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(audio(32000))
    cut: dict[str, Any] = {"id": "cut-1", "type": "MonoCut", "start": 0.25, "duration": 1.0, "channel": 0}
    said_twice = [supervision("2", "a", 0.5, 0.5, "world"), supervision("1", "a", 0.0, 0.5, "hello")]
    mixed: dict[str, Any] = {"id": "m", "type": "MixedCut", "tracks": []}
    cuts: list[dict[str, Any]] = [{**cut, "supervisions": said_twice, "recording": recording("a", "a.flac")}, mixed]
    written(tmp_path / "cuts_train.jsonl.gz", cuts)
    utterances, notes, outcomes = read(reader("lhotse", tmp_path))
    assert said(utterances) == {"cut-1": ("", "s1", "F", "hello world")}
    assert outcomes["cut-1"].array is not None
    np.testing.assert_array_equal(outcomes["cut-1"].array, noise(32000)[4000:20000])
    assert any("cuts that are mixed or padded" in note for note in notes)


def test_shar_is_read_in_its_tars(tmp_path: Path) -> None:
    placeholder = {"id": "c1", "sources": [{"type": "shar", "channels": [0], "source": ""}], "sampling_rate": SR}
    cut = {"type": "MonoCut", "start": 0, "duration": 1.0, "channel": 0, "recording": placeholder}
    lines = [{**cut, "id": name, "supervisions": [supervision(name, name, 0, 1, name)]} for name in ("c1", "c2", "c3")]
    written(tmp_path / "cuts.000000.jsonl.gz", lines)
    with tarfile.open(tmp_path / "recording.000000.tar", "w") as tar:
        for seed, name in enumerate(("c1", "c2")):
            add(tar, f"{name}.flac", audio(16000, seed))
            add(tar, f"{name}.json", b"{}")
    utterances, notes, outcomes = read(reader("shar", tmp_path))
    assert {name: one.text for name, one in utterances.items()} == {"c1": "c1", "c2": "c2"}
    assert utterances["c2"].path == "recording.000000.tar//c2.flac"
    assert outcomes["c2"].array is not None
    np.testing.assert_array_equal(outcomes["c2"].array, noise(16000, 1))
    assert any("1 passed over, cuts whose audio is not in their tar: 'c3'" in note for note in notes)


# NeMo


def test_lines_of_nemo_with_an_offset_are_segments(tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    (tmp_path / "wav/a.wav").write_bytes(audio(32000, kind="WAV"))
    (tmp_path / "wav/b.wav").write_bytes(audio(8000, 1, "WAV"))
    lines: list[dict[str, Any]] = [
        {"audio_filepath": "wav/a.wav", "offset": 0.5, "duration": 0.25, "text": "one", "speaker": 7},
        {"audio_filepath": str(tmp_path / "wav/a.wav"), "offset": 1.0, "duration": 0.5, "text": "two"},
        {"audio_filepath": "wav/b.wav", "duration": 0.5, "text": "three"},
        {"duration": 0.5, "text": "four"},
    ]
    written(tmp_path / "train_manifest.json", lines)
    utterances, notes, outcomes = read(reader("nemo", tmp_path))
    lengths = {one.text: (one.n_samples, one.speaker_id) for one in utterances.values()}
    assert lengths == {"one": (4000, "7"), "two": (8000, ""), "three": (8000, "")}
    assert utterances["wav--a-000008000"].path == "wav/a.wav//#8000+4000"
    np.testing.assert_array_equal(outcomes["wav--a-000008000"].array, noise(32000)[8000:12000])
    assert any("1 passed over, lines without an audio_filepath: train_manifest.json:4" in note for note in notes)


def test_tarred_manifests_of_nemo_are_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "audio_0.tar", "w") as tar:
        add(tar, "a.wav", audio(8000, 3, "WAV"))
    lines = [{"audio_filepath": name, "duration": 0.5, "text": "x", "shard_id": 0} for name in ("a.wav", "b.wav")]
    written(tmp_path / "tarred_audio_manifest.json", lines)
    utterances, notes, outcomes = read(reader("nemo", tmp_path))
    assert utterances["a"].path == "audio_0.tar//a.wav"
    np.testing.assert_array_equal(outcomes["a"].array, noise(8000, 3))
    assert any("naming files that are not there: 'b.wav' of 'audio_0.tar'" in note for note in notes)


# Parquet and Arrow


def table(n: int = 5) -> pa.Table:
    cells = [{"bytes": audio(4000, i), "path": f"clip {i}.flac"} for i in range(n)]
    return pa.table({"audio": cells, "sentence": [f"text {i}" for i in range(n)], "speaker_id": list(range(n))})


def test_parquet_files_of_hugging_face_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(table(), tmp_path / "data/train-00000-of-00001.parquet", row_group_size=2)
    pq.write_table(table(1), tmp_path / "data/test-00000-of-00001.parquet")
    with pytest.raises(ParameterError, match="must name each utterance once, got 'clip_0' twice"):
        read(reader("parquet", tmp_path))
    utterances, _, outcomes = read(reader("parquet", tmp_path, subsets=("train",)))
    assert said(utterances) == {f"clip_{i}": ("train", str(i), "", f"text {i}") for i in range(5)}
    for i in range(5):
        np.testing.assert_array_equal(outcomes[f"clip_{i}"].array, noise(4000, i))


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_files_of_hugging_face_are_read(tmp_path: Path, stream: bool) -> None:
    made = table()
    (tmp_path / "train").mkdir()
    path = tmp_path / "train/data-00000-of-00001.arrow"
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opened(str(path), made.schema) as writer:
        writer.write_table(made, max_chunksize=2)
    utterances, _, outcomes = read(reader("parquet", tmp_path))
    assert {one.subset for one in utterances.values()} == {"train"}
    np.testing.assert_array_equal(outcomes["clip_4"].array, noise(4000, 4))


def test_a_table_may_hold_plain_bytes_or_paths(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(audio(4000, 8))
    pq.write_table(pa.table({"blob": [audio(4000, 7)], "who": ["s"]}), tmp_path / "plain.parquet")
    stage = reader("parquet", tmp_path, manifest="plain.parquet", audio_column="blob", speaker_column="who")
    utterances, _, outcomes = read(stage)
    assert said(utterances) == {"plain-000000": ("plain", "s", "", "")}
    np.testing.assert_array_equal(outcomes["plain-000000"].array, noise(4000, 7))
    cells = pa.array([{"bytes": None, "path": "a.flac"}, {"bytes": None, "path": None}],
                     pa.struct([("bytes", pa.binary()), ("path", pa.string())]))  # fmt: skip
    pq.write_table(pa.table({"audio": cells}), tmp_path / "named.parquet")
    utterances, notes, outcomes = read(reader("parquet", tmp_path, manifest="named.parquet"))
    assert utterances["a"].path == "a.flac"
    assert any("1 passed over, rows without audio: named.parquet[1]" in note for note in notes)


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    pq.write_table(table(1), tmp_path / "x.parquet")
    with pytest.raises(
        ParameterError, match=r"audio_column must be a column of 'x.parquet', got 'audoi'; did you mean"
    ):
        read(reader("parquet", tmp_path, audio_column="audoi"))
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(ParameterError, match=r"audio_column must say which column of 'x.parquet' holds the recordings"):
        read(reader("parquet", tmp_path))


# WebDataset


def test_samples_of_webdataset_are_read_in_their_tars(tmp_path: Path) -> None:
    for split, names in (("train-000000", ("a/x", "a/y")), ("dev-000000", ("z",))):
        with tarfile.open(tmp_path / f"{split}.tar", "w") as tar:
            for seed, name in enumerate(names):
                add(tar, f"{name}.flac", audio(8000, seed))
                add(tar, f"{name}.json", json.dumps({"text": f"json {name}", "speaker": "s1"}).encode())
            add(tar, f"{names[-1]}.txt", b"a text\n")
            add(tar, "alone.txt", b"no audio")
    utterances, notes, outcomes = read(reader("webdataset", tmp_path))
    assert said(utterances) == {
        "a--x": ("train", "s1", "", "json a/x"),
        "a--y": ("train", "s1", "", "a text"),
        "z": ("dev", "s1", "", "a text"),
    }
    np.testing.assert_array_equal(outcomes["a--y"].array, noise(8000, 1))
    assert any("2 passed over, samples without audio" in note for note in notes)


# Tables


@pytest.mark.parametrize(
    ("name", "content", "fields"),
    [
        ("list.csv", 'path,sentence,who\nwav/a.wav,"Yes, sir",s1\n', {"speaker_column": "who"}),
        ("list.tsv", "path\tsentence\tspeaker\nwav/a.wav\tYes, sir\ts1\n", {}),
        ("list.txt", "wav/a.wav|Yes, sir|s1\n", {"columns": ("path", "text", "speaker")}),
        ("list.jsonl", '{"file_name": "wav/a.wav", "text": "Yes, sir", "speaker": "s1"}\n', {}),
        (
            "list.psv",
            "a|b|c\nwav/a.wav|Yes, sir|s1\n",
            {f"{role}_column": name for role, name in zip(("audio", "text", "speaker"), "abc", strict=True)},
        ),
    ],
)
def test_a_table_names_recordings(tmp_path: Path, name: str, content: str, fields: dict[str, Any]) -> None:
    write_audio(tmp_path / "wav/a.wav", SR)
    (tmp_path / name).write_text(content)
    utterances, _, _ = read(reader("table", tmp_path, manifest=name, **fields))
    assert said(utterances) == {"wav--a": ("", "s1", "", "Yes, sir")}


@pytest.mark.parametrize(
    ("times", "row", "part"),
    [
        ("s", "a.wav,0.5,1.0,", "//#8000+8000"),
        ("ms", "a.wav,250,,500", "//#4000+8000"),
        ("samples", "a.wav,3,7,", "//#3+4"),
        ("samples", "a.wav,,,", ""),
        # the nearest sample, halves up
        ("s", "a.wav,0.00003125,0.25,", "//#1+3999"),
    ],
)
def test_a_table_names_segments(tmp_path: Path, times: str, row: str, part: str) -> None:
    write_audio(tmp_path / "a.wav", SR, n_samples=16000)
    (tmp_path / "list.csv").write_text(f"path,start,end,duration\n{row}\n")
    stage = reader("table", tmp_path, manifest="list.csv", times=times)
    (utterance,) = stage.discover(SourceTree(stage.root), {}).utterances
    assert utterance.path == f"a.wav{part}"


# Parts of recordings


@pytest.mark.parametrize("kind", ["flac", "wav", "mp3", "opus"])
def test_a_part_has_the_samples_that_the_whole_has_there(tmp_path: Path, kind: str) -> None:
    write_audio(tmp_path / f"a.{kind}", 48000, n_samples=48000)
    (tmp_path / "list.csv").write_text(f"path,start,duration\na.{kind},0.1,0.2\na.{kind},0.6,0.1\n")
    _, _, whole = read(reader("audio_folder", tmp_path, sr=48000))
    _, _, parts = read(reader("table", tmp_path, manifest="list.csv", sr=48000))
    y = whole["a"].array
    assert y is not None
    for start, end in ((4800, 14400), (28800, 33600)):
        np.testing.assert_array_equal(parts[f"a-{start:09d}"].array, y[start:end])


def test_a_recording_that_became_shorter_is_refused(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", SR, n_samples=16000)
    (tmp_path / "list.csv").write_text("path,start,end\na.wav,0.5,1.0\n")
    stage = reader("table", tmp_path, manifest="list.csv")
    (utterance,) = stage.discover(SourceTree(stage.root), {}).utterances
    reason = rejected(outcome_of(stage, utterance, audio(12000, kind="WAV"))).reason
    assert reason == "samples 8,000 to 16,000 are wanted of a recording of 12,000 samples"


def test_parts_are_written_in_paths() -> None:
    for path in ("a.flac//#1+2", "a.flac//#1+2:1", "a.flac//#:0"):
        assert f"a.flac{part_of(path)}" == path
    assert part_of("a#b.flac").is_whole
    assert Span(number("1.5") or number(0), end=number(1)).problem == "it ends at 1 and begins at 1.5"  # type: ignore[arg-type]


# Values that JSON allows where Lhotse writes others
ODD: tuple[Any, ...] = ("x", 3, None, [], {}, ["x"], [3], [{}], [None], {"a": 1}, True, -1.5)


@pytest.mark.parametrize("field", ["sources", "channels", "supervisions", "start", "duration", "channel", "type"])
def test_odd_values_of_lhotse_are_passed_over_or_say_nothing(tmp_path: Path, field: str) -> None:
    write_audio(tmp_path / "a.wav", 16000)
    for value in ODD:
        recording: dict[str, Any] = {
            "id": "a",
            "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
            "sampling_rate": 16000,
            "num_samples": 16000,
        }
        cut: dict[str, Any] = {
            "id": "c",
            "start": 0.1,
            "duration": 0.2,
            "channel": 0,
            "supervisions": [{"id": "s", "text": "t"}],
        }
        cut |= {"type": "MonoCut", "recording": recording}
        if field == "channels":
            recording["sources"] = [{"type": "file", "channels": value, "source": "a.wav"}]
        else:
            (recording if field == "sources" else cut)[field] = value
        if field in ("start", "duration"):
            cut["supervisions"] = [{"id": "s", field: value}, {"id": "t", field: 0.5}]
        (tmp_path / "cuts.jsonl").write_text(json.dumps(cut))
        stage = reader("lhotse", tmp_path)
        ids, passed = [""], ""
        try:
            ids = [one.utterance_id for one in stage.discover(SourceTree(str(tmp_path)), {}).utterances]
        except ParameterError as error:
            passed = str(error)
        assert ids == ["c"] or "1 passed over" in passed


def test_samples_whose_json_is_none_are_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x-000.tar", "w") as tar:
        add(tar, "k.flac", audio())
        add(tar, "k.json", b"{broken")
    stage = reader("webdataset", tmp_path)
    found = stage.discover(SourceTree(str(tmp_path)), {})
    assert [(one.utterance_id, one.text) for one in found.utterances] == [("k", "")]
    assert "1 samples have JSON that can't be parsed and is not taken: 'x-000.tar//k.json'" in found.notes[0]


def test_lines_of_json_may_lack_what_others_have(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", 16000)
    write_audio(tmp_path / "b.wav", 16000)
    lines = [{"audio": "a.wav"}, {"audio": "b.wav", "text": "hello", "speaker": None}]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)).replace("audio", "audio_filepath"))
    for uses in ("table", "nemo"):
        stage = reader(uses, tmp_path, manifest="manifest.jsonl")
        found = stage.discover(SourceTree(str(tmp_path)), {}).utterances
        assert [(one.utterance_id, one.text, one.speaker_id) for one in found] == [("a", "", ""), ("b", "hello", "")]
