"""The shipped pipeline to training sets, from a small corpus of LibriTTS's layout to files and to a stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from click.testing import CliRunner

import melmill
from melmill.flows.cli.group import cli
from tests.flows.conftest import ROOT, voice

PIPELINE = ROOT / "flows/tts_training_set.yaml"
SR, HOP = 24000, 256


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a corpus of three speakers with two utterances each, with texts."""
    root = tmp_path_factory.mktemp("tts") / "LibriTTS"
    for speaker in ("84", "174", "251"):
        folder = root / "dev-clean" / speaker / "1"
        folder.mkdir(parents=True)
        for number in range(2):
            name = f"{speaker}_1_000001_00000{number}"
            y = np.repeat(voice(0.5 + 0.1 * number, 110.0 + number, seed=int(speaker)), 3)
            soundfile.write(folder / f"{name}.wav", y[: SR // 2 + 900 * number], SR)
            (folder / f"{name}.normalized.txt").write_text(f"Words {number} of {speaker}.")
    return root


@pytest.mark.slow
def test_a_corpus_becomes_training_sets(corpus: Path, tmp_path: Path) -> None:
    store, changes = str(tmp_path / "store"), {"speech.root": str(corpus)}
    assert melmill.run(PIPELINE, set=changes, store=store, executor="serial").tasks.run == 3
    again = melmill.run(PIPELINE, set={**changes, "vocos.preset": "vocos_24khz"}, store=store, executor="serial")
    assert (again.tasks.run, again.tasks.reused) == (0, 3)

    for nodes, layout in (("speech,vocos", "hifigan"), ("speech,bigvgan", "parquet")):
        done = CliRunner().invoke(cli, ["export", store, nodes, str(tmp_path / layout), "--to", layout])
        assert done.exit_code == 0, done.output
    lines = (tmp_path / "hifigan" / "training.txt").read_text().splitlines()
    assert sorted(line.split("|")[1] for line in lines) == sorted(
        f"Words {n} of {s}." for s in (84, 174, 251) for n in (0, 1)
    )
    y, sr = soundfile.read(tmp_path / "hifigan" / "wavs" / "84_1_000001_000000.wav", dtype="int16")
    assert sr == SR
    np.testing.assert_array_equal(y, melmill.open(store)["speech"]["84_1_000001_000000"])
    (part,) = (tmp_path / "parquet" / "data").iterdir()
    assert pq.read_table(part, columns=["id"]).num_rows == 6

    stream = melmill.torch_stream(store, mel="vocos", also=["bigvgan"], labels=["text"], segment_frames=16)
    items = list(stream)
    assert {item["text"] for item in items} == {f"Words {n} of {s}." for s in (84, 174, 251) for n in (0, 1)}
    opened = melmill.open(store)
    for item in items:
        part_of = slice(int(item["start"]), int(item["start"]) + 16)
        np.testing.assert_array_equal(item["mel"], opened["vocos"][item["id"]][:, part_of].astype(np.float32))
        np.testing.assert_array_equal(item["bigvgan"], opened["bigvgan"][item["id"]][:, part_of].astype(np.float32))
        assert item["audio"].shape == (16 * HOP,)
