"""A pipeline trains a published checkpoint further, on mels that were paired with recordings."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import melmill
from melmill.flows.exchange.export import export_training
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.stages.train.vocoder_trainer import VocoderTrainer
from melmill.storage.store import Store
from tests.flows.conftest import Project, voice

SR, STEPS = 22050, 10
PIPELINE = """\
name: test
store: {store}
shard_duration_s: 8
stages:
  speech: {{uses: audio_folder, root: {root}, sr: 22050}}
  predicted: {{uses: mel_folder, root: {root}, preset: hifigan, audio: speech, folders: []}}
  tuned:
    uses: train_vocoder
    from: predicted
    audio: speech
    init: CHECKPOINT
    steps: 10
    batch_size: 2
    segment_frames: 10
    learning_rate: 1.0e-2
    adversarial_from: 8
    discriminator_width: 2
    held_out: 0
    ema: 0.5
    save_every: 5
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""


@pytest.fixture(scope="module")
def checkpoint(real_data: Path) -> Path:
    """Return a HiFi-GAN as its own code wrote it, with its configuration beside it."""
    file = real_data / "golden" / "hifigan-v1" / "g_00000001"
    if not file.exists():
        pytest.skip(f"no official checkpoint at {file}")
    return file


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Project:
    """Return a project whose training went through."""
    project = Project(tmp_path_factory.mktemp("tuned"))
    project.root.mkdir(parents=True, exist_ok=True)
    for i in range(3):
        y = (voice(0.6, 120.0 + 30 * i, i) / 32768.0).astype(np.float32)
        soundfile.write(project.root / f"u{i}.wav", y, SR, subtype="PCM_16")
        M = melmill.mel(y, preset="hifigan")
        np.save(project.root / f"u{i}.npy", M + np.random.default_rng(i).normal(0, 0.02, M.shape).astype(np.float32))
    project.write(PIPELINE.replace("CHECKPOINT", str(checkpoint)))
    trained(project)
    return project


def trained(project: Project) -> None:
    assert run(make_plan(load(project.pipeline)), "serial").tasks.failed == 0


def file(project: Project, name: str) -> bytes:
    (path,) = project.store.glob(f"tuned/*/trained/{name}")
    return path.read_bytes()


def test_the_loss_falls(undisturbed: Project) -> None:
    rows = list(csv.DictReader(io.StringIO(file(undisturbed, "curves.csv").decode())))
    losses = [float(row["value"]) for row in rows if (row["series"], row["loss"]) == ("training", "spectral")]
    assert len(losses) == STEPS
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_an_interrupted_run_resumes_to_the_byte(
    undisturbed: Project, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    shutil.copytree(undisturbed.root, project.root, dirs_exist_ok=True)
    project.write(PIPELINE.replace("CHECKPOINT", str(checkpoint)))
    learn, steps = VocoderTrainer.learn, []

    def interrupted(self: VocoderTrainer, batch: Any) -> dict[str, float]:
        steps.append(self.step)
        if len(steps) == 7:  # steps 0 to 4 are saved, and 5 is lost
            raise KeyboardInterrupt
        return learn(self, batch)

    monkeypatch.setattr(VocoderTrainer, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(project)
    trained(project)
    assert steps == [*range(7), *range(5, STEPS)]
    for name in ("weights.pt", "config.json"):
        assert file(project, name) == file(undisturbed, name)


def test_the_export_loads_as_the_checkpoint_that_it_began_with(
    undisturbed: Project, checkpoint: Path, tmp_path: Path
) -> None:
    export_training(Store.open(str(undisturbed.store)), "tuned", str(tmp_path))
    old, new = (torch.load(path, weights_only=True)["generator"] for path in (checkpoint, tmp_path / "weights.pt"))
    assert {name: (t.shape, t.dtype) for name, t in new.items()} == {
        name: (t.shape, t.dtype) for name, t in old.items()
    }
    M = np.load(checkpoint.parent / "mel.npy")
    before = melmill.load_vocoder(checkpoint)(M)
    after = melmill.load_vocoder(tmp_path / "weights.pt", config=checkpoint.parent / "config.json")(M)
    assert after.shape == before.shape
    assert np.isfinite(after).all()
    assert np.linalg.norm(after - before) > 1e-3 * np.linalg.norm(before)
