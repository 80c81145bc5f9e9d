"""Aligned segments of mels and audio for a training.

Frame `n` of a mel begins at sample ``n * hop_length`` of its audio. Segments are drawn from whole
shards in memory while the next shards are read. Which segments are in batch `n` follows from the
seed and the lengths alone, so a training can resume at any batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from melmill.pcm import as_float
from melmill.storage.arrays import Array, ArraySpec
from melmill.storage.errors import StoreError
from melmill.storage.product import ProductDescription
from melmill.storage.reading.views import ProductView
from melmill.storage.utterance import Utterance, resampled_length, silence


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPart:
    """The wanted utterances of one shard.

    Parameters
    ----------
    shard : int
    ids : tuple of str
    n_frames : tuple of int
        Of each utterance, those that have audio of a whole hop.
    n_bytes : int
        Of their arrays together.
    """

    shard: int
    ids: tuple[str, ...]
    n_frames: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True, kw_only=True)
class ShardGroup:
    """Shards that are in memory together, and the batches that are drawn from them.

    Parameters
    ----------
    epoch : int
    parts : tuple of ShardPart
    numbers : range
        Of the batches, within the epoch.
    """

    epoch: int
    parts: tuple[ShardPart, ...]
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
        """Cumulative frames: the end of every utterance if all frames are in a row."""
        return np.cumsum(self.n_frames)


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """The start of a segment: frame `start` of the wanted utterance number `index` of a shard."""

    shard: int
    index: int
    start: int


class EpochOrder:
    """The order in which epochs go through shards. Each epoch has another one.

    An epoch reads each shard once, group by group. It has as many batches as its frames fill. Each
    group has batches in proportion to its frames. So any batch is reached without those before it.

    Parameters
    ----------
    parts : sequence of ShardPart
        In order of shard.
    segment_frames, batch_size, seed : int
    group_bytes : int
        Most that the arrays of a group take. A group has at least one shard.

    Raises
    ------
    StoreError
        There is no frame to draw.
    """

    def __init__(
        self, parts: Sequence[ShardPart], *, segment_frames: int, batch_size: int, seed: int, group_bytes: int
    ) -> None:
        self.parts = parts
        self.segment_frames = segment_frames
        self.batch_size = batch_size
        self.seed = seed
        self.group_bytes = group_bytes
        self.n_frames = sum(sum(part.n_frames) for part in parts)
        if not self.n_frames:
            raise StoreError("there is nothing to draw segments from: no wanted utterance is a frame long")
        self.epoch_batches = max(1, round(self.n_frames / (segment_frames * batch_size)))

    def groups(self, first: int) -> Iterator[ShardGroup]:
        """Yield the groups to have in memory, from batch number `first` on, without end."""
        epoch, begin = divmod(first, self.epoch_batches)
        while True:
            done = 0
            for parts in self._epoch(epoch):
                start = self.epoch_batches * done // self.n_frames
                done += sum(sum(part.n_frames) for part in parts)
                stop = self.epoch_batches * done // self.n_frames
                if max(start, begin) < stop:
                    yield ShardGroup(epoch=epoch, parts=parts, numbers=range(max(start, begin), stop))
            epoch, begin = epoch + 1, 0

    def segments(self, group: ShardGroup, number: int) -> list[SegmentStart]:
        """Return where the segments of a batch begin."""
        # One is added because a seed sequence ignores zeros at its end.
        rng = np.random.default_rng([self.seed, group.epoch, 1 + number])
        which = np.searchsorted(group.ends, rng.integers(group.ends[-1], size=self.batch_size), side="right")
        starts = rng.integers(np.maximum(group.n_frames[which] - self.segment_frames, 0) + 1)
        chosen = [group.places[i] for i in which]
        return [
            SegmentStart(shard, index, start) for (shard, index), start in zip(chosen, starts.tolist(), strict=True)
        ]

    def _epoch(self, epoch: int) -> Iterator[tuple[ShardPart, ...]]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.parts))
        group: list[ShardPart] = []
        for part in (self.parts[i] for i in order):
            if group and sum(other.n_bytes for other in group) + part.n_bytes > self.group_bytes:
                yield tuple(group)
                group = []
            group.append(part)
        yield tuple(group)


def check_aligned(mel: ProductDescription, audio: ProductDescription) -> None:
    """Raise StoreError unless one product holds mels and the other their audio."""
    if mel.kind != "mel" or audio.kind not in ("waveform", "utterances"):
        raise StoreError(
            f"mel={mel.node!r} makes {mel.kind} and audio={audio.node!r} makes {audio.kind}: expected mel and waveform"
        )
    if (mel.sr, mel.catalogue) != (audio.sr, audio.catalogue):
        raise StoreError(
            f"{audio.node!r} is not the audio of {mel.node!r}: sr is {audio.sr} Hz, not {mel.sr} Hz, or it is "
            f"of another corpus ({audio.catalogue} and {mel.catalogue})"
        )


def aligned_frames(spec: ArraySpec, utterance: Utterance) -> int:
    """Return how many frames of an utterance's mel have audio of a whole hop."""
    n_samples = resampled_length(utterance.n_samples, utterance.sr, spec.sr)
    # The last frames of a centred mel go beyond the audio.
    return min(spec.length(utterance), n_samples // spec.hop_length)


def silence_of(mel: ProductDescription) -> float | NDArray[np.float64]:
    """Return the value of digital silence in a product of mels, as `silence` does.

    Raises
    ------
    StoreError
        It has no mel spec.
    """
    if mel.mel is None:
        raise StoreError(f"{mel.node!r} does not say how its mels were made")
    return silence(mel.mel)


def stacked(
    arrays: Sequence[Array], value: float | NDArray[np.float64], length: int | None = None
) -> NDArray[np.float32]:
    """Return arrays as float32 in one, with their last axis padded to `length`, or to the longest.

    Waveforms of int16 are in [-1, 1) then.
    """
    longest = max(array.shape[-1] for array in arrays) if length is None else length
    whole = np.empty((len(arrays), *arrays[0].shape[:-1], longest), dtype=np.float32)
    fill(whole, arrays, value)
    return whole


def fill(whole: NDArray[np.float32], arrays: Sequence[Array], value: float | NDArray[np.float64]) -> None:
    """Write arrays into one, as `stacked` does."""
    for one, array in zip(whole, arrays, strict=True):
        n = array.shape[-1]
        one[..., :n] = as_float(array)
        one[..., n:] = value


# Arrays of a group. It has enough shards that a batch mixes many lengths and speakers. In memory
# are two groups, one to draw from and one that is read, and three times the shard that is decoded.
GROUP_BYTES = 256 * 2**20

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]
_Pair = tuple[Array, Array]
# Mels and audio of the wanted utterances, by shard.
_Arrays = Mapping[int, Sequence[_Pair]]


