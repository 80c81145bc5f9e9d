"""Aligned segments of mels and audio for training, as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from melmill.pcm import as_float
from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import StoreError
from melmill.storage.files.location import Location
from melmill.storage.product import ProductFolder
from melmill.storage.reading.segments import aligned_frames, check_aligned, padded, silence_of
from melmill.storage.store import Store

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
    present = [name for name in mels if name in waveforms]
    missing = set(ids or ()) - set(present)
    if missing:
        raise StoreError(f"{len(missing)} of the ids are not in both {mel!r} and {audio!r}, e.g. {min(missing)!r}")
    return SegmentDataset(mels.folder, waveforms.folder, store.location, list(ids or present), segment_frames, seed)


class SegmentDataset(Dataset[Segment]):
    """Segments of mels and their audio.

    Mels are ``(n_mels, segment_frames)`` and audio ``(segment_frames * hop_length,)``. Both are
    float32, audio in [-1, 1). An utterance shorter than a segment is padded with silence.
    `torch_dataset` makes one. Each worker process opens the files itself.
    """

    def __init__(
        self,
        mel: ProductFolder,
        audio: ProductFolder,
        store: Location,
        ids: Sequence[str],
        segment_frames: int,
        seed: int,
    ) -> None:
        self.ids = ids
        self.segment_frames = segment_frames
        self.seed = seed
        self._mel = mel
        self._audio = audio
        self._store = store
        # In shared memory, so that workers that live for many epochs see the change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Choose the segments of an epoch, which differ from those of others."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Segment:
        utterance_id = self.ids[index]
        shard = self._catalogue.shard(self._catalogue.shard_of(utterance_id))
        utterance = next(u for u in shard.utterances if u.utterance_id == utterance_id)
        spec = self._mel.array_spec
        n_starts = max(0, aligned_frames(spec, utterance) - self.segment_frames) + 1
        start = int(np.random.default_rng([self.seed, int(self._epoch), index]).integers(n_starts))
        frames = slice(start, start + self.segment_frames)
        samples = slice(frames.start * spec.hop_length, frames.stop * spec.hop_length)
        M = self._mel.read_array(shard, utterance_id, frames)
        y = self._audio.read_array(shard, utterance_id, samples)
        return (
            torch.from_numpy(padded(M, self.segment_frames, self._silence)),
            torch.from_numpy(padded(as_float(y), self.segment_frames * spec.hop_length, 0.0)),
        )

    @cached_property
    def _catalogue(self) -> Catalogue:
        catalogue = self._mel.description.catalogue
        if catalogue is None:
            raise StoreError(f"{self._mel.location.url} has no catalogue")
        return Store(self._store).catalogue_at(catalogue)

    @cached_property
    def _silence(self) -> float | NDArray[np.float64]:
        return silence_of(self._mel.description)

    def __getstate__(self) -> dict[str, object]:
        opened = ("_catalogue", "_silence")
        return {name: value for name, value in self.__dict__.items() if name not in opened}
