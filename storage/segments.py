"""Aligned segments for a training, drawn from whole shards in memory while the next are read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.storage.aligned import aligned_frames, as_float, check_aligned, filled, silence_of
from melmill.storage.course import Course, Part, Share
from melmill.storage.errors import StoreError
from melmill.storage.utterance import Utterance
from melmill.storage.view import ProductView

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
