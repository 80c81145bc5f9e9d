"""MelGAN: the layouts of its authors (descript) and of seungwonpark's implementation.

References
----------
Kumar et al., "MelGAN: Generative Adversarial Networks for Conditional Waveform Synthesis", NeurIPS
    2019, section 2.1 and figure 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.families.melgan.sizes import Layout, MelGanSizes, layout_of, read_mel, read_sizes
from melmill.stages.vocode.layers.basic import Conv1d, ConvTranspose1d, Ends, reflected, same_padding
from melmill.stages.vocode.network import Checkpoint, Vocoder, with_weights

_SLOPE = 0.2


class _Residual(nn.Module):
    """Apply one residual block under the names of descript."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.block = _block(width, kernel, dilation)
        self.shortcut = Conv1d(width, width, 1)

    def forward(self, x: Tensor, ends: Ends) -> Tensor:
        """Return the sum of the mapped `x` and what the block adds."""
        return _added(x, ends, self.block, self.shortcut)


class _ResidualStack(nn.Module):
    """Apply the residual blocks of a level under the names of seungwonpark."""

    def __init__(self, width: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_block(width, kernel, dilation) for dilation in dilations)
        self.shortcuts = nn.ModuleList(Conv1d(width, width, 1) for _ in dilations)

    def forward(self, x: Tensor, ends: Ends) -> Tensor:
        """Return `x` after one block after the other."""
        for block, shortcut in zip(self.blocks, self.shortcuts, strict=True):
            x = _added(x, ends, block, shortcut)
        return x


def _block(width: int, kernel: int, dilation: int) -> nn.ModuleDict:
    """Return a dilated and a pointwise convolution.

    Their names are their places in the official sequence.
    """
    return nn.ModuleDict({"2": Conv1d(width, width, kernel, dilation=dilation), "4": Conv1d(width, width, 1)})


def _added(x: Tensor, ends: Ends, block: nn.Module, shortcut: nn.Module) -> Tensor:
    dilated, pointwise = block.get_submodule("2"), block.get_submodule("4")
    y = dilated(reflected(leaky_relu(x, _SLOPE), _margin(dilated), ends))
    added: Tensor = shortcut(x) + pointwise(leaky_relu(y, _SLOPE))
    return added


def _margin(layer: nn.Module) -> int:
    """Return how many values must be reflected so that a convolution keeps the length."""
    if not isinstance(layer, Conv1d):
        raise TypeError(f"expected a convolution, got {type(layer).__name__}")
    return same_padding(layer.kernel_size[0], layer.dilation[0])


class MelGan(Vocoder):
    """Upsample by transposed convolutions, each followed by dilated residual blocks.

    All padding reflects.

    This is the official forward pass. The inference of seungwonpark's code also appends ten frames
    of silence to a mel and drops their samples.
    """

    family: ClassVar[str] = "melgan"

    def __init__(self, sizes: MelGanSizes, spec: MelSpec, layout: Layout) -> None:
        super().__init__()
        self.spec, self.root, self.normalises = spec, layout.root, layout.normalises
        self.hop_length, self.least_frames = math.prod(sizes.rates), sizes.least_frames
        # Every layer has its place in the official sequence, where activations and paddings have
        # numbers too.
        layers: dict[str, nn.Module] = {"1": Conv1d(sizes.n_mels, sizes.widths[0], sizes.end_kernel)}
        place = 3
        for level, rate in enumerate(sizes.rates):
            before, width = sizes.widths[level : level + 2]
            odd = rate % 2
            layers[str(place)] = ConvTranspose1d(before, width, 2 * rate, rate, rate // 2 + odd, odd)
            residuals = _residuals(width, sizes, layout.stacked)
            layers |= {str(place + 1 + i): residual for i, residual in enumerate(residuals)}
            place += len(residuals) + 2
        layers[str(place + 1)] = Conv1d(sizes.widths[-1], 1, sizes.end_kernel)
        self.add_module(layout.root, nn.ModuleDict(layers))

    def n_samples(self, n_frames: int) -> int:
        """Return how many samples a mel of `n_frames` gives."""
        return n_frames * self.hop_length

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms ``(batch, n_samples)`` of mels ``(batch, n_mels, n_frames)``.

        The mels are long enough to reflect.
        """
        ends = Ends(lengths, mel.shape[2])
        first, *middle, last = self.get_submodule(self.root).children()
        x = (mel + 5.0) / 5.0 if self.normalises else mel
        x = first(reflected(x, _margin(first), ends))
        for layer in middle:
            if isinstance(layer, ConvTranspose1d):
                x = layer(ends.cut(leaky_relu(x, _SLOPE)))
                ends = ends.after(layer, x)
            else:
                x = layer(x, ends)
        return torch.tanh(last(reflected(leaky_relu(x, _SLOPE), _margin(last), ends)))[:, 0]


def _residuals(width: int, sizes: MelGanSizes, stacked: bool) -> list[nn.Module]:
    if stacked:
        return [_ResidualStack(width, sizes.block_kernel, sizes.dilations)]
    return [_Residual(width, sizes.block_kernel, dilation) for dilation in sizes.dilations]


def build(checkpoint: Checkpoint) -> MelGan:
    """Make the model of a checkpoint in either layout."""
    layout = layout_of(checkpoint)
    sizes = read_sizes(checkpoint, layout)
    return with_weights(MelGan(sizes, read_mel(checkpoint, layout, sizes), layout), checkpoint)
