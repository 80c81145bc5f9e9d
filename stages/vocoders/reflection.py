"""Reflecting padding that knows where each utterance of a batch ends."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from melmill.stages.errors import Unusable
from melmill.stages.vocoders.layers import Ends


def reflected(x: Tensor, amount: int, ends: Ends) -> Tensor:
    """Return `x` with `amount` values more at each end: its own, mirrored at the first and the last.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, length)
    amount : int
        Less than the shortest length.
    ends : Ends
        Where each utterance's last value is; what comes after its mirror image is arbitrary.

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
