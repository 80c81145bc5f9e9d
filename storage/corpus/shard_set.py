"""Sets of shards that take a byte for each shard of a catalogue, however many it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_BLOCK = 65_536


class ShardSet(Set[int]):
    """A set of shards, in order. It equals any set of the same numbers.

    Parameters
    ----------
    mask : (n_shards,) ndarray of bool
        Whether each shard is in it.

    >>> ShardSet(np.array([True, False, True])) == {0, 2}
    True
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask

    @classmethod
    def of(cls, shards: Iterable[int]) -> ShardSet:
        """Return the set of some shards."""
        if isinstance(shards, ShardSet):
            return shards
        numbers = np.fromiter(shards, np.int64)
        mask = np.zeros(int(numbers.max()) + 1 if len(numbers) else 0, np.bool_)
        mask[numbers] = True
        return cls(mask)

    @classmethod
    def _from_iterable(cls, it: Iterable[int]) -> ShardSet:  # type: ignore[override]
        return cls.of(it)

    def has(self, shards: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some shards are in it."""
        if not len(self.mask):
            return np.zeros(len(shards), np.bool_)
        inside = (shards >= 0) & (shards < len(self.mask))
        return inside & self.mask[np.where(inside, shards, 0)]

    def has_named(self, record_name: str) -> bool:
        """Return whether the shard of a record is in it."""
        return record_name.isdecimal() and int(record_name) in self

    def sized(self, n_shards: int) -> NDArray[np.bool_]:
        """Return the mask for a number of shards."""
        mask = np.zeros(n_shards, np.bool_)
        n_both = min(n_shards, len(self.mask))
        mask[:n_both] = self.mask[:n_both]
        return mask

    @cached_property
    def _n(self) -> int:
        return int(np.count_nonzero(self.mask))

    def __len__(self) -> int:
        return self._n

    def __contains__(self, shard: object) -> bool:
        return isinstance(shard, int) and 0 <= shard < len(self.mask) and bool(self.mask[shard])

    def __iter__(self) -> Iterator[int]:
        for first in range(0, len(self.mask), _BLOCK):
            yield from (first + np.flatnonzero(self.mask[first : first + _BLOCK])).tolist()

    def __repr__(self) -> str:
        return f"<ShardSet of {len(self):,} among {len(self.mask):,} shards>"

    __hash__ = None  # type: ignore[assignment]


def union(sets: Iterable[Iterable[int]]) -> ShardSet:
    """Return the shards that are in any of some sets.

    >>> sorted(union([{1}, ShardSet(np.array([True, False, False]))]))
    [0, 1]
    """
    masks = [ShardSet.of(one).mask for one in sets]
    mask = np.zeros(max(map(len, masks), default=0), np.bool_)
    for one in masks:
        mask[: len(one)] |= one
    return ShardSet(mask)
