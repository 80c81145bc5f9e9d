from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.diffwave.network import DiffWave, Sizes
from melmill.stages.vocode.layers.basic import Conv1d
from melmill.stages.vocode.network import Checkpoint
from melmill.stages.vocode.registry import family
from tests.stages.vocode.tiny import Golden, assert_padding_is_not_heard, randomised, relative

SIZES = Sizes(channels=6, n_features=16, embedding=10, n_layers=5, cycle=2, kernels=((3, 8), (5, 12)))
SPEC = replace(preset("diffwave"), n_mels=12, hop_length=24, n_fft=128, win_length=96)
TRAINING = [0.01, 0.02, 0.05, 0.1, 0.2]


def tiny(**config: Any) -> Checkpoint:
    settings = {"noise_schedule": TRAINING, "dilation_cycle_length": 2, **config}
    state = randomised(DiffWave(SIZES, TRAINING, SPEC))
    return Checkpoint(name="weights.pt", state=state, config=settings, layout="model")


@pytest.fixture
def answers(golden: Callable[[str], Golden]) -> Golden:
    return golden("diffwave")


def official(golden: Golden) -> DiffWave:
    model = family("diffwave").build(golden.checkpoint("weights.pt"))
    assert isinstance(model, DiffWave)
    return model


@pytest.mark.real
def test_the_upsampler_is_the_official_one(answers: Golden) -> None:
    upsampled = official(answers).condition(answers.tensor("mel")[None])
    assert relative(upsampled[0, :8], answers.tensor("upsampled_cond")) < 1e-5


@pytest.mark.real
@pytest.mark.parametrize("kind", ["int", "float"])
def test_one_step_is_the_official_one(answers: Golden, kind: str) -> None:
    model = official(answers)
    condition = model.condition(answers.tensor("mel")[None])
    steps = answers.json("case")[f"{kind}_steps"]
    for step, eps in zip(steps, answers.tensor(f"eps_{kind}_steps"), strict=True):
        assert relative(model.denoise(answers.tensor("x_t"), condition, float(step))[0], eps) < 1e-5


@pytest.mark.real
def test_all_steps_are_the_official_ones(answers: Golden) -> None:
    model = official(answers)
    assert model.times(model.betas) == pytest.approx(answers.json("case")["fast_sampling_T"], abs=1e-9)
    y = model(answers.tensor("mel")[None], noise=[answers.tensor(f"noise_{i}")[None] for i in range(6)])
    assert relative(y[0], answers.tensor("wav")) < 1e-5


@pytest.mark.real
def test_its_mel_is_the_preset(answers: Golden) -> None:
    assert official(answers).spec == preset("diffwave")


def test_other_kernels_widths_and_cycles() -> None:
    model = family("diffwave").build(tiny())
    generator = torch.Generator().manual_seed(0)
    noise = model.noise(5, generator)
    y = model(torch.rand(1, 12, 5, generator=generator), noise=[draw[None] for draw in noise])
    assert y.shape == (1, model.n_samples(5)) == (1, 120)
    assert 0.01 < float(y.abs().max()) <= 1.0


def test_dilations_start_again_after_a_cycle() -> None:
    model = family("diffwave").build(tiny())
    assert isinstance(model, DiffWave)
    dilated = [layer for layer in model.modules() if isinstance(layer, Conv1d) and layer.kernel_size == (3,)]
    assert [layer.dilation for layer in dilated] == [(1,), (2,), (1,), (2,), (1,)]


def test_a_batch_equals_its_utterances() -> None:
    assert_padding_is_not_heard(family("diffwave").build(tiny()), [7, 3, 5])


def test_the_fast_schedule_is_used_where_there_is_one() -> None:
    fast = family("diffwave").build(tiny(inference_noise_schedule=[0.01, 0.1]))
    full = family("diffwave").build(tiny())
    assert isinstance(fast, DiffWave)
    assert isinstance(full, DiffWave)
    assert (fast.betas, full.betas) == ((0.01, 0.1), tuple(TRAINING))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hop_samples": 256}, "make 24 samples of a frame, but the config says hop_samples=256"),
        ({"residual_channels": 8}, r"'input_projection.weight' has shape \(6, 1, 1\).* \(8, 1, 1\)"),
        ({"residual_layers": 6}, r"'residual_layers.5.dilated_conv.weight' .*12, 6, 3.* is missing"),
        ({"residual_layers": 4}, "unexpected tensor 'residual_layers.4.dilated_conv.weight'"),
        ({"n_mels": 20}, r"'residual_layers.0.conditioner_projection.weight' has shape \(12, 12, 1\)"),
        ({"inference_noise_schedule": [1e-5]}, "step 0 of the noise schedule keeps"),
    ],
)
def test_a_config_that_is_not_the_weights(config: dict[str, Any], message: str) -> None:
    with pytest.raises(VocoderError, match=message):
        family("diffwave").build(tiny(**config))


def test_an_unconditional_model_is_refused() -> None:
    state = {key: value for key, value in tiny().state.items() if "spectrogram" not in key and "conditioner" not in key}
    with pytest.raises(VocoderError, match="unconditional DiffWave"):
        family("diffwave").build(Checkpoint(name="weights.pt", state=state))


def test_an_upsampler_of_odd_stride_is_refused() -> None:
    state = {**tiny().state, "spectrogram_upsampler.conv1.weight": torch.ones(1, 1, 3, 10)}
    with pytest.raises(VocoderError, match=r"'spectrogram_upsampler.conv1.weight' spans 10 frames"):
        family("diffwave").build(Checkpoint(name="weights.pt", state=state))
