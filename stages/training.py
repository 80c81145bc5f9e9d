"""What a stage that trains is given: data to learn from, and a place to resume from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from melmill.storage.utterance import Utterance

# Mels (batch, n_mels, segment_frames), and their audio (batch, segment_frames * hop_length) in [-1, 1).
Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


class TrainingData(Protocol):
    """The aligned mels and recordings that a training reads."""

    @property
    def utterances(self) -> Sequence[Utterance]:
        """Those that both inputs hold, in the catalogue's order."""
        ...

    def whole(self, utterance_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the mel ``(n_mels, n_frames)`` and the recording ``(n_samples,)``, in [-1, 1), of an utterance."""
        ...

    def batches(
        self, ids: Collection[str], *, segment_frames: int, batch_size: int, seed: int, first: int = 0
    ) -> Iterator[Batch]:
        """Return segments of the utterances `ids` without end.

        Batch number n is a function of `ids`, `segment_frames`, `batch_size`, `seed` and n alone.

        Parameters
        ----------
        ids : collection of str
        segment_frames : int
            Length of a segment, frames; what a shorter utterance lacks is silence.
        batch_size : int
        seed : int
        first : int
            Number of the batch to begin with.
        """
        ...


class TrainingPlace(Protocol):
    """Where a training keeps what it resumes from, and says how it goes."""

    def load(self) -> bytes | None:
        """Return the state that was saved last; None for a fresh start."""
        ...

    def save(self, state: bytes) -> None:
        """Keep a state in place of the last one, atomically and durably."""
        ...

    def note(self, line: str) -> None:
        """Tell people how it goes: a line now and then."""
        ...
