"""Sizes of a generator that upsamples mels by transposed convolutions, as HiFi-GAN and BigVGAN do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.family import Checkpoint

# HiFi-GAN's published dilations, for files without a configuration: of V1 and V2, and of V3 by its kernels.
_PAIRED_DILATIONS = (1, 3, 5)
_SINGLE_DILATIONS = {3: (1, 2), 5: (2, 6), 7: (3, 12)}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the layers.

    Parameters
    ----------
    n_mels, channels : int
        Bands in, and channels before the first upsampling; each upsampling halves them.
    rates, kernels : tuple of int
        Stride and kernel of each transposed convolution.
    block_kernels : tuple of int
        Kernel of each residual block after an upsampling.
    dilations : tuple of tuple of int
        Of the convolutions of each such block.
    paired : bool
        A block follows each dilated convolution by a plain one (HiFi-GAN's resblock 1).
    """

    n_mels: int
    channels: int
    rates: tuple[int, ...]
    kernels: tuple[int, ...]
    block_kernels: tuple[int, ...]
    dilations: tuple[tuple[int, ...], ...]
    paired: bool

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return math.prod(self.rates)

    def width(self, level: int) -> int:
        """Channels after `level` upsamplings."""
        return self.channels >> level


def read_sizes(checkpoint: Checkpoint, up: str) -> Sizes:
    """Return the sizes that the configuration says, and where it is silent those of the weights.

    Parameters
    ----------
    checkpoint : Checkpoint
        Configuration and tensors under HiFi-GAN's names.
    up : str
        Pattern of the names of the upsampling weights, such as ``ups.{}.weight``.

    Raises
    ------
    VocoderError
        Neither says, or what they say can't be a network.
    """
    config, n_ups = checkpoint.config, checkpoint.count(up)
    if n_ups == 0:
        raise VocoderError(f"{checkpoint.name}: no tensor {up.format(0)!r}: is it another family's?")
    n_mels = config.get("num_mels", checkpoint.shape("conv_pre.weight")[1])
    kernels = _whole(checkpoint, "upsample_kernel_sizes", [checkpoint.shape(up.format(i))[2] for i in range(n_ups)])
    paired = _is_paired(checkpoint)
    block_kernels = _whole(checkpoint, "resblock_kernel_sizes", _block_kernels(checkpoint, n_ups, paired))
    return Sizes(
        n_mels=n_mels,
        channels=config.get("upsample_initial_channel", checkpoint.shape("conv_pre.weight")[0]),
        rates=_rates(checkpoint, kernels),
        kernels=kernels,
        block_kernels=block_kernels,
        dilations=_dilations(checkpoint, block_kernels, paired),
        paired=paired,
    )


def _whole(checkpoint: Checkpoint, field: str, otherwise: Sequence[int]) -> tuple[int, ...]:
    value = checkpoint.config.get(field, otherwise)
    if not (isinstance(value, Sequence) and value and all(_is_size(size) for size in value)):
        raise _wrong(checkpoint, field, "a list of whole numbers from 1", value)
    return tuple(value)


def _is_size(value: Any) -> bool:  # noqa: ANN401 - whatever a configuration holds
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _wrong(checkpoint: Checkpoint, field: str, expected: str, got: object) -> VocoderError:
    return VocoderError(f"{checkpoint.name}: {field} of its configuration must be {expected}, got {got!r}")


def _is_paired(checkpoint: Checkpoint) -> bool:
    said = checkpoint.config.get("resblock")
    return said == "1" if isinstance(said, str) else "resblocks.0.convs1.0.weight" in checkpoint.state


def _convolutions(paired: bool) -> str:
    """Return the pattern of the names of the dilated convolutions of a block."""
    return "resblocks.{}.convs1.{}.weight" if paired else "resblocks.{}.convs.{}.weight"


def _block_kernels(checkpoint: Checkpoint, n_ups: int, paired: bool) -> list[int]:
    pattern = _convolutions(paired).format("{}", 0)
    return [checkpoint.shape(pattern.format(block))[2] for block in range(checkpoint.count(pattern) // n_ups)]


def _rates(checkpoint: Checkpoint, kernels: tuple[int, ...]) -> tuple[int, ...]:
    """Return the rates; without a word of them half the kernels, as published: their product is checked later."""
    rates = _whole(checkpoint, "upsample_rates", [max(1, kernel // 2) for kernel in kernels])
    if len(rates) != len(kernels):
        raise _wrong(checkpoint, "upsample_rates", f"as many as upsample_kernel_sizes {list(kernels)}", list(rates))
    return rates


def _dilations(checkpoint: Checkpoint, kernels: tuple[int, ...], paired: bool) -> tuple[tuple[int, ...], ...]:
    said = checkpoint.config.get("resblock_dilation_sizes")
    if said is None:
        said = [_PAIRED_DILATIONS if paired else _SINGLE_DILATIONS.get(kernel, ()) for kernel in kernels]
    counts = [checkpoint.count(_convolutions(paired).format(block, "{}")) for block in range(len(kernels))]
    rows = isinstance(said, Sequence) and len(said) == len(kernels) and all(isinstance(row, Sequence) for row in said)
    if not rows or not all(
        len(row) >= max(1, n) and all(map(_is_size, row)) for row, n in zip(said, counts, strict=True)
    ):
        expected = f"{len(kernels)} lists of {max(counts)} whole numbers, one for each of resblock_kernel_sizes"
        raise _wrong(checkpoint, "resblock_dilation_sizes", expected, said)
    # The official blocks make a fixed number of convolutions and look at no further dilation.
    return tuple(tuple(row[: n or None]) for row, n in zip(said, counts, strict=True))
