"""Stages that do nothing, to measure the cost of the machinery around them.

They are registered as the stages of another package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import repeat
from os import environ, pathsep
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from melmill.stages.contract import CorpusTree, Discovery, Input, Item, Kind, Outcome, Product, Waveform
from melmill.stages.ingest.known import Known
from melmill.storage.utterance import Utterance

SR = 16000
MTIME_NS = 1
_TEXT = "THE EVENING LIGHT LAY UPON THE HILLS " * 4
# Utterances of a chapter, of which a speaker has a hundred.
_CHAPTER = 50
# Files that are listed at a time.
_LISTED = 320 * _CHAPTER

_ENTRY_POINTS = "[melmill.stages]\nnoop_corpus = benchmarks.noop:NoopCorpus\nnoop = benchmarks.noop:Noop\n"


@dataclass(frozen=True, kw_only=True)
class NoopCorpus:
    """List utterances that have no files.

    Parameters
    ----------
    n_utterances : int
    duration_s : float
        Of each utterance.
    """

    uses: ClassVar[str] = "noop_corpus"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {}

    n_utterances: int
    duration_s: float = 6.0
    root: str = "."

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the catalogue."""
        return {"n_utterances": self.n_utterances, "duration_s": self.duration_s}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Return waveforms with a catalogue."""
        del inputs
        return Waveform(sr=SR, dtype="int16", corpus=True)

    def discover(self, tree: CorpusTree, known: Mapping[str, Utterance]) -> Discovery:
        """Return names and texts as long as those of LibriSpeech."""
        del tree
        return Discovery(further=self._found(known))

    def _found(self, known: Mapping[str, Utterance]) -> Iterator[Utterance]:
        n_samples = int(self.duration_s * SR)
        for first in range(0, self.n_utterances, _LISTED):
            last = min(first + _LISTED, self.n_utterances)
            chapters = range(first // _CHAPTER, -(-last // _CHAPTER))
            found = [(i // 100, i, range(_CHAPTER * i, min(_CHAPTER * (i + 1), last))) for i in chapters]
            names = [f"{speaker}-{chapter}-{i:08d}" for speaker, chapter, files in found for i in files]
            folders = [folder for i, j, files in found for folder in repeat(f"train/{i}/{j}", len(files))]
            paths = [f"{folder}/{name}.flac" for folder, name in zip(folders, names, strict=True)]
            if isinstance(known, Known):
                kept = known.keep(paths, [n_samples] * len(paths), [MTIME_NS] * len(paths))
                if kept.all():
                    continue
                new = np.flatnonzero(~kept).tolist()
                names, folders, paths = ([column[i] for i in new] for column in (names, folders, paths))
            for name, folder, path in zip(names, folders, paths, strict=True):
                _, speaker, chapter = folder.split("/")
                yield Utterance(
                    utterance_id=name,
                    subset="train",
                    speaker_id=speaker,
                    chapter_id=chapter,
                    text=f"{name} {_TEXT}",
                    path=path,
                    size_bytes=n_samples,
                    mtime_ns=MTIME_NS,
                    source_sr=SR,
                    source_n_samples=n_samples,
                    sr=SR,
                    n_samples=n_samples,
                )

    def ingest(self, utterance: Utterance, data: bytes) -> Outcome:
        """Return silence."""
        del data
        return Outcome(array=np.zeros(utterance.n_samples, dtype=np.int16))


@dataclass(frozen=True, kw_only=True)
class Noop:
    """Return the input."""

    uses: ClassVar[str] = "noop"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    def identity(self) -> Mapping[str, Any]:
        """Return every field."""
        return asdict(self)

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Return waveforms."""
        del inputs
        return Waveform(sr=SR, dtype="int16")

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return what comes in."""
        del inputs, product
        return [Outcome(array=item.inputs["from"]) for item in items]


@contextmanager
def registered(folder: Path) -> Iterator[None]:
    """Let processes that start in the block find these stages.

    The metadata goes into `folder`, as an installer would write it.
    """
    facts = folder / "noop-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: noop\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(_ENTRY_POINTS)
    before = environ.get("PYTHONPATH")
    environ["PYTHONPATH"] = pathsep.join(filter(None, [str(Path(__file__).parents[1]), str(folder), before]))
    try:
        yield
    finally:
        if before is None:
            del environ["PYTHONPATH"]
        else:
            environ["PYTHONPATH"] = before
