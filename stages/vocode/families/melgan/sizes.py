"""The two layouts of MelGAN checkpoints, and the sizes that they imply."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.layers.basic import same_padding
from melmill.stages.vocode.network import Checkpoint
from melmill.stages.vocode.settings import conv_shape, half_kernel, layer_count, section, tacotron_mel, whole


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Say where tensors and settings are, and how else the implementations differ.

    Parameters
    ----------
    root : str
        Name of the official sequence of layers.
    block : str
        Pattern of the name of the dilated convolution of a residual block, by place and block.
    stacked : bool
        The residual blocks of a level are one layer of the sequence, not one layer each.
    normalises : bool
        The mel is scaled to about [-1, 1] first.
    audio : str or None
        Section of the configuration that describes the mel. None: the configuration has no sections
        and only says the number of bands.
    preset : str
        Preset of the mel.
    """

    root: str
    block: str
    stacked: bool
    normalises: bool
    audio: str | None
    preset: str


_DESCRIPT = Layout(
    root="model", block="model.{}.block.2.weight", stacked=False, normalises=False, audio=None, preset="melgan"
)
_SEUNGWONPARK = Layout(
    root="generator",
    block="generator.{}.blocks.{}.2.weight",
    stacked=True,
    normalises=True,
    audio="audio",
    preset="melgan_seungwonpark",
)


@dataclass(frozen=True, kw_only=True)
class MelGanSizes:
    """Hold the sizes of the layers.

    Parameters
    ----------
    n_mels : int
        Bands in.
    widths : tuple of int
        Channels before the first upsampling and after each.
    rates : tuple of int
        Stride of each upsampling, half its kernel.
    end_kernel, block_kernel : int
        Kernel of the first and the last convolution, and of the dilated ones.
    dilations : tuple of int
        Dilations of the residual blocks after each upsampling.
    """

    n_mels: int
    widths: tuple[int, ...]
    rates: tuple[int, ...]
    end_kernel: int
    block_kernel: int
    dilations: tuple[int, ...]

    @property
    def least_frames(self) -> int:
        """Frames of the shortest mel that all layers can reflect.

        Each layer's input has more values than its padding takes.
        """
        deepest = same_padding(self.block_kernel, max(self.dilations, default=1))
        per_level = [deepest // math.prod(self.rates[: level + 1]) + 1 for level in range(len(self.rates))]
        return max(same_padding(self.end_kernel) + 1, *per_level)


def layout_of(checkpoint: Checkpoint) -> Layout:
    """Return the layout of a checkpoint; raise VocoderError where it is neither."""
    layout = _layout(checkpoint)
    if layout is None:
        raise VocoderError(
            f"{checkpoint.name}: is no MelGAN: expected tensors such as 'model.4.block.2.weight' (descript) or "
            f"'generator.4.blocks.0.2.weight' (seungwonpark), got {', '.join(map(repr, list(checkpoint.state)[:3]))}"
        )
    return layout


def _layout(checkpoint: Checkpoint) -> Layout | None:
    for layout in (_DESCRIPT, _SEUNGWONPARK):
        pattern = re.compile(re.escape(layout.block).replace(r"\{\}", r"\d+"))
        if any(map(pattern.fullmatch, checkpoint.state)):
            return layout
    return None


def read_sizes(checkpoint: Checkpoint, layout: Layout) -> MelGanSizes:
    """Return the sizes that the configuration says; where it is silent, those of the weights.

    Raises
    ------
    VocoderError
        The weights lack a layer, or the configuration describes no network.
    """
    first, *ups, last = _places(checkpoint, layout)
    names = [f"{layout.root}.{up}.weight" for up in ups]
    width, n_mels, end_kernel = conv_shape(checkpoint, f"{layout.root}.{first}.weight")
    widths = [width, *(conv_shape(checkpoint, name)[1] for name in names)]
    if "ngf" in checkpoint.config:
        ngf = whole(checkpoint, checkpoint.config, "ngf", 1)
        widths = [ngf << level for level in reversed(range(len(widths)))]
    return MelGanSizes(
        n_mels=whole(checkpoint, _audio(checkpoint, layout), "n_mel_channels", n_mels),
        widths=tuple(widths),
        rates=tuple(half_kernel(checkpoint, name) for name in names),
        end_kernel=end_kernel,
        block_kernel=conv_shape(checkpoint, layout.block.format(ups[0] + 1, 0))[2],
        dilations=tuple(3**i for i in range(_n_blocks(checkpoint, layout, ups, last))),
    )


def _places(checkpoint: Checkpoint, layout: Layout) -> list[int]:
    """Return the places of the first convolution, the upsamplings and the last convolution."""
    pattern = re.compile(re.escape(layout.root) + r"\.(\d+)\.(?:weight|bias)")
    places = sorted({int(match[1]) for match in map(pattern.fullmatch, checkpoint.state) if match})
    if len(places) < 3:
        raise VocoderError(
            f"{checkpoint.name}: expected a first convolution, upsamplings and a last convolution as "
            f"'{layout.root}.N.weight', got only N = {places}"
        )
    return places


def _n_blocks(checkpoint: Checkpoint, layout: Layout, ups: list[int], last: int) -> int:
    """Return the residual blocks of a level.

    In descript's layout they fill the places up to the next activation.
    """
    if layout.stacked:
        return checkpoint.count(layout.block.format(ups[0] + 1, "{}"))
    fill = (ups[1] - ups[0] - 2) if len(ups) > 1 else last - ups[0] - 3
    return layer_count(checkpoint, checkpoint.config, "n_residual_layers", fill)


def _audio(checkpoint: Checkpoint, layout: Layout) -> Mapping[str, Any]:
    return checkpoint.config if layout.audio is None else section(checkpoint, layout.audio)


def read_mel(checkpoint: Checkpoint, layout: Layout, sizes: MelGanSizes) -> MelSpec:
    """Return the mel that a checkpoint needs.

    Descript's code only lets the number of bands be set.
    """
    settings = {} if layout.audio is None else section(checkpoint, layout.audio)
    hop_length = math.prod(sizes.rates)
    return tacotron_mel(checkpoint, settings, preset(layout.preset), n_mels=sizes.n_mels, hop_length=hop_length)
