"""BigVGAN against the official code, its parts against their definitions, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.bigvgan.network import BigVgan
from melmill.stages.vocode.families.bigvgan.periodic import PeriodicActivation, Snake
from melmill.stages.vocode.layers.basic import Ends
from melmill.stages.vocode.loaded import load
from tests.stages.vocode.families.test_hifigan import CONFIG as HIFIGAN
from tests.stages.vocode.tiny import (
    TOLERANCE,
    assert_batch_is_each_alone,
    checkpoint,
    mel,
    relative,
    tensors,
    with_norms,
)

CONFIG = HIFIGAN | {"activation": "snakebeta", "snake_logscale": True}
PLAIN_SNAKE = CONFIG | {"activation": "snake", "snake_logscale": False}
VERSION_2 = CONFIG | {"use_tanh_at_final": False, "use_bias_at_final": False}
SINGLE = VERSION_2 | {"resblock": "2", "resblock_dilation_sizes": [[1, 2], [2, 6]]}
VARIANTS = [
    pytest.param(CONFIG, id="version 1"),
    pytest.param(PLAIN_SNAKE, id="snake, linear"),
    pytest.param(VERSION_2, id="version 2"),
    pytest.param(SINGLE, id="single blocks"),
]


def lowpass() -> Tensor:
    """Return a half-band filter of 12 taps whose sum is 1: a Hann-windowed sinc."""
    t = torch.arange(12) - 5.5
    taps = torch.sinc(t / 2) * torch.hann_window(14, periodic=False)[1:-1]
    return (taps / taps.sum())[None, None]


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the official names and shapes of the tensors of a configuration."""
    found: dict[str, tuple[int, ...]] = {}

    def activation(name: str, width: int) -> None:
        found[f"{name}.act.alpha"] = (width,)
        if config["activation"] == "snakebeta":
            found[f"{name}.act.beta"] = (width,)
        found[f"{name}.upsample.filter"] = found[f"{name}.downsample.lowpass.filter"] = (1, 1, 12)

    def conv(name: str, *shape: int, n_out: int) -> None:
        found.update({f"{name}.weight": shape, f"{name}.bias": (n_out,)})

    width, block = config["upsample_initial_channel"], 0
    conv("conv_pre", width, config["num_mels"], 7, n_out=width)
    for i, kernel in enumerate(config["upsample_kernel_sizes"]):
        conv(f"ups.{i}.0", width, width // 2, kernel, n_out=width // 2)
        width //= 2
        for size, dilations in zip(config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True):
            parts = ("convs1", "convs2") if config["resblock"] == "1" else ("convs",)
            for k in range(len(dilations)):
                for part in parts:
                    conv(f"resblocks.{block}.{part}.{k}", width, width, size, n_out=width)
            for k in range(len(parts) * len(dilations)):
                activation(f"resblocks.{block}.activations.{k}", width)
            block += 1
    activation("activation_post", width)
    conv("conv_post", 1, width, 7, n_out=1)
    if not config.get("use_bias_at_final", True):
        del found["conv_post.bias"]
    return found


def state_of(config: dict[str, Any]) -> dict[str, Tensor]:
    state = {key: lowpass() if key.endswith("filter") else value for key, value in tensors(shapes(config)).items()}
    for key, value in state.items():
        if ".act." in key:
            value.mul_(0.2).add_(0.0 if config["snake_logscale"] else 1.0)
    state["conv_post.weight"] *= 0.02
    return state


@pytest.mark.parametrize("config", VARIANTS)
def test_a_batch_is_each_alone(config: dict[str, Any]) -> None:
    assert_batch_is_each_alone(load(checkpoint({"generator": state_of(config)}, config=config)))


@pytest.mark.parametrize("config", VARIANTS)
def test_weight_norm_changes_nothing(config: dict[str, Any]) -> None:
    state, M = state_of(config), mel(6, 7)
    filters = {key: value for key, value in state.items() if key.endswith("filter")}
    normed = with_norms({key: value for key, value in state.items() if key not in filters}) | filters
    y = load(checkpoint({"generator": state}, config=config))(M)
    assert y.shape == (7 * 8,)
    assert relative(load(checkpoint({"generator": normed}, config=config))(M), y) < TOLERANCE


@pytest.mark.parametrize(
    ("kind", "log_scale", "frequency", "magnitude"),
    [
        # beta is the inverse of the magnitude; in snake alpha is both.
        ("snakebeta", False, 2.0, 1 / 0.5),
        ("snakebeta", True, np.exp(2.0), 1 / np.exp(0.5)),
        ("snake", False, 2.0, 1 / 2.0),
        ("snake", True, np.exp(2.0), 1 / np.exp(2.0)),
    ],
)
def test_snake_is_its_equation(kind: str, log_scale: bool, frequency: float, magnitude: float) -> None:
    """On a constant the filters, of sum 1, change nothing, so the activation is x + sin^2(a x) / b alone."""
    activation = PeriodicActivation(1, Snake(kind=kind, log_scale=log_scale))
    state = {"act.alpha": torch.tensor([2.0]), "upsample.filter": lowpass(), "downsample.lowpass.filter": lowpass()}
    beta = {"act.beta": torch.tensor([0.5])} if kind == "snakebeta" else {}
    activation.load_state_dict(state | beta)
    x = torch.full((1, 1, 9), 0.3)
    with torch.inference_mode():
        y = activation(x, Ends(None, 9))
    # An even and an odd tap set weigh the two phases: equal only to the filter's ripple.
    expected = 0.3 + magnitude * np.sin(frequency * 0.3) ** 2
    np.testing.assert_allclose(y.numpy(), expected, rtol=2e-2)


def test_the_doubled_rate_keeps_harmonics_from_aliasing() -> None:
    """A tone at 0.34 of the rate: its square's harmonic folds down to 0.32, twelve taps take 14 dB off."""
    n, tone, alias = 400, 0.34, 0.32
    activation = PeriodicActivation(1, Snake(kind="snake", log_scale=False))
    state = {"act.alpha": torch.tensor([0.1]), "upsample.filter": lowpass(), "downsample.lowpass.filter": lowpass()}
    activation.load_state_dict(state)
    x = torch.cos(2 * torch.pi * tone * torch.arange(n))[None, None]
    with torch.inference_mode():
        y = activation(x, Ends(None, n))[0, 0]
    naive = (x + 10 * torch.sin(0.1 * x).square())[0, 0]
    level = [abs(np.fft.rfft(signal.numpy() * np.hanning(n))[round(alias * n)]) for signal in (y, naive)]
    assert level[0] < 0.2 * level[1]


def test_the_last_layer_is_clamped_or_squashed() -> None:
    quiet, M = state_of(VERSION_2), mel(6, 30)
    y = load(checkpoint({"generator": quiet}, config=VERSION_2))(M)
    gain = 3.0 / np.abs(y).max()
    assert gain > 3.0
    loud = {**quiet, "conv_post.weight": float(gain) * quiet["conv_post.weight"]}
    clamped = load(checkpoint({"generator": loud}, config=VERSION_2))(M)
    np.testing.assert_allclose(clamped, np.clip(gain * y, -1.0, 1.0), atol=1e-5)
    squashed = load(checkpoint({"generator": loud}, config=VERSION_2 | {"use_tanh_at_final": True}))(M)
    np.testing.assert_allclose(squashed, np.tanh(gain * y), atol=1e-5)


STATE = state_of(CONFIG)


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        ({"activation_post.act.beta": None}, {}, r"'activation_post.act.beta' of shape \(2\) is missing"),
        ({"mpd.weight": torch.ones(3)}, {}, r"unexpected tensor 'mpd.weight' of shape \(3\)"),
        ({}, {"activation": "snake"}, r"unexpected tensor 'resblocks.0.activations.0.act.beta'"),
        ({}, {"activation": "relu"}, r"activation of its configuration must be 'snake' or 'snakebeta', got 'relu'"),
        ({}, {"use_bias_at_final": False}, r"unexpected tensor 'conv_post.bias' of shape \(1\)"),
        ({}, {"upsample_initial_channel": 16}, r"'conv_pre.weight' has shape \(8, 6, 7\), .* implies \(16, 6, 7\)"),
        ({}, {"hop_size": 16}, r"its layers make 8 samples a frame, but its mel has hop_length=16"),
        ({}, {"fmax": 9000}, r"which makes no mel: fmax must not exceed sr / 2 = 4000 Hz"),
        ({}, {"sampling_rate": "8 kHz"}, r"'sr': '8 kHz'.* which makes no mel"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor | None], config: dict[str, Any], message: str) -> None:
    state = {key: value for key, value in {**STATE, **change}.items() if value is not None}
    with pytest.raises(VocoderError, match=message):
        load(checkpoint({"generator": state}, config=CONFIG | config), "bigvgan")


def test_needs_its_configuration() -> None:
    with pytest.raises(VocoderError, match=r"g_0: its configuration must say snake_logscale"):
        load(checkpoint({"generator": STATE}))


def test_the_activation_is_told_by_the_weights_where_the_configuration_is_silent() -> None:
    config = {key: value for key, value in CONFIG.items() if key != "activation"}
    model = load(checkpoint({"generator": STATE}, config=config)).model
    assert isinstance(model, BigVgan)
    np.testing.assert_array_equal(
        load(checkpoint({"generator": STATE}, config=CONFIG))(mel(6, 3)),
        load(checkpoint({"generator": STATE}, config=config))(mel(6, 3)),
    )
