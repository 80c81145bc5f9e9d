"""Published checkpoints are trained further, and written back in their own layout."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import melmill
from melmill.stages.contract import Mel, Product, StageFile, TrainedVocoder, Waveform
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train.recipe import Recipe
from melmill.stages.train.stage import recipe_of
from melmill.stages.train.vocoder_stage import TrainVocoder
from melmill.stages.train.vocoder_trainer import VocoderTrainer
from melmill.stages.vocode.files.checkpoint import containers, read, read_files
from melmill.stages.vocode.files.rewriting import rewritten
from melmill.stages.vocode.loaded import load
from tests.stages.train.memory import Memory, Place
from tests.stages.vocode.tiny import TOLERANCE, relative

CHECKPOINTS = [
    ("hifigan-v1", "g_00000001", "config.json"),
    ("hifigan-v1", "g_00000001.legacy", "config.json"),
    ("hifigan-v3", "g_00000001.no_weight_norm", "config.json"),
    ("bigvgan-v1", "g_05000000", "config.json"),
    ("bigvgan-v2", "bigvgan_generator.pt", "config.json"),
    ("vocos-mel24k", "pytorch_model.bin", "config.yaml"),
    ("univnet-c32-b", "univ_c4_0001.pt", "default_c32.yaml"),
]
IDS = [f"{folder}, {file}" for folder, file, _ in CHECKPOINTS]


def files_of(folder: Path, file: str, config: str) -> dict[str, StageFile]:
    return {
        role: StageFile(url=str(folder / name), data=(folder / name).read_bytes())
        for role, name in {"weights": file, "config": config}.items()
    }


def tensors(data: bytes) -> Mapping[str, Any]:
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return containers(content)[1]


def stage(files: dict[str, StageFile], **fields: Any) -> TrainVocoder:
    usual: dict[str, Any] = {
        "steps": 4,
        "batch_size": 2,
        "segment_frames": 10,
        "adversarial_from": 2,
        "discriminator_width": 2,
        "held_out": 1,
        "save_every": 2,
        "ema": 0.5,
        "learning_rate": 2e-3,
    }
    made = TrainVocoder(**{**usual, "init": files["weights"].url, **fields})
    return made.prepared(files, "0" * 64).opened(lambda: files)


@pytest.fixture
def golden(real_data: Path) -> Path:
    """Return the folder of official answers."""
    folder = real_data / "golden"
    if not (folder / "hifigan-v1").is_dir():
        pytest.skip(f"no official checkpoints at {folder}")
    return folder


@pytest.fixture(scope="module")
def long_voice() -> NDArray[np.float32]:
    """Return 0.6 s of a voice-like signal at 24 kHz; `Memory` has pieces of twice that at some speeds."""
    t = np.arange(14400) / 24000
    y = sum(np.sin(2 * np.pi * 130 * k * t + k) / k for k in range(1, 30)) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t))
    return np.asarray(0.05 * y + 0.001 * np.random.default_rng(0).normal(size=t.size), dtype=np.float32)


def trained(made: TrainVocoder, memory: Memory, place: Place) -> dict[str, bytes]:
    spec = memory.spec
    return dict(made.train(memory, place, {"from": Mel(spec=spec), "audio": Waveform(sr=spec.sr)}))


def fine_tuner(
    files: dict[str, StageFile],
    memory: Memory,
    *,
    rate: float,
    frozen: tuple[str, ...] = (),
    adversarial_from: int | None = None,
) -> VocoderTrainer:
    made = stage(files, learning_rate=rate, adversarial_from=adversarial_from, steps=100, frozen=frozen)
    return VocoderTrainer(recipe_of(made, Recipe), memory.spec, files)


def spec_of(files: dict[str, StageFile]) -> MelSpec:
    return load(read_files(files)).spec


@pytest.mark.parametrize(("folder", "file", "config"), CHECKPOINTS, ids=IDS)
def test_a_checkpoint_written_back_is_the_same(folder: str, file: str, config: str, golden: Path) -> None:
    files = files_of(golden / folder, file, config)
    before = load(read_files(files))
    data = rewritten(file, files["weights"].data, before.model.state_dict())
    old, new = tensors(files["weights"].data), tensors(data)
    assert list(old) == list(new)
    for name, tensor in old.items():
        if isinstance(tensor, torch.Tensor):
            assert (new[name].shape, new[name].dtype) == (tensor.shape, tensor.dtype)
    again = load(read_files({**files, "weights": StageFile(url=file, data=data)}))
    M = np.load(golden / folder / "mel.npy")
    assert relative(again(M, seed=1), before(M, seed=1)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "file", "config"), [CHECKPOINTS[0], *CHECKPOINTS[4:]], ids=[IDS[0], *IDS[4:]])
def test_a_checkpoint_is_trained_and_loads_in_its_layout(
    folder: str, file: str, config: str, golden: Path, long_voice: NDArray[np.float32], tmp_path: Path
) -> None:
    files = files_of(golden / folder, file, config)
    memory = Memory(long_voice, spec_of(files))
    made = trained(stage(files), memory, Place())
    assert tensors(made["weights.pt"]).keys() == tensors(files["weights"].data).keys()
    weights, settings = tmp_path / file, tmp_path / config
    weights.write_bytes(made["weights.pt"])
    settings.write_bytes(files["config"].data)
    voc = melmill.load_vocoder(weights, config=settings)
    M, _ = memory.whole("u0")
    y = voc(M)
    assert np.isfinite(y).all()
    assert relative(y, load(read_files(files))(M)) > 1e-3  # it has learnt something


def test_it_resumes_to_the_byte(golden: Path, long_voice: NDArray[np.float32]) -> None:
    files = files_of(golden / "hifigan-v1", "g_00000001", "config.json")
    memory = Memory(long_voice, spec_of(files))

    def learnt(n_steps: int, state: bytes | None = None) -> VocoderTrainer:
        trainer = fine_tuner(files, memory, rate=1e-3, adversarial_from=2)
        if state is not None:
            trainer.resume(state)
        batches = trainer.batches(memory, list(memory.waves))
        for _ in range(n_steps):
            trainer.learn(next(batches))
        return trainer

    def weights(trainer: VocoderTrainer) -> bytes:
        return rewritten("g", files["weights"].data, trainer.model.state_dict())

    assert weights(learnt(2, learnt(2).state())) == weights(learnt(4))


def test_the_loss_falls(golden: Path, long_voice: NDArray[np.float32]) -> None:
    files = files_of(golden / "hifigan-v1", "g_00000001", "config.json")
    memory = Memory(long_voice, spec_of(files))
    trainer = fine_tuner(files, memory, rate=5e-3)
    batches = trainer.batches(memory, list(memory.waves))
    losses = [trainer.learn(next(batches))["spectral"] for _ in range(24)]
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


def test_frozen_parts_stay_as_they_are(golden: Path, long_voice: NDArray[np.float32]) -> None:
    files = files_of(golden / "hifigan-v1", "g_00000001", "config.json")
    memory = Memory(long_voice, spec_of(files))
    trainer = fine_tuner(files, memory, rate=1e-2, frozen=("ups.*", "conv_pre.*"))
    batches = trainer.batches(memory, list(memory.waves))
    for _ in range(2):
        trainer.learn(next(batches))
    before = read("g", files["weights"].data).state
    after = trainer.generator.state_dict()
    for name, tensor in before.items():
        changed = float((after[name] - tensor).abs().max()) > 1e-7
        assert changed != name.startswith(("ups.", "conv_pre.")), name


def test_what_can_not_be_fine_tuned_is_refused(golden: Path) -> None:
    folder = golden
    files = files_of(folder / "hifigan-v1", "g_00000001", "config.json")
    silent = Memory(np.full(14400, 0.01, np.float32), spec_of(files))
    with pytest.raises(melmill.ParameterError, match=r"'nothing\.\*' matches no tensor"):
        fine_tuner(files, silent, rate=1e-3, frozen=("nothing.*",))
    with pytest.raises(melmill.ParameterError, match="must leave a tensor to train"):
        fine_tuner(files, silent, rate=1e-3, frozen=("*",))
    with pytest.raises(melmill.ParameterError, match="give init too"):
        TrainVocoder(frozen=("ups.*",))
    other = replace(spec_of(files), fmax=7600.0)
    inputs: dict[str, list[Product]] = {"from": [Mel(spec=other)], "audio": [Waveform(sr=other.sr)]}
    with pytest.raises(melmill.ContractError, match="was trained with another mel: fmax is 7600"):
        stage(files).produces(inputs)
    framed = replace(spec_of(files), center=True)
    product = stage(files).produces({"from": [Mel(spec=framed)], "audio": [Waveform(sr=framed.sr)]})
    assert isinstance(product, TrainedVocoder)
    assert product.family == "hifigan"
    melgan = files_of(folder / "melgan-descript", "best_netG.pt", "args.yml")
    with pytest.raises(melmill.ParameterError, match="which is a melgan"):
        stage(melgan)
    with pytest.raises(melmill.VocoderError, match="does not exist"):
        TrainVocoder(init="nowhere/g_1").prepared({}, "")


def test_the_key_of_a_training_without_a_checkpoint_is_as_before() -> None:
    assert not {"init", "init_config", "frozen"} & TrainVocoder().identity().keys()
