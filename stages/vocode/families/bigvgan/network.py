"""BigVGAN, versions 1 and 2: a HiFi-GAN with periodic, anti-aliased activations.

References
----------
Lee, Ping, Ginsburg, Catanzaro, Yoon, "BigVGAN: A Universal Neural Vocoder with Large-Scale
    Training", ICLR 2023, section 3.2 (Snake: Ziyin, Hartwig, Ueda, NeurIPS 2020, equation 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.bigvgan.periodic import PeriodicActivation, Snake
from melmill.stages.vocode.families.hifigan.sizes import Sizes, hifigan_mel, read_sizes
from melmill.stages.vocode.layers.basic import Conv1d, ConvTranspose1d, Ends, same_padding, upsampled_length
from melmill.stages.vocode.network import Checkpoint, Vocoder, with_weights

_UP = "ups.{}.0.weight"
_END_KERNEL = 7


class _PairedBlock(nn.Module):
    """Add pairs of a dilated and a plain convolution, each after an activation (AMP block 1)."""

    def __init__(self, width: int, kernel: int, dilations: Sequence[int], snake: Snake) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_conv(width, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_conv(width, kernel, 1) for _ in dilations)
        self.activations = nn.ModuleList(PeriodicActivation(width, snake) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor, ends: Ends) -> Tensor:
        """Return the sum of `x` and what each pair adds to it."""
        firsts, seconds = self.activations[::2], self.activations[1::2]
        for dilated, plain, first, second in zip(self.convs1, self.convs2, firsts, seconds, strict=True):
            y = dilated(ends.cut(first(x, ends)))
            x = x + plain(ends.cut(second(y, ends)))
        return x


class _SingleBlock(nn.Module):
    """Add dilated convolutions, each after an activation (AMP block 2)."""

    def __init__(self, width: int, kernel: int, dilations: Sequence[int], snake: Snake) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(width, kernel, dilation) for dilation in dilations)
        self.activations = nn.ModuleList(PeriodicActivation(width, snake) for _ in dilations)

    def forward(self, x: Tensor, ends: Ends) -> Tensor:
        """Return the sum of `x` and what each convolution adds to it."""
        for dilated, activation in zip(self.convs, self.activations, strict=True):
            x = x + dilated(ends.cut(activation(x, ends)))
        return x


def _conv(width: int, kernel: int, dilation: int) -> Conv1d:
    return Conv1d(width, width, kernel, dilation=dilation, padding=same_padding(kernel, dilation))


class BigVgan(Vocoder):
    """Upsample by transposed convolutions.

    The outputs of the periodic blocks that follow each are averaged.
    """

    family: ClassVar[str] = "bigvgan"
    sample_bytes: ClassVar[int] = 4000

    def __init__(self, sizes: Sizes, spec: MelSpec, snake: Snake, *, tanh: bool, last_bias: bool) -> None:
        super().__init__()
        self.spec, self.tanh = spec, tanh
        padding = same_padding(_END_KERNEL)
        self.conv_pre = Conv1d(sizes.n_mels, sizes.channels, _END_KERNEL, padding=padding)
        # The official code keeps a list of lists, as a level might have several upsamplings. It
        # always has one.
        self.ups = nn.ModuleList(
            nn.ModuleList(
                [ConvTranspose1d(sizes.width(i), sizes.width(i + 1), kernel, rate, padding=(kernel - rate) // 2)]
            )
            for i, (rate, kernel) in enumerate(zip(sizes.rates, sizes.kernels, strict=True))
        )
        block = _PairedBlock if sizes.paired else _SingleBlock
        self.resblocks = nn.ModuleList(
            block(sizes.width(level), kernel, dilations, snake)
            for level in range(1, len(sizes.rates) + 1)
            for kernel, dilations in zip(sizes.block_kernels, sizes.dilations, strict=True)
        )
        last = sizes.width(len(sizes.rates))
        self.activation_post = PeriodicActivation(last, snake)
        self.conv_post = Conv1d(last, 1, _END_KERNEL, padding=padding, bias=last_bias)

    def _upsamplings(self) -> list[nn.Module]:
        return [self.ups.get_submodule(f"{level}.0") for level in range(len(self.ups))]

    def n_samples(self, n_frames: int) -> int:
        """Return how many samples a mel of `n_frames` gives."""
        for up in self._upsamplings():
            n_frames = int(upsampled_length(up, n_frames))
        return n_frames

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms ``(batch, n_samples)`` of mels ``(batch, n_mels, n_frames)``."""
        ends = Ends(lengths, mel.shape[2])
        x = self.conv_pre(ends.cut(mel))
        per_level = len(self.resblocks) // len(self.ups)
        for level, up in enumerate(self._upsamplings()):
            x = up(ends.cut(x))
            ends = ends.after(up, x)
            blocks = self.resblocks[level * per_level : (level + 1) * per_level]
            x = sum(block(x, ends) for block in blocks) / per_level
        y: Tensor = self.conv_post(ends.cut(self.activation_post(x, ends)))[:, 0]
        return torch.tanh(y) if self.tanh else y.clamp(-1.0, 1.0)


def build(checkpoint: Checkpoint) -> BigVgan:
    """Make the model of a checkpoint, with or without weight norm."""
    config = checkpoint.config
    if "snake_logscale" not in config:
        raise VocoderError(
            f"{checkpoint.name}: its configuration must say snake_logscale, true or false, as the weights don't: "
            "put BigVGAN's config.json beside it, or give config=..."
        )
    sizes = read_sizes(checkpoint, _UP)
    model = BigVgan(
        sizes,
        hifigan_mel(checkpoint, sizes),
        Snake(kind=_kind(checkpoint), log_scale=bool(config["snake_logscale"])),
        tanh=bool(config.get("use_tanh_at_final", True)),
        last_bias=bool(config.get("use_bias_at_final", True)),
    )
    return with_weights(model, checkpoint)


def _kind(checkpoint: Checkpoint) -> str:
    in_weights = "snakebeta" if "activation_post.act.beta" in checkpoint.state else "snake"
    kind = checkpoint.config.get("activation", in_weights)
    if kind not in ("snake", "snakebeta"):
        raise VocoderError(
            f"{checkpoint.name}: activation of its configuration must be 'snake' or 'snakebeta', got {kind!r}"
        )
    return str(kind)
