"""What HiFi-GAN's and BigVGAN's configurations say: the sizes of the generator, and its mel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.network import Checkpoint
from melmill.stages.vocode.settings import changed, conv_shape, fitting, is_size, whole, wholes, wrong

# HiFi-GAN's names, which BigVGAN keeps, and ours.
_MEL_NAMES = {
    "sampling_rate": "sr",
    "n_fft": "n_fft",
    "win_size": "win_length",
    "hop_size": "hop_length",
    "num_mels": "n_mels",
    "fmin": "fmin",
    "fmax": "fmax",
}

# Published dilations, for files without a configuration: those of V1 and V2, and those of V3 by
# kernel.
_PAIRED_DILATIONS = (1, 3, 5)
_SINGLE_DILATIONS = {3: (1, 2), 5: (2, 6), 7: (3, 12)}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Hold the sizes of the layers.

    Parameters
    ----------
    n_mels, channels : int
        Bands in, and channels before the first upsampling; each upsampling halves them.
    rates, kernels : tuple of int
        Stride and kernel of each transposed convolution.
    block_kernels : tuple of int
        Kernel of each residual block after an upsampling.
    dilations : tuple of tuple of int
        Dilations of the convolutions of each such block.
    paired : bool
        In a block, a plain convolution follows each dilated one (HiFi-GAN's resblock 1).
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
        """Samples of a frame."""
        return math.prod(self.rates)

    def width(self, level: int) -> int:
        """Channels after `level` upsamplings."""
        return self.channels >> level


def read_sizes(checkpoint: Checkpoint, up: str) -> Sizes:
    """Return the sizes that the configuration says; where it is silent, those of the weights.

    Parameters
    ----------
    checkpoint : Checkpoint
        Configuration and tensors under HiFi-GAN's names.
    up : str
        Pattern of the names of the upsampling weights, such as ``ups.{}.weight``.

    Raises
    ------
    VocoderError
        Neither says them, or they make no network.
    """
    config, n_ups = checkpoint.config, checkpoint.count(up)
    if n_ups == 0:
        raise VocoderError(f"{checkpoint.name}: no tensor {up.format(0)!r}: is it another family's?")
    n_mels = whole(checkpoint, config, "num_mels", conv_shape(checkpoint, "conv_pre.weight")[1])
    up_kernels = [conv_shape(checkpoint, up.format(i))[2] for i in range(n_ups)]
    kernels = wholes(checkpoint, config, "upsample_kernel_sizes", up_kernels)
    paired = _is_paired(checkpoint)
    block_kernels = wholes(checkpoint, config, "resblock_kernel_sizes", _block_kernels(checkpoint, n_ups, paired))
    return Sizes(
        n_mels=n_mels,
        channels=whole(checkpoint, config, "upsample_initial_channel", checkpoint.shape("conv_pre.weight")[0]),
        rates=_rates(checkpoint, kernels),
        kernels=kernels,
        block_kernels=block_kernels,
        dilations=_dilations(checkpoint, block_kernels, paired),
        paired=paired,
    )


def _is_paired(checkpoint: Checkpoint) -> bool:
    said = checkpoint.config.get("resblock")
    return said == "1" if isinstance(said, str) else "resblocks.0.convs1.0.weight" in checkpoint.state


def _convolutions(paired: bool) -> str:
    """Return the pattern of the names of the dilated convolutions of a block."""
    return "resblocks.{}.convs1.{}.weight" if paired else "resblocks.{}.convs.{}.weight"


def _block_kernels(checkpoint: Checkpoint, n_ups: int, paired: bool) -> list[int]:
    pattern = _convolutions(paired).format("{}", 0)
    return [conv_shape(checkpoint, pattern.format(block))[2] for block in range(checkpoint.count(pattern) // n_ups)]


def _rates(checkpoint: Checkpoint, kernels: tuple[int, ...]) -> tuple[int, ...]:
    """Return the rates, by default half the kernels, as published.

    Their product is checked later.
    """
    rates = wholes(checkpoint, checkpoint.config, "upsample_rates", [max(1, kernel // 2) for kernel in kernels])
    if len(rates) != len(kernels):
        raise wrong(checkpoint, "upsample_rates", f"as many as upsample_kernel_sizes {list(kernels)}", list(rates))
    return rates


def _dilations(checkpoint: Checkpoint, kernels: tuple[int, ...], paired: bool) -> tuple[tuple[int, ...], ...]:
    said = checkpoint.config.get("resblock_dilation_sizes")
    if said is None:
        said = [_PAIRED_DILATIONS if paired else _SINGLE_DILATIONS.get(kernel, ()) for kernel in kernels]
    counts = [checkpoint.count(_convolutions(paired).format(block, "{}")) for block in range(len(kernels))]
    rows = isinstance(said, Sequence) and len(said) == len(kernels) and all(isinstance(row, Sequence) for row in said)
    if not rows or not all(
        len(row) >= max(1, n) and all(map(is_size, row)) for row, n in zip(said, counts, strict=True)
    ):
        expected = f"{len(kernels)} lists of {max(counts)} whole numbers, one for each of resblock_kernel_sizes"
        raise wrong(checkpoint, "resblock_dilation_sizes", expected, said)
    # The official blocks make a fixed number of convolutions and ignore further dilations.
    return tuple(tuple(row[: n or None]) for row, n in zip(said, counts, strict=True))


def hifigan_mel(checkpoint: Checkpoint, sizes: Sizes, default: MelSpec | None = None) -> MelSpec:
    """Return the mel that a configuration in HiFi-GAN's names describes, or the user's.

    Parameters
    ----------
    checkpoint : Checkpoint
    sizes : Sizes
        They say bands and hop where the configuration does not.
    default : MelSpec or None
        The mel where the configuration says nothing of mels at all.

    Raises
    ------
    VocoderError
        A field is missing, or the mel does not fit the layers.
    """
    if checkpoint.mel is not None:
        return fitting(checkpoint, checkpoint.mel, n_mels=sizes.n_mels, hop_length=sizes.hop_length)
    said = {ours: checkpoint.config[theirs] for theirs, ours in _MEL_NAMES.items() if theirs in checkpoint.config}
    if not said and default is not None:
        return fitting(checkpoint, default, n_mels=sizes.n_mels, hop_length=sizes.hop_length)
    said = {"n_mels": sizes.n_mels, "hop_length": sizes.hop_length, **said}
    missing = [theirs for theirs, ours in _MEL_NAMES.items() if ours not in said]
    if missing:
        raise VocoderError(
            f"{checkpoint.name}: its configuration lacks {missing[0]!r}, which the mel needs: add it, or give mel=..."
        )
    spec = changed(checkpoint, preset("hifigan"), **said)
    return fitting(checkpoint, spec, n_mels=sizes.n_mels, hop_length=sizes.hop_length)
