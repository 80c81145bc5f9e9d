"""HiFi-GAN: its own checkpoints, ParallelWaveGAN's and those of transformers.

References
----------
Kong, Kim, Bae, "HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity Speech
    Synthesis", NeurIPS 2020, section 2.2 and appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.families.hifigan.layouts import UP, Layout, as_hifigan
from melmill.stages.vocode.families.hifigan.sizes import Sizes, read_sizes
from melmill.stages.vocode.layers.basic import Conv1d, ConvTranspose1d, Ends, same_padding, upsampled_length
from melmill.stages.vocode.network import Checkpoint, Vocoder, with_weights

# Slope of the last activation. The official code leaves this one alone at torch's default.
_LAST_SLOPE = 0.01


class _PairedBlock(nn.Module):
    """Add pairs of a dilated and a plain convolution to what comes in (resblock 1)."""

    def __init__(self, width: int, kernel: int, dilations: Sequence[int], slope: float, bias: bool) -> None:
        super().__init__()
        self.slope = slope
        self.convs1 = nn.ModuleList(_conv(width, kernel, dilation, bias) for dilation in dilations)
        self.convs2 = nn.ModuleList(_conv(width, kernel, 1, bias) for _ in dilations)

    def forward(self, x: Tensor, ends: Ends) -> Tensor:
        """Return the sum of `x` and what each pair adds to it."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            y = dilated(ends.cut(leaky_relu(x, self.slope)))
            x = x + plain(ends.cut(leaky_relu(y, self.slope)))
        return x


class _SingleBlock(nn.Module):
    """Add dilated convolutions to what comes in (resblock 2)."""

    def __init__(self, width: int, kernel: int, dilations: Sequence[int], slope: float, bias: bool) -> None:
        super().__init__()
        self.slope = slope
        self.convs = nn.ModuleList(_conv(width, kernel, dilation, bias) for dilation in dilations)

    def forward(self, x: Tensor, ends: Ends) -> Tensor:
        """Return the sum of `x` and what each convolution adds to it."""
        for dilated in self.convs:
            x = x + dilated(ends.cut(leaky_relu(x, self.slope)))
        return x


def _conv(width: int, kernel: int, dilation: int, bias: bool) -> Conv1d:
    return Conv1d(width, width, kernel, dilation=dilation, padding=same_padding(kernel, dilation), bias=bias)


class HifiGan(Vocoder):
    """Upsample by transposed convolutions.

    The outputs of the residual blocks that follow each are averaged.
    """

    family: ClassVar[str] = "hifigan"

    def __init__(self, sizes: Sizes, spec: MelSpec, layout: Layout) -> None:
        super().__init__()
        self.spec, self.slope = spec, layout.slope
        ends, bias = layout.end_kernel, layout.bias
        self.conv_pre = Conv1d(sizes.n_mels, sizes.channels, ends, padding=same_padding(ends), bias=bias)
        self.ups = nn.ModuleList(
            ConvTranspose1d(sizes.width(i), sizes.width(i + 1), kernel, rate, *layout.paddings(kernel, rate), bias=bias)
            for i, (rate, kernel) in enumerate(zip(sizes.rates, sizes.kernels, strict=True))
        )
        block = _PairedBlock if sizes.paired else _SingleBlock
        self.resblocks = nn.ModuleList(
            block(sizes.width(level), kernel, dilations, layout.slope, bias)
            for level in range(1, len(sizes.rates) + 1)
            for kernel, dilations in zip(sizes.block_kernels, sizes.dilations, strict=True)
        )
        self.conv_post = Conv1d(sizes.width(len(sizes.rates)), 1, ends, padding=same_padding(ends), bias=bias)
        self.mean: Tensor | None
        self.scale: Tensor | None
        self.register_buffer("mean", torch.empty(sizes.n_mels) if layout.normalises else None)
        self.register_buffer("scale", torch.empty(sizes.n_mels) if layout.normalises else None)

    def n_samples(self, n_frames: int) -> int:
        """Return how many samples a mel of `n_frames` gives."""
        for up in self.ups:
            n_frames = int(upsampled_length(up, n_frames))
        return n_frames

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms ``(batch, n_samples)`` of mels ``(batch, n_mels, n_frames)``."""
        if self.mean is not None and self.scale is not None:
            mel = (mel - self.mean[:, None]) / self.scale[:, None]
        ends = Ends(lengths, mel.shape[2])
        x = self.conv_pre(ends.cut(mel))
        per_level = len(self.resblocks) // len(self.ups)
        for level, up in enumerate(self.ups):
            x = up(ends.cut(leaky_relu(x, self.slope)))
            ends = ends.after(up, x)
            x = self._averaged(self.resblocks[level * per_level : (level + 1) * per_level], x, ends)
        return torch.tanh(self.conv_post(ends.cut(leaky_relu(x, _LAST_SLOPE))))[:, 0]

    @staticmethod
    def _averaged(blocks: nn.ModuleList, x: Tensor, ends: Ends) -> Tensor:
        total: Tensor = sum(block(x, ends) for block in blocks)
        return total / len(blocks)


def build(checkpoint: Checkpoint) -> HifiGan:
    """Make the model of a checkpoint in any of the three layouts."""
    translated, layout = as_hifigan(checkpoint)
    sizes = read_sizes(translated, UP)
    return with_weights(HifiGan(sizes, layout.mel(translated, sizes), layout), translated)
