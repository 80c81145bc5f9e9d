from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from melmill.flows.pipeline.stage_files import prepared
from melmill.stages.contract import FileStage, StageFile
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.cache import Settings, load_files
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.wavegrad.network import WaveGrad
from melmill.stages.vocode.files.companions import read_schedule
from melmill.stages.vocode.layers.schedule import DiffusionOptions
from melmill.stages.vocode.loaded import LoadedVocoder
from melmill.stages.vocode.network import Checkpoint
from melmill.stages.vocode.registry import family
from melmill.stages.vocode.stage import stage_of
from tests.stages.vocode.tiny import Golden, assert_padding_is_not_heard, randomised, relative, saved

SPEC = replace(preset("wavegrad"), n_mels=12, hop_length=12, n_fft=64, win_length=48)


def tiny(without: str = "", **config: Any) -> Checkpoint:
    state = randomised(WaveGrad((4, 6, 8), (10, 8, 6, 4), (3, 2, 2), SPEC))
    # a trained network hears noise of variance 1 in noise of variance 1: let this one not hear a hundred times as much
    state["last_conv.weight"] *= 0.02
    settings = {"hop_samples": 12, "factors": [3, 2, 2], "noise_schedule": [1e-4, 0.01, 0.3], **config}
    settings = {key: value for key, value in settings.items() if key != without}
    return Checkpoint(name="weights.pt", state=state, config=settings, layout="model")


@pytest.fixture
def answers(golden: Callable[[str], Golden]) -> Golden:
    return golden("wavegrad")


def official(golden: Golden) -> WaveGrad:
    model = family("wavegrad").build(golden.checkpoint("weights.pt"))
    assert isinstance(model, WaveGrad)
    return model


@pytest.mark.real
def test_one_step_is_the_official_one(answers: Golden) -> None:
    model, mel = official(answers), answers.tensor("mel")[None]
    for level, eps in zip(answers.tensor("noise_levels"), answers.tensor("eps_steps"), strict=True):
        heard = model.denoise(answers.tensor("x_t"), model.condition(mel), float(level))
        assert relative(heard[0], eps) < 1e-5


@pytest.mark.real
def test_all_steps_are_the_official_ones(answers: Golden) -> None:
    model = official(answers)
    model.betas = answers.json("case")["noise_schedule"]
    y = model(answers.tensor("mel")[None], noise=[answers.tensor(f"noise_{i}")[None] for i in range(6)])
    assert relative(y[0], answers.tensor("wav")) < 1e-5


@pytest.mark.real
def test_its_mel_is_the_preset(answers: Golden) -> None:
    assert official(answers).spec == preset("wavegrad")


def test_other_rates_and_widths() -> None:
    model = family("wavegrad").build(tiny())
    generator = torch.Generator().manual_seed(0)
    noise = model.noise(5, generator)
    assert [tuple(draw.shape) for draw in noise] == [(60,)] * 3
    y = model(torch.rand(1, 12, 5, generator=generator), noise=[draw[None] for draw in noise])
    assert y.shape == (1, model.n_samples(5)) == (1, 60)
    assert 0.01 < float(y.abs().max()) <= 1.0


def test_a_batch_equals_its_utterances() -> None:
    assert_padding_is_not_heard(family("wavegrad").build(tiny()), [7, 3, 5])


def test_a_schedule_for_inference_goes_before_that_of_training() -> None:
    model = family("wavegrad").build(tiny(inference_noise_schedule=[0.1, 0.2]))
    assert isinstance(model, WaveGrad)
    assert model.betas == (0.1, 0.2)


def test_a_schedule_of_a_file_goes_before_all_others() -> None:
    checkpoint = replace(tiny(inference_noise_schedule=[0.1, 0.2]), schedule=(0.3, 0.4))
    model = family("wavegrad").build(checkpoint)
    assert isinstance(model, WaveGrad)
    assert model.betas == (0.3, 0.4)


