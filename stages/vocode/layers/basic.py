"""Layers that several families share, and the masks that keep the utterances of a batch apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from melmill.stages.numeric.errors import Unusable
from melmill.stages.vocode.errors import VocoderError


class Conv1d(nn.Conv1d):
    """A convolution whose weights come from a checkpoint.

    It draws none, so the global random state stays as it is.
    """

    def reset_parameters(self) -> None:
        """Leave the weights to the checkpoint."""


class ConvTranspose1d(nn.ConvTranspose1d):
    """A transposed convolution whose weights come from a checkpoint."""

    def reset_parameters(self) -> None:
        """Leave the weights to the checkpoint."""


class Conv2d(nn.Conv2d):
    """A convolution over two axes whose weights come from a checkpoint."""

    def reset_parameters(self) -> None:
        """Leave the weights to the checkpoint."""


class ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution over two axes whose weights come from a checkpoint."""

    def reset_parameters(self) -> None:
        """Leave the weights to the checkpoint."""


class Linear(nn.Linear):
    """A linear map whose weights come from a checkpoint."""

    def reset_parameters(self) -> None:
        """Leave the weights to the checkpoint."""


def same_padding(kernel_size: int, dilation: int = 1) -> int:
    """Return the padding that keeps the length under an odd kernel.

    >>> same_padding(7, 3)
    9
    """
    return dilation * (kernel_size - 1) // 2


def inside(lengths: Tensor | None, length: int) -> Tensor | None:
    """Return a mask of the utterances of a batch: True up to the end of each.

    Parameters
    ----------
    lengths : Tensor of int64, shape (batch,), or None
        None: all are whole, and no mask is needed.
    length : int
        Length of the padded axis.

    Returns
    -------
    Tensor of bool, shape (batch, 1, length), or None

    >>> inside(torch.tensor([1, 3]), 3).int().tolist()
    [[[1, 0, 0]], [[1, 1, 1]]]
    """
    if lengths is None:
        return None
    return (torch.arange(length, device=lengths.device) < lengths[:, None])[:, None, :]


def silenced(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return `x` with zeros outside `mask`, as zero padding is for an utterance alone."""
    return x if mask is None else x.masked_fill(~mask, 0.0)


def upsampled_length(layer: nn.Module, length: Tensor | int) -> Tensor | int:
    """Return the length that a transposed convolution makes of `length`."""
    if not isinstance(layer, nn.ConvTranspose1d):
        raise TypeError(f"expected a transposed convolution, got {type(layer).__name__}")
    (stride,), (kernel,), (dilation,) = layer.stride, layer.kernel_size, layer.dilation
    padding, extra = int(layer.padding[0]), layer.output_padding[0]
    return (length - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1


class Ends:
    """Know where each utterance of a batch ends, at the rate of the next layer.

    Parameters
    ----------
    lengths : Tensor of int64, shape (batch,), or None
        None: all are whole, and the methods change nothing.
    length : int
        Length of the padded axis.
    """

    def __init__(self, lengths: Tensor | None, length: int) -> None:
        self.lengths = lengths
        self.mask = inside(lengths, length)

    def after(self, layer: nn.Module, x: Tensor) -> Ends:
        """Return the ends in the output `x` of a transposed convolution."""
        if self.lengths is None:
            return self
        lengths = upsampled_length(layer, self.lengths)
        return Ends(torch.as_tensor(lengths), x.shape[-1])

    def stretched(self, ratio: int) -> Ends:
        """Return the ends at `ratio` times the rate."""
        if self.lengths is None or self.mask is None:
            return self
        return Ends(self.lengths * ratio, self.mask.shape[-1] * ratio)

    def cut(self, x: Tensor) -> Tensor:
        """Return `x` with zeros past each end, as zero padding is for an utterance alone."""
        return silenced(x, self.mask)

    def held(self, x: Tensor) -> Tensor:
        """Return `x` with each utterance's last value past its end.

        So replicating padding is as for the utterance alone.
        """
        if self.lengths is None or self.mask is None:
            return x
        last = (self.lengths - 1).clamp(min=0)[:, None, None].expand(-1, x.shape[1], 1)
        return torch.where(self.mask, x, x.gather(2, last))


Precision = Literal["float32", "bfloat16", "float16"]


def at(precision: Precision, device: str) -> torch.autocast:
    """Return a context that computes convolutions and matrix products at a precision.

    The rest stays float32.
    """
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=getattr(torch, precision), enabled=precision != "float32")


def reflected(x: Tensor, amount: int, ends: Ends) -> Tensor:
    """Extend `x` at each end by `amount` of its own values, mirrored at the first and the last.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, length)
    amount : int
        Less than the shortest length.
    ends : Ends
        Where each utterance's last value is. Values past its mirror image are arbitrary.

    Returns
    -------
    Tensor, shape (batch, channels, length + 2 * amount)

    >>> reflected(torch.tensor([[[1.0, 2.0, 3.0, 9.0]]]), 2, Ends(torch.tensor([3]), 4)).tolist()
    [[[3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0, 2.0]]]
    """
    y = pad(x, (amount, amount), mode="reflect")
    if ends.lengths is None:
        return y
    beyond = torch.arange(1, amount + 1, device=x.device)
    last = (ends.lengths - 1)[:, None, None].expand(-1, x.shape[1], 1)
    return y.scatter(2, last + amount + beyond, x.gather(2, last - beyond))


def check_length(family: str, n_frames: int, lengths: Tensor | None, least: int) -> None:
    """Raise Unusable where a mel of the batch has fewer than `least` frames, too few to reflect."""
    shortest = n_frames if lengths is None else int(lengths.min())
    if shortest < least:
        raise Unusable(
            f"too short for {family}: a mel of {shortest} frames, but its layers reflect their input, which takes "
            f"at least {least}"
        )


def checked(family: str, noise: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> Sequence[Tensor]:
    """Return `noise`; raise VocoderError unless it has these shapes, batch axis included.

    >>> checked("waveglow", (), [(1, 4, 32)])
    Traceback (most recent call last):
    melmill.stages.vocode.errors.VocoderError: noise of waveglow must be 1 array of shape (1, 4, 32), got none
    """
    got = [tuple(draw.shape) for draw in noise]
    if got != list(shapes):
        count = f"{len(shapes)} array" + "s" * (len(shapes) != 1)
        wanted, given = (", ".join(map(str, some)) for some in (shapes, got))
        raise VocoderError(f"noise of {family} must be {count} of shape {wanted}, got {given or 'none'}")
    return noise
