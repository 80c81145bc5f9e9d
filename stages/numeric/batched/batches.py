"""Which utterances go together, and what happens when they are too many after all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

# A batch's shortest has at least this share of the frames of its longest, so that little is computed for nothing.
_ALIKE = 0.75

Result = TypeVar("Result")


def batches(n_frames: Sequence[int], most_frames: int) -> list[list[int]]:
    """Group utterances of like length, the longest first.

    Parameters
    ----------
    n_frames : sequence of int
        Frames of each utterance.
    most_frames : int
        Of a padded batch; an utterance of more is one of its own.

    Returns
    -------
    list of list of int
        The batches' utterances, as indices.

    Examples
    --------
    >>> batches([90, 100, 40, 95], 250)
    [[1, 3], [0], [2]]
    """
    made: list[list[int]] = []
    for index in sorted(range(len(n_frames)), key=lambda i: -n_frames[i]):
        longest = n_frames[made[-1][0]] if made else 0
        if made and n_frames[index] >= _ALIKE * longest and (len(made[-1]) + 1) * longest <= most_frames:
            made[-1].append(index)
        else:
            made.append([index])
    return made


def in_halves(work: Callable[[Sequence[int]], list[Result]], batch: Sequence[int]) -> list[Result]:
    """Do the work of a batch, or of its halves one after the other where the device's memory does not hold it."""
    try:
        return work(batch)
    except torch.cuda.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # Past the handler, whose traceback keeps the tensors of the attempt.
    torch.cuda.empty_cache()
    middle = len(batch) // 2
    return [*in_halves(work, batch[:middle]), *in_halves(work, batch[middle:])]