def test_a_schedule_beside_the_weights_gives_way_to_betas_alone(tmp_path: Path) -> None:
    checkpoint = tiny()
    (tmp_path / "weights.pt").write_bytes(saved({"model": checkpoint.state, "params": checkpoint.config}))
    np.save(tmp_path / "noise_schedule.npy", np.array([0.1, 0.2], dtype=np.float32))
    stage = prepared(stage_of("wavegrad")(checkpoint=f"{tmp_path}/weights.pt"))
    assert isinstance(stage, FileStage)
    found = stage.files()
    assert set(found) == {"weights", "schedule"}
    files = {role: StageFile(url=url, data=Path(url).read_bytes()) for role, (url,) in found.items()}
    for betas, expected in ((None, (0.1, 0.2)), ((0.5,), (0.5,))):
        voc = load_files(files, Settings(family="wavegrad", mel=None, options=DiffusionOptions(betas=betas)))
        assert isinstance(voc.model, WaveGrad)
        assert voc.model.betas == pytest.approx(expected)


@pytest.mark.parametrize(
    ("betas", "got"),
    [
        (np.array([[0.1, 0.2]]), r"got float64 of shape \(1, 2\)"),
        (np.array(["0.1"]), "got <U3 of shape"),
        (np.array([0.1, 1.5]), "got 1.5"),
        (np.zeros(0), "got no step"),
        (np.array([object()]), "holds pickled objects, which are never read"),
    ],
)
def test_a_schedule_that_is_none_is_refused(betas: np.ndarray[Any, Any], got: str) -> None:
    file = io.BytesIO()
    np.save(file, betas)
    with pytest.raises(VocoderError, match=rf"noise_schedule.npy: expected the noise variance of each step.*{got}"):
        read_schedule("noise_schedule.npy", file.getvalue())
    with pytest.raises(VocoderError, match=r"noise_schedule.npy: expected the noise variance of each step"):
        read_schedule("noise_schedule.npy", file.getvalue()[:20])


def test_the_published_schedule_where_there_is_none() -> None:
    model = family("wavegrad").build(tiny(without="noise_schedule"))
    assert isinstance(model, WaveGrad)
    assert (len(model.betas), model.betas[0], model.betas[-1]) == (1000, 1e-6, 0.01)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"factors": None, "hop_samples": 256}, "hop_samples=256.*add `factors`"),
        ({"factors": [3, 4]}, r"factors \[3, 4\] have the product 12.*3 factors"),
        ({"factors": [3, 2, 3]}, "product 18, expected hop_samples=12"),
        # more bands than the weights take
        ({"n_mels": 20}, r"'first_conv.weight' has shape \(10, 12, 3\).* \(10, 20, 3\)"),
    ],
)
def test_a_config_that_is_not_the_weights(config: dict[str, Any], message: str) -> None:
    with pytest.raises(VocoderError, match=message):
        family("wavegrad").build(tiny(**config))


def test_tensors_must_be_all_there_and_no_more() -> None:
    checkpoint = tiny()
    short = {key: value for key, value in checkpoint.state.items() if key != "upsample.1.block3.0.bias"}
    with pytest.raises(VocoderError, match=r"'upsample.1.block3.0.bias' .* is missing"):
        family("wavegrad").build(replace(checkpoint, state=short))
    with pytest.raises(VocoderError, match=r"unexpected tensor 'upsample.3.block1.bias'"):
        family("wavegrad").build(
            replace(checkpoint, state={**checkpoint.state, "upsample.3.block1.bias": torch.ones(4)})
        )


def test_the_mel_asked_for_must_fit() -> None:
    asked = replace(SPEC, fmax=8000.0)
    assert family("wavegrad").build(replace(tiny(), mel=asked)).spec == asked
    with pytest.raises(VocoderError, match=r"12 samples a frame.*hop_length=16"):
        family("wavegrad").build(replace(tiny(), mel=replace(SPEC, hop_length=16)))


def test_wrong_draws_of_a_thousand_steps_are_told_in_a_line() -> None:
    voc = LoadedVocoder(model=family("wavegrad").build(tiny(without="noise_schedule")), name="w", device="cpu")
    with pytest.raises(VocoderError) as caught:
        voc(np.zeros((12, 5), dtype=np.float32), noise=[np.zeros(60)] * 6)
    assert str(caught.value) == "w: noise must have the shapes [1000 x (60,)], got [6 x (60,)]"


def test_draws_must_be_one_a_step() -> None:
    model = family("wavegrad").build(tiny())
    assert model.takes(5, (torch.zeros(60),) * 3)
    assert not model.takes(5, (torch.zeros(60),) * 2)
    assert not model.takes(6, (torch.zeros(60),) * 3)
    with pytest.raises(VocoderError, match="2 draws of noise for a schedule of 3 steps"):
        model(torch.zeros(1, 12, 5), noise=[torch.zeros(1, 60)] * 2)
