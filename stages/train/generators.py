"""Fresh generators to train, and the configurations that their weights are published with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train.recipe import Generator, Size
from melmill.stages.vocode.families.hifigan.layouts import Layout
from melmill.stages.vocode.families.hifigan.network import HifiGan
from melmill.stages.vocode.families.hifigan.sizes import Sizes
from melmill.stages.vocode.families.unfolded.network import Unfolded, UnfoldedSizes
from melmill.stages.vocode.families.vocos.network import Vocos, VocosSizes
from melmill.stages.vocode.files.companions import OWN
from melmill.stages.vocode.network import Vocoder

_VOCOS = {"small": (256, 768, 6), "base": (512, 1536, 8)}
_UNFOLDED = {
    "small": UnfoldedSizes(width=160, hidden=320, n_blocks=3, n_steps=3),
    "base": UnfoldedSizes(width=384, hidden=1152, n_blocks=4, n_steps=3),
}
_HIFIGAN_CHANNELS = {"small": 128, "base": 512}
_BLOCK_KERNELS = (3, 7, 11)
_DILATIONS = ((1, 3, 5),) * 3
_MOST_RATE = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Fresh:
    """A generator that has learnt nothing yet.

    Parameters
    ----------
    model : Vocoder
        In training mode.
    config : mapping
        What is published beside its weights, as plain values.
    learning_rate : float
        To start from.
    """

    model: Vocoder
    config: Mapping[str, Any]
    learning_rate: float


def fresh(name: Generator, size: Size, spec: MelSpec, seed: int) -> Fresh:
    """Make a generator for mels of `spec` with random weights.

    Parameters
    ----------
    name : {"vocos", "hifigan", "unfolded"}
    size : {"small", "base"}
        ``base`` is the published one.
    spec : MelSpec
    seed : int
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = _MAKERS[name](size, spec)
    config = {**made.config, OWN: {"mel": spec.as_dict()}}
    made.model.train().requires_grad_(True)
    return Fresh(model=made.model, config=config, learning_rate=made.learning_rate)


def _vocos(size: Size, spec: MelSpec) -> Fresh:
    width, hidden, n_blocks = _VOCOS[size]
    sizes = VocosSizes(
        n_mels=spec.n_mels,
        width=width,
        hidden=hidden,
        n_blocks=n_blocks,
        scaled=True,
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        center=spec.center is True,
    )
    model = Vocos(sizes, spec)
    _start(model, lambda weight: nn.init.trunc_normal_(weight, std=0.02))
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 1.0 / n_blocks)
    model.head.istft.window.copy_(torch.hann_window(spec.n_fft))
    padding = "center" if sizes.center else "same"
    config = {
        "feature_extractor": {
            "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
            "init_args": {
                "sample_rate": spec.sr,
                "n_fft": spec.n_fft,
                "hop_length": spec.hop_length,
                "n_mels": spec.n_mels,
                "padding": padding,
            },
        },
        "backbone": {
            "class_path": "vocos.models.VocosBackbone",
            "init_args": {
                "input_channels": spec.n_mels,
                "dim": width,
                "intermediate_dim": hidden,
                "num_layers": n_blocks,
            },
        },
        "head": {
            "class_path": "vocos.heads.ISTFTHead",
            "init_args": {"dim": width, "n_fft": spec.n_fft, "hop_length": spec.hop_length, "padding": padding},
        },
    }
    return Fresh(model=model, config=config, learning_rate=5e-4)


def _hifigan(size: Size, spec: MelSpec) -> Fresh:
    rates = factors(spec.hop_length)
    sizes = Sizes(
        n_mels=spec.n_mels,
        channels=_HIFIGAN_CHANNELS[size],
        rates=rates,
        # As wide as needed to overlap by half, and of the parity that keeps the length a multiple of the rate.
        kernels=tuple(2 * rate if rate % 2 == 0 else 2 * rate + 1 for rate in rates),
        block_kernels=_BLOCK_KERNELS,
        dilations=_DILATIONS,
        paired=True,
    )
    config = {
        "resblock": "1",
        "upsample_rates": list(sizes.rates),
        "upsample_kernel_sizes": list(sizes.kernels),
        "upsample_initial_channel": sizes.channels,
        "resblock_kernel_sizes": list(sizes.block_kernels),
        "resblock_dilation_sizes": [list(dilations) for dilations in sizes.dilations],
        "num_mels": spec.n_mels,
        "n_fft": spec.n_fft,
        "hop_size": spec.hop_length,
        "win_size": spec.win_length,
        "sampling_rate": spec.sr,
        "fmin": spec.fmin,
        "fmax": spec.top_hz,
    }
    model = HifiGan(sizes, spec, Layout(mel=lambda checkpoint, sizes: spec))
    _start(model, lambda weight: nn.init.normal_(weight, std=0.01))
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            weight_norm(module)
    return Fresh(model=model, config=config, learning_rate=2e-4)


def _unfolded(size: Size, spec: MelSpec) -> Fresh:
    sizes = _UNFOLDED[size]
    model = Unfolded(sizes, spec)
    _start(model, lambda weight: nn.init.kaiming_uniform_(weight, a=math.sqrt(5)))
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.1)
        elif ".out." in name:
            # The first answer is the start itself.
            nn.init.zeros_(parameter)
    return Fresh(model=model, config={"model": "unfolded"}, learning_rate=1e-3)


_MAKERS: Mapping[Generator, Callable[[Size, MelSpec], Fresh]] = {
    "vocos": _vocos,
    "hifigan": _hifigan,
    "unfolded": _unfolded,
}


def _start(model: nn.Module, draw: Callable[[torch.Tensor], object]) -> None:
    """Draw the weights of convolutions and linear maps; layers that load theirs have none yet."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
            draw(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def factors(hop_length: int) -> tuple[int, ...]:
    """Return rates of at most 8, the largest first, whose product is a hop; a prime beyond 8 stays whole.

    >>> factors(256)
    (8, 8, 4)
    >>> factors(300)
    (6, 5, 5, 2)
    """
    rates = []
    while hop_length > 1:
        rate = max((r for r in range(2, _MOST_RATE + 1) if hop_length % r == 0), default=hop_length)
        rates.append(rate)
        hop_length //= rate
    return tuple(rates)
