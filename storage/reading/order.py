"""The order in which a stream goes through an epoch, computed without reading any data.

Shards are shuffled, and the items in each of them. In this row of all items, each reader has a range
of its own, so that all of them together have every item once, and read few shards twice. What a
reader takes from its range passes through a buffer, from which items leave at random.

All follows from the seed, the epoch and the range. So a stream is resumed by going through the order
again, up to where it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Uneven = Literal["keep", "repeat", "drop"]

# What the seeds of an epoch are for, so that no two are equal.
_SHARDS, _ITEMS, _BUFFER, _STARTS = range(1, 5)
# Numbers that are drawn together.
_DRAWS = 4096


class Place(NamedTuple):
    """Say which reader of an epoch this is: of which process of a training, and which of its workers."""

    rank: int = 0
    world_size: int = 1
    worker: int = 0
    n_workers: int = 1

    def span(self, n_items: int, uneven: Uneven) -> range:
        """Return the range of an epoch's items that the reader has.

        Parameters
        ----------
        n_items : int
            Of the whole epoch.
        uneven : {"keep", "repeat", "drop"}
            What happens where `n_items` is no multiple of `world_size`. Some ranks have one item
            more; or they all have as many, and some items come twice or not at all. A range that
            repeats goes on past `n_items`, from the first item on.
        """
        start, stop = (n_items * i // self.world_size for i in (self.rank, self.rank + 1))
        if uneven != "keep":
            each = n_items // self.world_size if uneven == "drop" else -(-n_items // self.world_size)
            start, stop = self.rank * each, (self.rank + 1) * each
        return range(*(start + (stop - start) * i // self.n_workers for i in (self.worker, self.worker + 1)))


class Batching(NamedTuple):
    """Say how items are put together.

    Parameters
    ----------
    size : int
        Most items of a batch.
    frames : int or None
        Most frames of a batch, with its padding. A longer item is a batch alone.
    bounds : ndarray of int64
        Lengths that part the buckets, frames. A batch takes items of one bucket.
    drop_last : bool
        Whether batches are left out that are not full when the epoch ends.
    """

    size: int
    frames: int | None
    bounds: NDArray[np.int64]
    drop_last: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """Items of a shard, in a reader's order. A shard's items have the numbers from 0 on."""

    shard: int
    items: NDArray[np.int64]


class Key(NamedTuple):
    """Name an item: by the number of its entry, and its number in the shard."""

    entry: int
    item: int


class Output(NamedTuple):
    """Hold what leaves a stream at once, and how many entries must have been read for it."""

    n_entries: int
    keys: tuple[Key, ...]


class EpochPlan:
    """The way of one reader through one epoch.

    Parameters
    ----------
    shards : ndarray of int64
        Numbers of the shards that have items.
    counts : ndarray of int64
        Items of each of them.
    seed, epoch : int
    place : Place
    uneven : {"keep", "repeat", "drop"}
        See `Place.span`.
    shuffle : bool
        Without it, items come in the order of storage, and no buffer is used.
    """

    def __init__(
        self,
        shards: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        seed: int,
        epoch: int,
        place: Place,
        uneven: Uneven = "keep",
        shuffle: bool = True,
    ) -> None:
        self.seed = seed
        self.epoch = epoch
        self.shuffle = shuffle
        self._shards = shards
        self._counts = counts
        self._span = place.span(int(counts.sum()), uneven)
        self.entries = list(self._entries())

    def rng(self, *purpose: int) -> np.random.Generator:
        """Return a generator for one purpose of the epoch."""
        return np.random.default_rng([self.seed, self.epoch, *purpose])

    def starts(self, shard: int) -> np.random.Generator:
        """Return the generator of the places where the segments of a shard begin, for any reader."""
        return self.rng(shard, _STARTS)

    def _entries(self) -> Iterator[Entry]:
        n_items = int(self._counts.sum())
        order = self.rng(_SHARDS).permutation(len(self._shards)) if self.shuffle else np.arange(len(self._shards))
        ends = np.cumsum(self._counts[order])
        at = self._span.start
        while at < self._span.stop:
            lap, begin = divmod(at, n_items)
            which = int(np.searchsorted(ends, begin, side="right"))
            index = order[which]
            first = int(ends[which] - self._counts[index])
            stop = min(int(ends[which]), self._span.stop - lap * n_items)
            shard, n = int(self._shards[index]), int(self._counts[index])
            items = self.rng(shard, _ITEMS).permutation(n) if self.shuffle else np.arange(n)
            yield Entry(shard, items[begin - first : stop - first])
            at += stop - begin

    def outputs(self, *, buffer: int, buffer_bytes: int, n_bytes: Callable[[Entry], Sequence[int]]) -> Iterator[Output]:
        """Yield all items, one at a time, as they leave the buffer.

        Parameters
        ----------
        buffer : int
            Items that the buffer holds at most. It is filled gradually, so that the first item leaves
            it early.
        buffer_bytes : int
            Bytes that they take at most.
        n_bytes : callable
            Returns how many bytes each item of an entry takes.
        """
        if not self.shuffle:
            for i, entry in enumerate(self.entries):
                yield from (Output(i + 1, (Key(i, item),)) for item in entry.items.tolist())
            return
        draws = self._draws()
        held: list[tuple[Key, int]] = []
        total, n_entered = 0, 0
        for i, entry in enumerate(self.entries):
            for item, size in zip(entry.items.tolist(), n_bytes(entry), strict=True):
                held.append((Key(i, item), size))
                total, n_entered = total + size, n_entered + 1
                while len(held) > min(buffer, buffer // 8 + n_entered // 2) or (total > buffer_bytes and len(held) > 1):
                    key, taken = _taken(held, next(draws))
                    total -= taken
                    yield Output(i + 1, (key,))
        while held:
            key, _ = _taken(held, next(draws))
            yield Output(len(self.entries), (key,))

    def _draws(self) -> Iterator[float]:
        rng = self.rng(self._span.start, _BUFFER)
        while True:
            yield from rng.random(_DRAWS).tolist()


def _taken(held: list[tuple[Key, int]], draw: float) -> tuple[Key, int]:
    """Return an item of a buffer, in whose place the last one comes."""
    index = int(draw * len(held))
    held[index], held[-1] = held[-1], held[index]
    return held.pop()


def batches(outputs: Iterator[Output], batching: Batching, n_frames: Callable[[Key], int]) -> Iterator[Output]:
    """Yield items in batches, each of items of one bucket.

    What the buckets hold at the end of an epoch comes last, the shortest first, in batches of
    neighbouring buckets.

    Parameters
    ----------
    outputs : iterator of Output
        Of one item each.
    batching : Batching
    n_frames : callable
        Returns the length of an item.
    """
    pending = [_Batch(batching) for _ in range(len(batching.bounds) + 1)]
    n_entries = 0
    for n_entries, keys in outputs:
        for key in keys:
            length = n_frames(key)
            bucket = pending[int(np.searchsorted(batching.bounds, length, side="right"))]
            if full := bucket.add(key, length):
                yield Output(n_entries, full)
    if batching.drop_last:
        return
    last = _Batch(batching)
    for key, length in (pair for bucket in pending for pair in bucket.items):
        if full := last.add(key, length):
            yield Output(n_entries, full)
    if last.items:
        yield Output(n_entries, last.take())


class _Batch:
    """A batch that is filled."""

    def __init__(self, batching: Batching) -> None:
        self.items: list[tuple[Key, int]] = []
        self._batching = batching
        self._longest = 0

    def add(self, key: Key, length: int) -> tuple[Key, ...]:
        """Take an item in; return the batch that is full by that, or without it, else nothing."""
        done: tuple[Key, ...] = ()
        longest, most = max(self._longest, length), self._batching.frames
        if most is not None and self.items and longest * (len(self.items) + 1) > most:
            done, longest = self.take(), length
        self.items.append((key, length))
        self._longest = longest
        # No batch is full twice: one that was full has one item now.
        if not done and len(self.items) == self._batching.size:
            done = self.take()
        return done

    def take(self) -> tuple[Key, ...]:
        """Return the batch, and begin another one."""
        keys = tuple(key for key, _ in self.items)
        self.items, self._longest = [], 0
        return keys


def resumed(outputs: Iterator[Output], n_done: int) -> tuple[Iterator[Output], Mapping[int, Set[int]]]:
    """Go past the first `n_done` outputs.

    Returns
    -------
    iterator of Output
        What follows.
    mapping of int to set of int
        The items that were passed, by their entry. The others are still to come.
    """
    passed: defaultdict[int, set[int]] = defaultdict(set)
    for output in islice(outputs, n_done):
        for entry, item in output.keys:
            passed[entry].add(item)
    return outputs, passed