class Segments:
    """The mels and the audio of two products of one corpus, whole or in random segments.

    Parameters
    ----------
    mel, audio : ProductView
        Of mels, and of waveforms at the same rate.
    ids : collection of str or None
        Utterances to use of those that both products have. None for all.
    group_bytes : int
        Most that the arrays of a group take. Batches depend on it.

    Raises
    ------
    StoreError
        The products don't fit together.
    """

    def __init__(
        self,
        mel: ProductView,
        audio: ProductView,
        ids: Collection[str] | None = None,
        *,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        check_aligned(mel.description, audio.description)
        self._mel = mel
        self._audio = audio
        self._ids = None if ids is None else frozenset(ids)
        self._group_bytes = group_bytes

    @cached_property
    def utterances(self) -> Sequence[Utterance]:
        """Utterances that both products have, in the catalogue's order."""
        return [
            utterance
            for utterance in self._mel.catalogue.utterances()
            if utterance.utterance_id in self._mel
            and utterance.utterance_id in self._audio
            and (self._ids is None or utterance.utterance_id in self._ids)
        ]

    def whole(self, utterance_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return an utterance's mel ``(n_mels, n_frames)`` and audio ``(n_samples,)``.

        The audio is in [-1, 1).
        """
        return self._mel[utterance_id].astype(np.float32, copy=False), as_float(self._audio[utterance_id])

    def batches(
        self, ids: Collection[str], *, segment_frames: int, batch_size: int, seed: int, first: int = 0
    ) -> Iterator[Batch]:
        """Yield batches of segments of the utterances `ids` without end, one epoch after another.

        Every start of a segment is equally likely, so longer utterances are drawn more often. An
        utterance shorter than a segment is padded with silence.

        Parameters
        ----------
        ids : collection of str
        segment_frames : int
        batch_size : int
        seed : int
        first : int
            Number of the first batch. Nothing before it is read.

        Returns
        -------
        iterator of (ndarray of float32, ndarray of float32)
            Mels ``(batch_size, n_mels, segment_frames)`` and their audio
            ``(batch_size, segment_frames * hop_length)``.

        Raises
        ------
        StoreError
            An utterance is not among `utterances`, or none has a frame.
        """
        for name, value in (("segment_frames", segment_frames), ("batch_size", batch_size)):
            if value < 1:
                raise StoreError(f"{name} must be at least 1, got {value!r}")
        order = EpochOrder(
            self._parts(ids),
            segment_frames=segment_frames,
            batch_size=batch_size,
            seed=seed,
            group_bytes=self._group_bytes,
        )
        return self._stream(order, first)

    def _stream(self, order: EpochOrder, first: int) -> Iterator[Batch]:
        groups = order.groups(first)
        with ThreadPoolExecutor(1, "segments") as reader:
            group = next(groups)
            loading = reader.submit(self._load, group, {})
            while True:
                arrays = loading.result()
                following = next(groups)
                loading = reader.submit(self._load, following, arrays)
                for number in group.numbers:
                    yield self._batch(order, group, number, arrays)
                group = following

    def _load(self, group: ShardGroup, loaded: _Arrays) -> _Arrays:
        """Return the arrays of a group by shard, reading those that are not `loaded`."""
        arrays = {}
        for part in group.parts:
            if part.shard in loaded:
                arrays[part.shard] = loaded[part.shard]
                continue
            shard = self._mel.catalogue.shard(part.shard)
            mels, audio = (view.folder.read_arrays(shard, part.ids) for view in (self._mel, self._audio))
            arrays[part.shard] = [(mels[name], audio[name]) for name in part.ids]
        return arrays

    def _batch(self, order: EpochOrder, group: ShardGroup, number: int, arrays: _Arrays) -> Batch:
        length, hop_length = order.segment_frames, self._mel.folder.array_spec.hop_length
        mels, audio = [], []
        for segment in order.segments(group, number):
            M, y = arrays[segment.shard][segment.index]
            begin, end = segment.start, segment.start + length
            mels.append(M[:, begin:end])
            audio.append(y[begin * hop_length : end * hop_length])
        return stacked(mels, self._silence, length), stacked(audio, 0.0, length * hop_length)

    def _parts(self, ids: Collection[str]) -> list[ShardPart]:
        """Return the wanted part of every shard, in order."""
        wanted = frozenset(ids)
        missing = wanted - {utterance.utterance_id for utterance in self.utterances}
        if missing:
            raise StoreError(f"{len(missing)} of the ids have no mel or no audio, e.g. {min(missing)!r}")
        shards: dict[int, list[Utterance]] = {}
        for utterance in self.utterances:
            if utterance.utterance_id in wanted:
                shards.setdefault(self._mel.catalogue.shard_of(utterance.utterance_id), []).append(utterance)
        specs = (self._mel.folder.array_spec, self._audio.folder.array_spec)
        return [
            ShardPart(
                shard=shard,
                ids=tuple(utterance.utterance_id for utterance in utterances),
                n_frames=tuple(aligned_frames(specs[0], utterance) for utterance in utterances),
                n_bytes=sum(
                    int(np.prod(spec.shape(utterance))) * np.dtype(spec.dtype).itemsize
                    for utterance in utterances
                    for spec in specs
                ),
            )
            for shard, utterances in shards.items()
        ]

    @cached_property
    def _silence(self) -> float | NDArray[np.float64]:
        return silence_of(self._mel.description)
