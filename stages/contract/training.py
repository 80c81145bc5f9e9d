"""What a training is given: aligned mels and recordings, and a place for its state."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from melmill.storage.utterance import Utterance

# Mels (batch, n_mels, segment_frames), and their audio in [-1, 1)
# (batch, segment_frames * hop_length).
Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


class TrainingData(Protocol):
    """The aligned mels and recordings that a training reads."""

    @property
    def utterances(self) -> Sequence[Utterance]:
        """Utterances that both inputs hold, in the order of the catalogue."""
        ...

    def whole(self, utterance_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the mel ``(n_mels, n_frames)`` of an utterance, and its recording.

        The recording has the shape ``(n_samples,)`` and values in [-1, 1).
        """
        ...

    def batches(
        self, ids: Collection[str], *, segment_frames: int, batch_size: int, seed: int, first: int = 0
    ) -> Iterator[Batch]:
        """Return batches of segments of some utterances, without end.

        Batch number n is a function of `ids`, `segment_frames`, `batch_size`, `seed` and n alone.

        Parameters
        ----------
        ids : collection of str
            Ids of the utterances.
        segment_frames : int
            Length of a segment, frames. A shorter utterance is padded with silence.
        batch_size : int
            Segments of a batch.
        seed : int
        first : int
            Number of the first batch.
        """
        ...


class TrainingPlace(Protocol):
    """The place where a training keeps its state, and reports its progress."""

    def load(self) -> bytes | None:
        """Return the state that was saved last, or None for a fresh start."""
        ...

    def save(self, state: bytes) -> None:
        """Save a state in place of the last one, atomically and durably."""
        ...

    def note(self, line: str) -> None:
        """Report progress to people, in one line."""
        ...
