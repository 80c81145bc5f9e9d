"""Which utterances make a shard: it depends on their ids and lengths alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from melmill.storage.tables import from_numpy, to_numpy

# It bounds what rounding to whole frames can add to the length of a shard.
MAX_UTTERANCES = 1024

# Longer than any recording, samples: 2^62 hold 9 million years at 16 kHz.
_LONGEST = 62


def length_class(n_samples: int) -> int:
    """Return the quarter octave of a length, by integer arithmetic: every machine gives the same.

    >>> [length_class(n) for n in (0, 16000, 19483, 19484, 32768)]
    [0, 55, 56, 57, 60]
    """
    return max(0, (n_samples**4).bit_length() - 1)


def length_classes(n_samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the `length_class` of every length.

    >>> length_classes(np.array([0, 16000, 19483, 19484, 32768]))
    array([ 0, 55, 56, 57, 60])
    """
    return np.maximum(0, np.searchsorted(_shortest(), n_samples, side="right") - 1)


@lru_cache(maxsize=1)
def _shortest() -> NDArray[np.int64]:
    """Return the shortest length of each class."""
    shortest, n = [], 1
    for octave in range(4 * _LONGEST):
        low, high = n, 2 * n + 2
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if middle**4 >= 1 << octave else (middle + 1, high)
        n = low
        shortest.append(n)
    return np.array(shortest)


def packing_order(ids: pa.ChunkedArray, n_samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order in which utterances are packed: by length class, then by id.

    So those of a shard have similar lengths, and their original order does not matter.
    """
    classes = pa.chunked_array([from_numpy(length_classes(n_samples))])
    # Text is compared by its bytes, which have the order of its characters.
    table = pa.table({"class": classes, "utterance_id": ids})
    order = pc.sort_indices(table, sort_keys=[("class", "ascending"), ("utterance_id", "ascending")])
    return to_numpy(pa.chunked_array([order])).astype(np.int64)


def pack(n_samples: NDArray[np.int64], capacity: int) -> Iterator[int]:
    """Yield how many utterances each shard holds, of lengths in their packing order.

    A shard has at most `capacity` samples and `MAX_UTTERANCES` utterances. One longer than a shard
    gets a shard of its own.

    >>> list(pack(np.array([2, 3, 5, 5, 11, 0]), 10))
    [3, 1, 1, 1]

    Parameters
    ----------
    n_samples : (n_utterances,) ndarray of int64
    capacity : int
        Samples that one slot holds.
    """
    ends = np.cumsum(n_samples)
    first = before = 0
    while first < len(ends):
        # The zeros behind one that is too long fit no shard with it.
        stop = int(np.searchsorted(ends, before + capacity, side="right"))
        stop = max(first + 1, min(stop, first + MAX_UTTERANCES))
        yield stop - first
        first, before = stop, int(ends[stop - 1])


def slots(n_samples: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """Return how many slots shards of these lengths fill in arrays."""
    return np.maximum(1, -(-n_samples // capacity))
