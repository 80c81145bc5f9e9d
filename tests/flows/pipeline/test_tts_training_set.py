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
            silence = np.zeros(SR // 4, y.dtype)
            soundfile.write(folder / f"{name}.wav", np.concatenate([silence, y[: SR // 2 + 900 * number], silence]), SR)
            (folder / f"{name}.normalized.txt").write_text(f"Words {number} of {speaker}.")
    return root


@pytest.mark.slow
def test_a_corpus_becomes_training_sets(corpus: Path, tmp_path: Path) -> None:
    store, changes = str(tmp_path / "store"), {"speech.root": str(corpus)}
    assert melmill.run(PIPELINE, set=changes, store=store, executor="serial").tasks.run == 11
    again = melmill.run(PIPELINE, set={**changes, "vocos.preset": "vocos_24khz"}, store=store, executor="serial")
    assert (again.tasks.run, again.tasks.reused) == (0, 11)
    opened = melmill.open(store)
    for node in ("trimmed", "chosen", "levelled", "vocos", "f0"):
        account = opened.account(node)
        assert account.by_reason()["n_samples"].sum() == sum(len(opened["speech"][name]) for name in opened["speech"])
    kept = {name: len(opened["levelled"][name]) for name in opened["levelled"]}
    assert len(kept) == 6
    for name, length in kept.items():
        assert length < len(opened["speech"][name])  # what was planted around it
        frames = opened["vocos"][name].shape[1]
        assert opened["f0"][name].shape == (2, frames)
        assert opened["energy"][name].shape == (1, frames)
    assert {"stats[vocos]", "stats[f0]", "stats[energy]"} <= set(opened.nodes)

    exports = {"hifigan": "levelled,vocos", "parquet": "levelled,bigvgan", "webdataset": "levelled,vocos,f0,energy"}
    for layout, nodes in exports.items():
        done = CliRunner().invoke(cli, ["export", store, nodes, str(tmp_path / layout), "--to", layout])
        assert done.exit_code == 0, done.output
    lines = (tmp_path / "hifigan" / "training.txt").read_text().splitlines()
    assert sorted(line.split("|")[1] for line in lines) == sorted(
        f"Words {n} of {s}." for s in (84, 174, 251) for n in (0, 1)
    )
    y, sr = soundfile.read(tmp_path / "hifigan" / "wavs" / "84_1_000001_000000.wav", dtype="int16")
    assert sr == SR
    np.testing.assert_array_equal(y, opened["levelled"]["84_1_000001_000000"])
    (part,) = (tmp_path / "parquet" / "data").iterdir()
    assert pq.read_table(part, columns=["id"]).num_rows == 6

    stream = melmill.torch_stream(
        store, mel="vocos", audio="levelled", also=["bigvgan", "f0"], labels=["text"], segment_frames=16
    )
    items = list(stream)
    assert {item["text"] for item in items} == {f"Words {n} of {s}." for s in (84, 174, 251) for n in (0, 1)}
    for item in items:
        part_of = slice(int(item["start"]), int(item["start"]) + 16)
        for name, node in (("mel", "vocos"), ("bigvgan", "bigvgan"), ("f0", "f0")):
            expected = opened[node][item["id"]][:, part_of].astype(np.float32)
            np.testing.assert_array_equal(item[name], expected)
        assert item["audio"].shape == (16 * HOP,)

    # A rule that changes makes what follows it anew, and nothing before.
    rules = [{"measure": "duration_s", "at_least": 0.62, "at_most": 20}]
    stricter = melmill.run(PIPELINE, set={**changes, "chosen.rules": rules}, store=store, executor="serial")
    assert (stricter.tasks.run, stricter.tasks.reused) == (9, 2)
    assert len(melmill.open(store)["levelled"]) == 3
