"""What readers say of folders that hold no whole corpus of theirs, in one line each."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melmill.errors import Error
from melmill.stages.ingest.reader import READERS, Reader
from melmill.storage.files.sources import SourceTree
from tests.stages.ingest.readers.published import CORPORA, LJSPEECH, VCTK, noise, reader, write_audio

# Fields that a reader can't do without.
NEEDED: dict[str, dict[str, Any]] = {"mel_folder": {"preset": "hifigan"}, "table": {"manifest": "list.csv"}}
OWN = sorted(name for name, one in READERS.items() if one.__module__.startswith("melmill."))
# What any folder of audio, or of arrays, is to them.
ANYTHING = {"audio_folder", "mel_folder"}
DESCRIBED = {"kaldi", "lhotse", "nemo", "parquet", "shar", "table", "webdataset"}


def refusal(uses: str, root: Path, **fields: Any) -> str:
    """Return the line that a reader says of a folder."""
    stage = reader(uses, root, **{**NEEDED.get(uses, {}), **fields})
    with pytest.raises(Error) as caught:
        stage.discover(SourceTree(stage.root), {})
    line = str(caught.value)
    assert "\n" not in line
    return line


def notes(uses: str, root: Path, **fields: Any) -> list[str]:
    stage = reader(uses, root, **fields)
    return list(stage.discover(SourceTree(stage.root), {}).notes)


@pytest.mark.parametrize("uses", OWN)
def test_an_empty_folder_is_refused(tmp_path: Path, uses: str) -> None:
    line = refusal(uses, tmp_path)
    assert str(tmp_path) in line
    assert "must hold" in line or "must be a file below" in line


@pytest.mark.parametrize("uses", OWN)
def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, uses: str) -> None:
    assert "it does not exist. Check the path" in refusal(uses, tmp_path / "nowhere")


@pytest.mark.parametrize("uses", sorted(set(OWN) - ANYTHING - {"ljspeech", "table"}))
def test_another_corpus_is_named(tmp_path: Path, uses: str) -> None:
    line = refusal(uses, LJSPEECH.write(tmp_path))
    assert "this looks like LJSpeech: use uses: ljspeech" in line


@pytest.mark.parametrize("uses", sorted(set(CORPORA) - {"vctk"}))
def test_vctk_is_named_where_it_is(tmp_path: Path, uses: str) -> None:
    assert "this looks like VCTK: use uses: vctk" in refusal(uses, VCTK.write(tmp_path))


def test_any_folder_of_audio_has_a_reader(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", 16000)
    assert "audio_folder reads any folder of audio" in refusal("timit", tmp_path)


@pytest.mark.parametrize("uses", sorted(CORPORA))
def test_a_download_that_is_not_finished_is_named(tmp_path: Path, uses: str) -> None:
    (tmp_path / "corpus.tar.gz.part").write_bytes(b"\x1f\x8b")
    assert "'corpus.tar.gz.part' is a download that is not finished" in refusal(uses, tmp_path)


@pytest.mark.parametrize("uses", sorted(CORPORA))
def test_an_archive_that_is_not_unpacked_is_named(tmp_path: Path, uses: str) -> None:
    (tmp_path / "corpus.tar.gz").write_bytes(b"\x1f\x8b")
    assert f"say root: {tmp_path}/corpus.tar.gz to read that" in refusal(uses, tmp_path)


def test_an_archive_of_a_corpus_is_no_shard(tmp_path: Path) -> None:
    """Though its name has a number."""
    (tmp_path / "train-clean-100.tar.gz").write_bytes(b"\x1f\x8b")
    assert f"say root: {tmp_path}/train-clean-100.tar.gz to read that" in refusal("libritts", tmp_path)


@pytest.mark.parametrize("uses", sorted(CORPORA))
@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_an_archive_that_is_cut_off_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uses: str, kind: str
) -> None:
    monkeypatch.setenv("MELMILL_CACHE", str(tmp_path / "cache"))
    archive = tmp_path / f"corpus.{kind}"
    with tarfile.open(archive, "w:gz" if kind == "tar.gz" else "w") as tar:
        tar.add(CORPORA[uses].write(tmp_path / "there"), ".")
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) * 6 // 10])
    assert f"the archive {archive} is cut off or damaged" in refusal(uses, archive)


@pytest.mark.parametrize("uses", sorted(CORPORA))
def test_a_recording_that_is_cut_off_is_found_with_no_length(tmp_path: Path, uses: str) -> None:
    """A half-downloaded file goes to quarantine by name; the others are read."""
    CORPORA[uses].write(tmp_path)
    victim = tmp_path / next(iter(CORPORA[uses].audio))
    victim.write_bytes(victim.read_bytes()[:30])
    stage = reader(uses, tmp_path, sr=16000)
    utterances = stage.discover(SourceTree(stage.root), {}).utterances
    assert [one.path for one in utterances if not one.n_samples] == [str(victim.relative_to(tmp_path))]


# Descriptions: each writes one that names some recordings, by their paths, and where they lie (s).


def _tar_manifest(root: Path, rows: list[tuple[str, float, float]]) -> None:
    with tarfile.open(root / "audio_0.tar", "w"):
        pass
    lines = [
        {"audio_filepath": path, "shard_id": 0, "offset": start, "duration": end - start} for path, start, end in rows
    ]
    (root / "manifest.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _kaldi(root: Path, rows: list[tuple[str, float, float]]) -> None:
    (root / "wav.scp").write_text("".join(f"{Path(path).stem} {path}\n" for path, _, _ in rows))
    numbered = enumerate(rows)
    (root / "segments").write_text(
        "".join(f"u{i} {Path(path).stem} {start} {end}\n" for i, (path, start, end) in numbered)
    )


def _lhotse(root: Path, rows: list[tuple[str, float, float]]) -> None:
    lines = []
    for i, (path, start, end) in enumerate(rows):
        source = {"type": "file", "channels": [0], "source": path}
        recording = {"id": path, "sources": [source], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
        cut = {"id": f"u{i}", "type": "MonoCut", "start": start, "duration": end - start, "channel": 0}
        lines.append({**cut, "recording": recording, "supervisions": []})
    (root / "cuts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _nemo(root: Path, rows: list[tuple[str, float, float]]) -> None:
    lines = [
        {"audio_filepath": path, "offset": start, "duration": end - start, "text": ""} for path, start, end in rows
    ]
    (root / "manifest.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _table(root: Path, rows: list[tuple[str, float, float]]) -> None:
    (root / "list.csv").write_text("path,start,end\n" + "".join(f"{p},{s},{e}\n" for p, s, e in rows))


def _parquet(root: Path, rows: list[tuple[str, float, float]]) -> None:
    paths, starts, ends = zip(*rows, strict=True)
    ids = [f"u{i}" for i in range(len(rows))]
    pq.write_table(
        pa.table({"id": ids, "path": list(paths), "start": list(starts), "end": list(ends)}), root / "x.parquet"
    )


WRITERS: dict[str, Callable[[Path, list[tuple[str, float, float]]], None]] = {
    "kaldi": _kaldi,
    "lhotse": _lhotse,
    "nemo": _nemo,
    "parquet": _parquet,
    "table": _table,
}


@pytest.mark.parametrize("uses", WRITERS)
def test_a_description_of_missing_files_is_refused(tmp_path: Path, uses: str) -> None:
    WRITERS[uses](tmp_path, [("gone.wav", 0.0, 0.5)])
    assert "1 passed over, naming files that are not there: 'gone.wav'" in refusal(uses, tmp_path) or uses == "kaldi"


@pytest.mark.parametrize("uses", WRITERS)
def test_missing_files_are_counted(tmp_path: Path, uses: str) -> None:
    write_audio(tmp_path / "a.wav", 16000, n_samples=16000)
    WRITERS[uses](tmp_path, [("a.wav", 0.0, 0.5), ("gone.wav", 0.0, 0.5)])
    assert any(
        "1 passed over, naming files that are not there: 'gone.wav'" in line
        for line in notes(uses, tmp_path, **NEEDED.get(uses, {}))
    )


@pytest.mark.parametrize("uses", WRITERS)
def test_reversed_segments_are_counted(tmp_path: Path, uses: str) -> None:
    write_audio(tmp_path / "a.wav", 16000, n_samples=16000)
    WRITERS[uses](tmp_path, [("a.wav", 0.0, 0.25), ("a.wav", 0.75, 0.5)])
    assert any(
        line.startswith("1 passed over, segments that are none")
        for line in notes(uses, tmp_path, **NEEDED.get(uses, {}))
    )
    WRITERS[uses](tmp_path, [("a.wav", 0.75, 0.5)])
    assert "segments that are none" in refusal(uses, tmp_path)


@pytest.mark.parametrize("uses", WRITERS)
def test_segments_past_the_end_are_counted(tmp_path: Path, uses: str) -> None:
    write_audio(tmp_path / "a.wav", 16000, n_samples=16000)
    WRITERS[uses](tmp_path, [("a.wav", 0.0, 0.25), ("a.wav", 0.5, 1.5), ("a.wav", 0.5, 1.02)])
    lines = notes(uses, tmp_path, **NEEDED.get(uses, {}))
    assert any("(samples 8,000 to 24,000 of 16,000)" in line for line in lines)
    assert "1 segments end up to 50 ms after their recording: cut there" in lines


@pytest.mark.parametrize("uses", WRITERS)
def test_segments_that_overlap_are_counted(tmp_path: Path, uses: str) -> None:
    write_audio(tmp_path / "a.wav", 16000, n_samples=16000)
    WRITERS[uses](tmp_path, [("a.wav", 0.0, 0.5), ("a.wav", 0.25, 0.75), ("a.wav", 0.75, 1.0)])
    lines = notes(uses, tmp_path, **NEEDED.get(uses, {}))
    assert any(line.startswith("1 segments overlap others of their recording") for line in lines)


@pytest.mark.parametrize("uses", ["lhotse", "nemo", "shar"])
def test_a_manifest_that_is_cut_off_is_refused(tmp_path: Path, uses: str) -> None:
    name = {"lhotse": "cuts.jsonl", "nemo": "manifest.json", "shar": "cuts.000000.jsonl"}[uses]
    (tmp_path / name).write_text('{"id": "a"}\n{"id": "b", "audio_fi')
    with tarfile.open(tmp_path / "recording.000000.tar", "w"):
        pass
    line = refusal(uses, tmp_path)
    assert f"must hold a JSON object on each line, got {name!r}, line 2" in line
    assert "the file may be cut off" in line


@pytest.mark.parametrize("uses", ["parquet", "webdataset", "shar"])
def test_shards_that_are_cut_off_are_refused(tmp_path: Path, uses: str) -> None:
    if uses == "parquet":
        path = tmp_path / "x.parquet"
        pq.write_table(pa.table({"audio": [b"x" * 1000]}), path)
    else:
        path = tmp_path / ("recording.000000.tar" if uses == "shar" else "a-000000.tar")
        (tmp_path / "cuts.000000.jsonl").write_text('{"id": "a"}\n') if uses == "shar" else None
        with tarfile.open(path, "w") as tar:
            info = tarfile.TarInfo("a.wav")
            info.size = 8000
            tar.addfile(info, io.BytesIO(noise(4000).tobytes()))
    path.write_bytes(path.read_bytes()[:700])
    assert "fetch it again" in refusal(uses, tmp_path)


@pytest.mark.parametrize("uses", sorted(DESCRIBED))
def test_a_manifest_that_is_not_there_is_refused(tmp_path: Path, uses: str) -> None:
    write_audio(tmp_path / "a.wav", 16000)
    line = refusal(uses, tmp_path, manifest="lost.jsonl")
    assert line.startswith("manifest must be a file below")
    assert "got 'lost.jsonl', which is not there" in line


def test_every_reader_says_what_it_expects() -> None:
    for uses in OWN:
        cls: type[Reader] = READERS[uses]
        assert cls.expects
        assert cls.__doc__
