"""The course of a training through its data: which segments make up batch number n, by arithmetic alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from melmill.storage.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The utterances wanted of one shard: their ids, their frames that have audio, and the bytes of their arrays."""

    shard: int
    ids: tuple[str, ...]
    n_frames: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """Shards that are in memory at a time, and the numbers within epoch `epoch` of the batches drawn from them."""

    epoch: int
    parts: tuple[Part, ...]
    numbers: range

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """Shard of every utterance, and its index in the part."""
        return [(part.shard, index) for part in self.parts for index in range(len(part.ids))]

    @cached_property
    def n_frames(self) -> NDArray[np.int64]:
        """Frames of every utterance."""
        return np.array([n for part in self.parts for n in part.n_frames], dtype=np.int64)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where every utterance ends, were their frames laid in a row."""
        return np.cumsum(self.n_frames)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a segment begins: frame `start` of the utterance that stands at `index` in its part of a shard."""

    shard: int
    index: int
    start: int


class Course:
    """Lay out epochs: an epoch goes once through all shards, in an order of its own, group by group.

    It has as many batches as hold the frames that there are, and each group its share of them in proportion to its
    frames, so that any batch is reached without looking at those before it.

    Parameters
    ----------
    parts : sequence of Part
        In order of shard.
    segment_frames, batch_size, seed : int
    group_bytes : int
        Most that a group holds; one shard at least.

    Raises
    ------
    StoreError
        There is no frame to draw.
    """

    def __init__(
        self, parts: Sequence[Part], *, segment_frames: int, batch_size: int, seed: int, group_bytes: int
    ) -> None:
        self.parts = parts
        self.segment_frames = segment_frames
        self.batch_size = batch_size
        self.seed = seed
        self.group_bytes = group_bytes
        self.n_frames = sum(sum(part.n_frames) for part in parts)
        if not self.n_frames:
            raise StoreError("there is nothing to draw segments from: no utterance of those wanted is a frame long")
        self.epoch_batches = max(1, round(self.n_frames / (segment_frames * batch_size)))

    def shares(self, first: int) -> Iterator[Share]:
        """Yield what to have in memory, from batch number `first` on, without end."""
        epoch, begin = divmod(first, self.epoch_batches)
        while True:
            done = 0
            for parts in self._groups(epoch):
                start = self.epoch_batches * done // self.n_frames
                done += sum(sum(part.n_frames) for part in parts)
                stop = self.epoch_batches * done // self.n_frames
                if max(start, begin) < stop:
                    yield Share(epoch=epoch, parts=parts, numbers=range(max(start, begin), stop))
            epoch, begin = epoch + 1, 0

    def drawn(self, share: Share, number: int) -> list[Place]:
        """Return the segments of a batch."""
        # Never zero: to a seed sequence, zeros at the end are nothing.
        rng = np.random.default_rng([self.seed, share.epoch, 1 + number])
        which = np.searchsorted(share.ends, rng.integers(share.ends[-1], size=self.batch_size), side="right")
        starts = rng.integers(np.maximum(share.n_frames[which] - self.segment_frames, 0) + 1)
        chosen = [share.places[i] for i in which]
        return [Place(shard, index, start) for (shard, index), start in zip(chosen, starts.tolist(), strict=True)]

    def _groups(self, epoch: int) -> Iterator[tuple[Part, ...]]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.parts))
        group: list[Part] = []
        for part in (self.parts[i] for i in order):
            if group and sum(other.n_bytes for other in group) + part.n_bytes > self.group_bytes:
                yield tuple(group)
                group = []
            group.append(part)
        yield tuple(group)
