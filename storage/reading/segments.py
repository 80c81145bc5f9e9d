"""Aligned segments for a training, drawn from whole shards in memory while the next are read.

- The course of a training through its data: which segments make up batch number n, by arithmetic alone.
- Mels and the audio that they are of, aligned: frame `n` begins with sample ``n * hop_length``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.storage.arrays import ArraySpec
from melmill.storage.errors import StoreError
from melmill.storage.product import ProductDescription
from melmill.storage.reading.views import ProductView
from melmill.storage.utterance import Utterance, as_float, resampled_length, silence


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


def check_aligned(mel: ProductDescription, audio: ProductDescription) -> None:
    """Raise StoreError unless one product holds mels and the other the audio that they are of."""
    if mel.kind != "mel" or audio.kind not in ("waveform", "utterances"):
        raise StoreError(f"mel={mel.node!r} makes {mel.kind} and audio={audio.node!r} {audio.kind}")
    if (mel.sr, mel.catalogue) != (audio.sr, audio.catalogue):
        raise StoreError(
            f"{audio.node!r} is not the audio of {mel.node!r}: sr is {audio.sr} Hz, not {mel.sr} Hz, or it is "
            f"of another corpus ({audio.catalogue} and {mel.catalogue})"
        )


def aligned_frames(spec: ArraySpec, utterance: Utterance) -> int:
    """Return how many frames of an utterance's mel have audio of a whole hop."""
    n_samples = resampled_length(utterance.n_samples, utterance.sr, spec.sr)
    # The last frames of a centred mel reach beyond the audio.
    return min(spec.length(utterance), n_samples // spec.hop_length)


def silence_of(mel: ProductDescription) -> float:
    """Return the value of digital silence in a product of mels; raise StoreError where it does not say its spec."""
    if mel.mel is None:
        raise StoreError(f"{mel.node!r} does not say how its mels were made")
    return silence(mel.mel)


def filled(array: NDArray[Any], length: int, value: float) -> NDArray[np.float32]:
    """Return an array as float32, its last axis filled up to `length` with `value`."""
    whole = np.full((*array.shape[:-1], length), value, dtype=np.float32)
    whole[..., : array.shape[-1]] = array
    return whole


# Of the arrays held at a time: enough shards that a batch mixes recordings of many lengths and speakers. In memory are
# two such groups, the one that is drawn from and the one that is read, and three times the shard that is decoded.
GROUP_BYTES = 256 * 2**20

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]
_Pair = tuple[NDArray[Any], NDArray[Any]]
_Held = Mapping[int, Sequence[_Pair]]


class Segments:
    """Give the mels and the audio of two products of one corpus, whole or in segments drawn at random.

    Parameters
    ----------
    mel, audio : ProductView
        Of mels, and of waveforms at the same rate.
    ids : collection of str or None
        Utterances that there are to be, of those that both hold; None: all.
    group_bytes : int
        Most that the arrays take which segments are drawn from at a time; one shard at least. Batches depend on it.

    Raises
    ------
    StoreError
        Where the products don't fit together.
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
        """Those that both products hold, in the catalogue's order."""
        return [
            utterance
            for utterance in self._mel.catalogue.utterances()
            if utterance.utterance_id in self._mel
            and utterance.utterance_id in self._audio
            and (self._ids is None or utterance.utterance_id in self._ids)
        ]

    def whole(self, utterance_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the mel ``(n_mels, n_frames)`` and the audio ``(n_samples,)``, in [-1, 1), of an utterance."""
        return self._mel[utterance_id].astype(np.float32, copy=False), as_float(self._audio[utterance_id])

    def batches(
        self, ids: Collection[str], *, segment_frames: int, batch_size: int, seed: int, first: int = 0
    ) -> Iterator[Batch]:
        """Return segments of the utterances `ids` without end: an epoch after another, each in an order of its own.

        A segment begins anywhere with equal chances, in a longer utterance more often than in a shorter one. What an
        utterance lacks to a whole segment is silence.

        Parameters
        ----------
        ids : collection of str
        segment_frames : int
        batch_size : int
        seed : int
        first : int
            Number of the batch to begin with; nothing before it is read.

        Returns
        -------
        iterator of (ndarray of float32, ndarray of float32)
            Mels ``(batch_size, n_mels, segment_frames)`` and audio ``(batch_size, segment_frames * hop_length)``.

        Raises
        ------
        StoreError
            An utterance is not among `utterances`, or none has a frame.
        """
        for name, value in (("segment_frames", segment_frames), ("batch_size", batch_size)):
            if value < 1:
                raise StoreError(f"{name} must be at least 1, got {value!r}")
        course = Course(
            self._parts(ids),
            segment_frames=segment_frames,
            batch_size=batch_size,
            seed=seed,
            group_bytes=self._group_bytes,
        )
        return self._stream(course, first)

    def _stream(self, course: Course, first: int) -> Iterator[Batch]:
        shares = course.shares(first)
        with ThreadPoolExecutor(1, "segments") as reader:
            share = next(shares)
            loading = reader.submit(self._loaded, share, {})
            while True:
                held = loading.result()
                following = next(shares)
                loading = reader.submit(self._loaded, following, held)
                for number in share.numbers:
                    yield self._batch(course, share, number, held)
                share = following

    def _loaded(self, share: Share, held: _Held) -> _Held:
        """Return the arrays of a share by shard, those of `held` taken over."""
        return {part.shard: held.get(part.shard) or self._read(part) for part in share.parts}

    def _read(self, part: Part) -> Sequence[_Pair]:
        shard = self._mel.catalogue.shard(part.shard)
        mels, audio = (view.folder.read_arrays(shard, part.ids) for view in (self._mel, self._audio))
        return [(mels[name], audio[name]) for name in part.ids]

    def _batch(self, course: Course, share: Share, number: int, held: _Held) -> Batch:
        length, hop_length = course.segment_frames, self._mel.folder.array_spec.hop_length
        mels, audio = [], []
        for place in course.drawn(share, number):
            M, y = held[place.shard][place.index]
            begin, end = place.start, place.start + length
            mels.append(filled(M[:, begin:end], length, self._silence))
            audio.append(filled(as_float(y[begin * hop_length : end * hop_length]), length * hop_length, 0.0))
        return np.stack(mels), np.stack(audio)

    def _parts(self, ids: Collection[str]) -> list[Part]:
        """Return what is wanted of every shard, in order."""
        wanted = frozenset(ids)
        missing = wanted - {utterance.utterance_id for utterance in self.utterances}
        if missing:
            raise StoreError(f"{len(missing)} of the ids have no mel or no audio, e.g. {min(missing)!r}")
        shards: dict[int, list[Utterance]] = {}
        for utterance in self.utterances:
            if utterance.utterance_id in wanted:
                shards.setdefault(self._mel.catalogue.shard_of(utterance.utterance_id), []).append(utterance)
        return [self._part(shard, utterances) for shard, utterances in shards.items()]

    def _part(self, shard: int, utterances: Sequence[Utterance]) -> Part:
        specs = (self._mel.folder.array_spec, self._audio.folder.array_spec)
        return Part(
            shard=shard,
            ids=tuple(utterance.utterance_id for utterance in utterances),
            n_frames=tuple(aligned_frames(specs[0], utterance) for utterance in utterances),
            n_bytes=sum(
                int(np.prod(spec.shape(utterance))) * np.dtype(spec.dtype).itemsize
                for utterance in utterances
                for spec in specs
            ),
        )

    @cached_property
    def _silence(self) -> float:
        return silence_of(self._mel.description)
