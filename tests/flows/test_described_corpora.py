"""Runs over archives, and over segments of long recordings."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

import melmill
from melmill.flows.exchange.export import export
from melmill.flows.execution.summary import Summary
from tests.stages.ingest.readers.published import LIBRITTS, noise, write_audio

PIPELINE = """\
name: described
store: {store}
shard_duration_s: 2
stages:
  speech: {{{speech}}}
  mel:    {{uses: extract, from: speech}}
"""


def run(folder: Path, speech: str, store: str = "store") -> Summary:
    path = folder / "pipeline.yaml"
    path.write_text(PIPELINE.format(store=folder / store, speech=speech))
    return melmill.run(path, executor="serial")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder of Kaldi with segments of one recording, in every third second of it."""
    root = tmp_path / "data"
    write_audio(root / "long.flac", 16000, n_samples=160_000)
    (root / "wav.scp").write_text("long long.flac\n")
    (root / "segments").write_text("".join(f"u{i} long {i}.0 {i}.5\n" for i in range(0, 10, 3)))
    (root / "text").write_text("u0 HELLO\nu3 WORLD\n")
    return root


def test_segments_are_stored_or_stay_in_their_recording(tmp_path: Path, data: Path) -> None:
    y = noise(160_000)
    arrays = {}
    for store, more in (("stored", ""), ("stays", ", audio: reference")):
        summary = run(tmp_path, f"uses: kaldi, root: {data}{more}", store)
        assert (summary.utterances, summary.quarantined) == (4, 0)
        opened = melmill.open(str(tmp_path / store))
        for i in range(0, 10, 3):
            np.testing.assert_array_equal(opened["speech"][f"u{i}"], y[16000 * i : 16000 * i + 8000])
        arrays[store] = {name: np.asarray(opened["mel"][name]) for name in opened["mel"]}
    for name, M in arrays["stored"].items():
        np.testing.assert_array_equal(M, arrays["stays"][name])
    assert run(tmp_path, f"uses: kaldi, root: {data}", "stored").tasks.run == 0


def test_segments_are_exported_under_their_ids(tmp_path: Path, data: Path) -> None:
    run(tmp_path, f"uses: kaldi, root: {data}")
    export(melmill.open(str(tmp_path / "store")), "speech", str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.flac")) == [
        "u0.flac",
        "u3.flac",
        "u6.flac",
        "u9.flac",
    ]


def test_an_archive_and_its_folder_are_one_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELMILL_CACHE", str(tmp_path / "cache"))
    root = LIBRITTS.write(tmp_path / "there")
    with tarfile.open(tmp_path / "corpus.tar.gz", "w:gz") as tar:
        tar.add(root, ".")
    first = run(tmp_path, f"uses: libritts, root: {tmp_path}/corpus.tar.gz, sr: 24000")
    assert (first.utterances, first.quarantined) == (3, 0)
    assert run(tmp_path, f"uses: libritts, root: {root}, sr: 24000").tasks.run == 0
