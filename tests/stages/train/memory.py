"""A corpus in memory and a place for a state, to train small networks for a few steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import melmill
from melmill.stages.contract import Batch
from melmill.stages.numeric.errors import StageError
from melmill.stages.numeric.melspec import MelSpec
from melmill.storage.utterance import Utterance


def utterance(index: int, speaker: str, n_samples: int) -> Utterance:
    return Utterance(
        utterance_id=f"u{index}",
        subset="all",
        speaker_id=speaker,
        chapter_id="",
        text="<b>words</b>",
        path=f"u{index}.wav",
        size_bytes=1,
        mtime_ns=0,
        source_sr=8000,
        source_n_samples=n_samples,
        sr=8000,
        n_samples=n_samples,
    )


class Memory:
    """A corpus in memory: pieces of one recording at several speeds."""

    def __init__(self, voice: NDArray[np.float32], spec: MelSpec) -> None:
        self.spec = spec
        self.waves = {f"u{i}": np.ascontiguousarray(np.tile(voice, 2)[:: 2 + i % 3]) for i in range(10)}
        self.utterances = [utterance(i, f"s{i // 2}", self.waves[f"u{i}"].size) for i in range(10)]

    def whole(self, utterance_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        y = self.waves[utterance_id]
        return melmill.mel(y, self.spec), y

    def batches(
        self, ids: Collection[str], *, segment_frames: int, batch_size: int, seed: int, first: int = 0
    ) -> Iterator[Batch]:
        number = first
        while True:
            rng = np.random.default_rng([seed, number])
            pairs = [self.whole(str(name)) for name in rng.choice(sorted(ids), batch_size)]
            starts = [int(rng.integers(M.shape[1] - segment_frames)) for M, _ in pairs]
            mels = [M[:, s : s + segment_frames] for s, (M, _) in zip(starts, pairs, strict=True)]
            hop = self.spec.hop_length
            audio = [y[s * hop : (s + segment_frames) * hop] for s, (_, y) in zip(starts, pairs, strict=True)]
            yield np.stack(mels), np.stack([np.pad(y, (0, segment_frames * hop - y.size)) for y in audio])
            number += 1


class Place:
    """Keep a state in memory; stop the training after so many were saved."""

    def __init__(self, state: bytes | None = None, stop_after: int | None = None) -> None:
        self.state, self.stop_after = state, stop_after
        self.lines: list[str] = []

    def load(self) -> bytes | None:
        return self.state

    def save(self, state: bytes) -> None:
        self.state = state
        if self.stop_after is not None:
            self.stop_after -= 1
            if self.stop_after == 0:
                raise KeyboardInterrupt

    def note(self, line: str) -> None:
        self.lines.append(line)


def resumed_at_step_2(train: Callable[[Place], dict[str, bytes]]) -> dict[str, bytes]:
    """Return the files of a training that was stopped when it first saved, at step 2, and resumed."""
    place = Place(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        train(place)
    again = Place(place.state)
    files = train(again)
    assert again.lines[0] == "going on from step 2"
    return files


def assert_foreign_states_refused(train: Callable[..., dict[str, bytes]], **other: Any) -> None:
    """Assert that a training goes on neither from one with other fields nor from half a file."""
    place = Place()
    train(place, steps=2)
    with pytest.raises(StageError, match="can't be resumed"):
        train(Place(place.state), **other)
    with pytest.raises(StageError, match="can't be resumed"):
        train(Place(b"half a fi"))
