"""Corpora in memory, for the tests of readers."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from melmill.stages.contract import IngestStage, Outcome, Rejected, rejection
from melmill.storage.utterance import SourceFile, Utterance


@dataclass
class Tree:
    """A source tree in memory that counts what is read."""

    contents: dict[str, bytes]
    mtime_ns: int = 1
    n_read: int = field(default=0)

    def walk(self) -> Iterator[SourceFile]:
        return (
            SourceFile(path=path, size_bytes=len(data), mtime_ns=self.mtime_ns)
            for path, data in sorted(self.contents.items())
        )

    def head(self, path: str, n: int) -> bytes:
        return self.read(path)[:n]

    def read(self, path: str) -> bytes:
        self.n_read += 1
        return self.contents[path]

    def files(self, paths: Iterable[str]) -> dict[str, SourceFile]:
        wanted = set(paths)
        return {file.path: file for file in self.walk() if file.path in wanted}

    def members(self, path: str) -> Iterator[SourceFile]:
        raise FileNotFoundError(path)

    def rows(self, path: str, columns: Sequence[str] | None = None) -> Iterator[Mapping[str, Any]]:
        raise FileNotFoundError(path)


def flac(y: NDArray[Any], sr: int = 16000, kind: str = "FLAC", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, y, sr, format=kind, subtype=subtype)
    return file.getvalue()


def tone(n_samples: int = 8000, sr: int = 16000, level: float = 0.5) -> NDArray[np.int16]:
    wave = level * 32767 * np.sin(2 * np.pi * 440 * np.arange(n_samples) / sr)
    return np.rint(wave).astype(np.int16)


def ids(found: list[Utterance]) -> list[str]:
    return [u.utterance_id for u in found]


def outcome_of(stage: IngestStage, utterance: Utterance, data: bytes) -> Outcome:
    """Ingest a file as a task does: an exception rejects the utterance."""
    try:
        return stage.ingest(utterance, data)
    except Exception as error:
        return Outcome(rejected=rejection(error))


def rejected(outcome: Outcome) -> Rejected:
    assert outcome.array is None
    assert outcome.rejected is not None
    return outcome.rejected
