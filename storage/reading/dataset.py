"""Aligned segments of mels and audio for training, as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch.utils.data import Dataset

from melmill.storage.errors import StoreError
from melmill.storage.reading.rows import Rows, Selection, present
from melmill.storage.reading.segments import check_aligned, stacked
from melmill.storage.reading.tracks import Track, Tracks
from melmill.storage.store import Store
from melmill.storage.utterance import Shard

# Shards whose utterances a worker knows. Their arrays are not kept.
_KNOWN_SHARDS = 1024

Segment = tuple[torch.Tensor, torch.Tensor]


def torch_dataset(
    store: Store | str,
    mel: str = "mel",
    audio: str = "speech",
    *,
    segment_frames: int = 64,
    ids: Sequence[str] | None = None,
    seed: int = 0,
) -> SegmentDataset:
    """Return a map-style dataset of one random segment per utterance that both nodes have.

    Parameters
    ----------
    store : Store or str
        The store, or its path or URL.
    mel, audio : str
        Nodes of the last run: mels, and waveforms at the same rate.
    segment_frames : int
        Length of a segment, frames.
    ids : sequence of str or None
        Utterances to use. None for all.
    seed : int
        With the epoch and the index, it decides where a segment begins. The number of workers does
        not matter.

    Returns
    -------
    SegmentDataset
        An item is ``(mel, audio)``: float32 tensors ``(n_mels, segment_frames)`` and
        ``(segment_frames * hop_length,)``, the audio in [-1, 1).

    Raises
    ------
    StoreError
        The nodes don't fit together, or an utterance of `ids` is missing.
    """
    store = Store.open(store) if isinstance(store, str) else store
    mels, waveforms = store[mel], store[audio]
    check_aligned(mels.description, waveforms.description)
    if segment_frames < 1:
        raise StoreError(f"segment_frames must be at least 1, got {segment_frames!r}")
    mask = present([mels, waveforms], ids)
    catalogue = mels.description.catalogue
    if catalogue is None:
        raise StoreError(f"{mels.folder.location.url} has no catalogue")
    return SegmentDataset(
        [Track(name="mel", folder=mels.folder), Track(name="audio", folder=waveforms.folder)],
        Selection.of(store.location, catalogue, mask),
        list(ids or (name for name in mels if name in waveforms)),
        segment_frames,
        seed,
    )


class SegmentDataset(Dataset[Segment]):
    """Segments of mels and their audio.

    Mels are ``(n_mels, segment_frames)`` and audio ``(segment_frames * hop_length,)``. Both are
    float32, audio in [-1, 1). An utterance shorter than a segment is padded with silence.
    `torch_dataset` makes one. Each worker process opens the files itself.
    """

    def __init__(
        self, tracks: Sequence[Track], selection: Selection, ids: Sequence[str], segment_frames: int, seed: int
    ) -> None:
        self.ids = ids
        self.segment_frames = segment_frames
        self.seed = seed
        self._named = tuple(tracks)
        self._selection = selection
        # In shared memory, so that workers that live for many epochs see the change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Choose the segments of an epoch, which differ from those of others."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Segment:
        name, tracks, rows = self.ids[index], self._tracks, self._rows
        number = self._numbers[name]
        n_starts = tracks.n_starts(tracks.n_frames(int(rows.n_samples[number]), rows.sr))
        place = int(np.random.default_rng([self.seed, int(self._epoch), index]).integers(n_starts))
        shard = self._shard(rows.shard_of(number))
        lengths = tracks.lengths or []
        M, y = (
            stacked(track.folder.read_parts(shard, [(name, part)]), track.padding, length)[0]
            for track, part, length in zip(tracks.tracks, tracks.parts(place), lengths, strict=True)
        )
        return torch.from_numpy(M), torch.from_numpy(y)

    @cached_property
    def _rows(self) -> Rows:
        return self._selection.rows()

    @cached_property
    def _numbers(self) -> dict[str, int]:
        rows = self._rows
        return {rows.utterance_id(number): number for number in range(len(rows.chosen))}

    @cached_property
    def _tracks(self) -> Tracks:
        return Tracks(self._named, self.segment_frames)

    @cached_property
    def _shard(self) -> Callable[[int], Shard]:
        return lru_cache(_KNOWN_SHARDS)(self._rows.shard)

    def __getstate__(self) -> dict[str, object]:
        opened = ("_rows", "_numbers", "_tracks", "_shard")
        return {name: value for name, value in self.__dict__.items() if name not in opened}
