"""Sizes and layouts of WaveGlow checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.network import Checkpoint
from melmill.stages.vocode.settings import conv_shape, layer_count, number, section, tacotron_mel, whole

# The official upsampling of mels has a kernel of 1024 and a stride of 256.
_STRIDES_PER_KERNEL = 4
# Standard deviation of official inference.
_SIGMA = 1.0
# Fields of the section waveglow_config. Converted checkpoints hold them without the section.
_FIELDS = ("n_mel_channels", "n_flows", "n_group", "n_early_every", "n_early_size", "WN_config")
_OLD_LAYER = re.compile(r"(WN\.\d+)\.(cond_layers|res_layers|skip_layers)\.(\d+)\.(weight|bias)")


@dataclass(frozen=True, kw_only=True)
class WaveGlowSizes:
    """Hold the sizes of the layers.

    Parameters
    ----------
    n_mels, n_group : int
        Bands of the mel, and samples of a group, which are the channels of the flow.
    widths : tuple of int
        Channels of each flow, in the order of training.
    n_layers, width, kernel : int
        Sizes of the networks in the couplings.
    up_kernel : int
        Kernel of the upsampling of mels.
    """

    n_mels: int
    n_group: int
    widths: tuple[int, ...]
    n_layers: int
    width: int
    kernel: int
    up_kernel: int

    @property
    def rate(self) -> int:
        """Samples of a frame."""
        return self.up_kernel // _STRIDES_PER_KERNEL

    @property
    def joining(self) -> tuple[int, ...]:
        """Channels that join after each flow when the flows run backwards."""
        return (0, *(before - after for before, after in zip(self.widths[:-1], self.widths[1:], strict=True)))

    @property
    def draws(self) -> tuple[int, ...]:
        """Channels of each draw of noise, in the order in which they are needed."""
        return (self.widths[-1], *(width for width in reversed(self.joining) if width))


def fused(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with one `cond_layer` and one list of `res_skip_layers`.

    The official converter does the same.

    Until August 2019 each layer had its own conditioning. Until November 2018 residual and skip
    were apart too.
    """
    state: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor]] = {}
    for key in sorted(checkpoint.state, key=_fusing_order):
        match = _OLD_LAYER.fullmatch(key)
        if match is None:
            state[key] = checkpoint.state[key]
            continue
        name = "cond_layer" if match[2] == "cond_layers" else f"res_skip_layers.{match[3]}"
        parts.setdefault(f"{match[1]}.{name}.{match[4]}", []).append(checkpoint.state[key])
    return replace(checkpoint, state=state | {key: torch.cat(tensors) for key, tensors in parts.items()})


def _fusing_order(key: str) -> tuple[str, int]:
    """Order layers by number, and residual before skip as their names do."""
    match = _OLD_LAYER.fullmatch(key)
    return ("", 0) if match is None else (match[2], int(match[3]))


def read_sizes(checkpoint: Checkpoint) -> WaveGlowSizes:
    """Return the sizes that the configuration says; where it is silent, those of the weights.

    Raises
    ------
    VocoderError
        The weights lack a layer, or the configuration describes no network.
    """
    settings = _settings(checkpoint)
    network = settings.get("WN_config", {})
    if not isinstance(network, Mapping):
        raise VocoderError(f"{checkpoint.name}: WN_config of its configuration must be a mapping, got {network!r}")
    _, width, kernel = conv_shape(checkpoint, "WN.0.in_layers.0.weight")
    n_mels, _, up_kernel = conv_shape(checkpoint, "upsample.weight")
    widths = _widths(checkpoint, settings)
    if up_kernel % _STRIDES_PER_KERNEL:
        raise VocoderError(
            f"{checkpoint.name}: tensor 'upsample.weight' has a kernel of {up_kernel}, but kernels here are "
            f"{_STRIDES_PER_KERNEL} times the stride"
        )
    return WaveGlowSizes(
        n_mels=whole(checkpoint, settings, "n_mel_channels", n_mels),
        n_group=widths[0],
        widths=widths,
        n_layers=layer_count(checkpoint, network, "n_layers", checkpoint.count("WN.0.in_layers.{}.weight")),
        width=whole(checkpoint, network, "n_channels", width),
        kernel=whole(checkpoint, network, "kernel_size", kernel),
        up_kernel=up_kernel,
    )


def _settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    said = {field: checkpoint.config[field] for field in _FIELDS if field in checkpoint.config}
    return {**section(checkpoint, "waveglow_config"), **said}


def _widths(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> tuple[int, ...]:
    pattern = "convinv.{}.conv.weight"
    widths = [conv_shape(checkpoint, pattern.format(flow))[0] for flow in range(checkpoint.count(pattern))]
    if {"n_early_every", "n_early_size"} <= settings.keys():
        every, size = (whole(checkpoint, settings, field, 1) for field in ("n_early_every", "n_early_size"))
        first = whole(checkpoint, settings, "n_group", widths[0] if widths else 1)
        n_flows = layer_count(checkpoint, settings, "n_flows", len(widths))
        widths = [first - size * (flow // every) for flow in range(n_flows)]
    if not widths or any(width < 2 or width % 2 for width in widths):
        raise VocoderError(
            f"{checkpoint.name}: each flow must have an even number of channels, got {widths}: "
            "check n_group, n_flows, n_early_every and n_early_size"
        )
    return tuple(widths)


def read_mel(checkpoint: Checkpoint, sizes: WaveGlowSizes) -> MelSpec:
    """Return the mel that a checkpoint needs."""
    settings = section(checkpoint, "data_config")
    return tacotron_mel(checkpoint, settings, preset("waveglow"), n_mels=sizes.n_mels, hop_length=sizes.rate)


def read_sigma(checkpoint: Checkpoint) -> float:
    """Return the standard deviation of the noise: `sigma` at the top of the configuration, or 1."""
    return number(checkpoint, checkpoint.config, "sigma", _SIGMA)
