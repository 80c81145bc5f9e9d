"""Vocos against the official code, against its equations, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, gelu, layer_norm

from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.loaded import load
from tests.stages.vocode.tiny import (
    TOLERANCE,
    assert_batch_is_each_alone,
    checkpoint,
    mel,
    relative,
    tensors,
)

N_MELS, WIDTH, HIDDEN, N_BLOCKS, N_FFT, HOP = 6, 8, 12, 2, 32, 8


def config_of(padding: str, **head: Any) -> dict[str, Any]:
    features = {"sample_rate": 8000, "n_fft": N_FFT, "hop_length": HOP, "n_mels": N_MELS, "padding": padding}
    backbone = {"input_channels": N_MELS, "dim": WIDTH, "intermediate_dim": HIDDEN, "num_layers": N_BLOCKS}
    transform = {"dim": WIDTH, "n_fft": N_FFT, "hop_length": HOP, "padding": padding} | head
    return {
        "feature_extractor": {"class_path": "vocos.feature_extractors.MelSpectrogramFeatures", "init_args": features},
        "backbone": {"class_path": "vocos.models.VocosBackbone", "init_args": backbone},
        "head": {"class_path": "vocos.heads.ISTFTHead", "init_args": transform},
    }


def state_of(scaled: bool = True) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (WIDTH, N_MELS, 7), "embed.bias": (WIDTH,)}
    for name in ("norm", "final_layer_norm"):
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    for i in range(N_BLOCKS):
        block = {
            "dwconv.weight": (WIDTH, 1, 7),
            "dwconv.bias": (WIDTH,),
            "norm.weight": (WIDTH,),
            "norm.bias": (WIDTH,),
            "pwconv1.weight": (HIDDEN, WIDTH),
            "pwconv1.bias": (HIDDEN,),
            "pwconv2.weight": (WIDTH, HIDDEN),
            "pwconv2.bias": (WIDTH,),
        } | ({"gamma": (WIDTH,)} if scaled else {})
        shapes |= {f"convnext.{i}.{key}": shape for key, shape in block.items()}
    named = {f"backbone.{key}": shape for key, shape in shapes.items()}
    state = tensors(named | {"head.out.weight": (N_FFT + 2, WIDTH), "head.out.bias": (N_FFT + 2,)})
    return state | {
        "head.istft.window": torch.hann_window(N_FFT),
        "feature_extractor.mel_spec.spectrogram.window": torch.hann_window(N_FFT),
        "feature_extractor.mel_spec.mel_scale.fb": torch.ones(1 + N_FFT // 2, N_MELS),
    }


def spectrum(state: dict[str, Tensor], M: np.ndarray) -> Tensor:
    """Compute the complex spectrum of section 3 without any module."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    x = conv1d(torch.from_numpy(M)[None], state["backbone.embed.weight"], state["backbone.embed.bias"], padding=3)
    x = norm("backbone.norm", x.mT).mT
    for i in range(N_BLOCKS):
        name = f"backbone.convnext.{i}"
        weight, bias = state[f"{name}.dwconv.weight"], state[f"{name}.dwconv.bias"]
        y = norm(f"{name}.norm", conv1d(x, weight, bias, padding=3, groups=WIDTH).mT)
        y = linear(f"{name}.pwconv2", gelu(linear(f"{name}.pwconv1", y)))
        x = x + (y * state.get(f"{name}.gamma", torch.tensor(1.0))).mT
    out = linear("head.out", norm("backbone.final_layer_norm", x.mT)).mT[0]
    magnitude, phase = out[: out.shape[0] // 2], out[out.shape[0] // 2 :]
    return torch.clip(torch.exp(magnitude), max=100.0) * torch.exp(1j * phase)


@pytest.mark.parametrize("scaled", [True, False])
def test_equals_its_equations(scaled: bool) -> None:
    state, M = state_of(scaled), mel(N_MELS, 12)
    voc = load(checkpoint(state, config=config_of("center")))
    y = torch.istft(spectrum(state, M), N_FFT, HOP, window=torch.hann_window(N_FFT)).numpy()
    assert relative(voc(M), y) < TOLERANCE
    assert voc.spec.center is True


def test_same_padding_gives_a_hop_a_frame() -> None:
    """Its inner samples are those of centred padding, shifted: only the ends differ."""
    state, M = state_of(), mel(N_MELS, 12)
    voc = load(checkpoint(state, config=config_of("same")))
    y, centred = voc(M), torch.istft(spectrum(state, M), N_FFT, HOP, window=torch.hann_window(N_FFT)).numpy()
    shift = N_FFT // 2 - (N_FFT - HOP) // 2
    assert y.shape == (12 * HOP,)
    assert relative(y[shift : shift + centred.size], centred) < TOLERANCE
    assert voc.spec.center == "same"


@pytest.mark.parametrize("padding", ["center", "same"])
def test_a_batch_is_each_alone(padding: str) -> None:
    assert_batch_is_each_alone(load(checkpoint(state_of(), config=config_of(padding))))


def test_magnitudes_stop_at_a_hundred() -> None:
    state = state_of()
    state["head.out.weight"].zero_()
    state["head.out.bias"] = torch.cat([torch.full((17,), 300.0), torch.zeros(17)])
    y = load(checkpoint(state, config=config_of("center")))(mel(N_MELS, 12))
    # A flat spectrum of 100 without phase is an impulse at the window's end, where the window is zero.
    expected = torch.istft(torch.full((17, 12), 100.0 + 0j), N_FFT, HOP, window=torch.hann_window(N_FFT)).numpy()
    np.testing.assert_allclose(y, expected, atol=1e-4)
    assert np.isfinite(y).all()


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        ({}, {}, r"g_0: its configuration must have feature_extractor, got none: put Vocos's config.yaml beside it"),
        (
            {},
            config_of("center") | {"feature_extractor": {"class_path": "vocos.feature_extractors.EncodecFeatures"}},
            r"feature_extractor of its configuration is a 'vocos.feature_extractors.EncodecFeatures'",
        ),
        (
            {},
            config_of("center") | {"head": {"class_path": "os.system", "init_args": {}}},
            r"head of its configuration is a 'os.system': only ISTFTHead",
        ),
        ({}, config_of("center") | {"head": {"init_args": {}}}, r"head of its configuration must say hop_length"),
        ({}, config_of("valid"), r"padding 'same' or 'center', got .*'valid'"),
        ({}, config_of("center", n_fft=64), r"'head.out.weight' has shape \(34, 8\), .* implies \(66, 8\)"),
        ({}, config_of("center", hop_length=16), r"its layers make 16 samples a frame, but its mel has hop_length=8"),
        ({"backbone.norm.bias": None}, config_of("center"), r"'backbone.norm.bias' of shape \(8\) is missing"),
        ({"head.extra": torch.ones(2)}, config_of("center"), r"unexpected tensor 'head.extra' of shape \(2\)"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor | None], config: dict[str, Any], message: str) -> None:
    state = {key: value for key, value in {**state_of(), **change}.items() if value is not None}
    with pytest.raises(VocoderError, match=message):
        load(checkpoint(state, config=config), "vocos")
