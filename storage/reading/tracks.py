"""Products of the same utterances that are cut at the same time.

An entry of a track lasts its hop: a frame of a mel, or a sample. Entry `n` begins `n` hops after the
recording does. Segments begin where an entry of every track begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache, reduce
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

from melmill.storage.arrays import ArraySpec
from melmill.storage.errors import StoreError
from melmill.storage.product import ProductFolder
from melmill.storage.reading.segments import silence_of

# Lengths of recordings whose frames are remembered.
_LENGTHS = 2**17


@dataclass(frozen=True, kw_only=True)
class Track:
    """A product that is cut.

    Parameters
    ----------
    name : str
        What its arrays are called in an item.
    folder : ProductFolder
    """

    name: str
    folder: ProductFolder

    @property
    def spec(self) -> ArraySpec:
        """Layout of its arrays."""
        return self.folder.array_spec

    @property
    def hop_s(self) -> Fraction:
        """Length of an entry, s."""
        return Fraction(self.spec.hop_length, self.spec.sr)

    @property
    def words(self) -> str:
        """What it is, for messages."""
        framing = "" if self.spec.hop_length == 1 else f", hop {self.spec.hop_length}"
        return f"{self.folder.description.node!r} ({self.spec.sr} Hz{framing})"

    @cached_property
    def padding(self) -> float | NDArray[np.float64]:
        """Value of what lies past the end of an utterance: silence of a mel, else 0."""
        return (
            0.0
            if self.folder.description.mel is None or self.spec.n_mels is None
            else silence_of(self.folder.description)
        )


class Tracks:
    """Tracks that are cut together. Lengths and places count entries of the first one, its frames.

    Parameters
    ----------
    tracks : sequence of Track
    segment_frames : int or None
        Length of a segment. None: whole utterances.

    Raises
    ------
    StoreError
        The products are of different utterances, or a segment is no whole number of entries of one
        of them.
    """

    def __init__(self, tracks: Sequence[Track], segment_frames: int | None) -> None:
        self.tracks = tuple(tracks)
        self.segment_frames = segment_frames
        first = self.tracks[0]
        for other in self.tracks[1:]:
            corpora = [one.folder.description.catalogue for one in (first, other)]
            if corpora[0] != corpora[1]:
                raise StoreError(
                    f"{other.words} is of other utterances than {first.words}: their corpora are {_corpus(corpora[1])} "
                    f"and {_corpus(corpora[0])}. Name nodes of one corpus"
                )
        self._hops = [one.hop_s / first.hop_s for one in self.tracks]
        self.step = reduce(_common, self._hops).numerator
        for one, hop in zip(self.tracks, self._hops, strict=True):
            if segment_frames is not None and (segment_frames / hop).denominator != 1:
                raise StoreError(
                    f"segment_frames={segment_frames} of {first.words} is no whole number of entries of {one.words}: "
                    f"expected a multiple of {self.step}"
                )
        # Of a segment of each track, None for whole utterances.
        self.lengths = None if segment_frames is None else [int(segment_frames / hop) for hop in self._hops]
        self.n_frames = lru_cache(_LENGTHS)(self._n_frames)
        self.n_bytes = lru_cache(_LENGTHS)(self._n_bytes)

    def _n_frames(self, n_samples: int, sr: int) -> int:
        """Return the frames of a recording that all tracks have whole, with audio of a whole hop."""
        first = self.tracks[0].spec
        ends = [
            one.spec.entries(n_samples, sr) * hop.numerator // hop.denominator
            for one, hop in zip(self.tracks, self._hops, strict=True)
        ]
        # The last frames of a centred mel go beyond the audio.
        return min(*ends, n_samples * first.sr // (sr * first.hop_length))

    def n_starts(self, n_frames: int) -> int:
        """Return at how many places a segment can begin, at least one."""
        return 1 if self.segment_frames is None else max(0, n_frames - self.segment_frames) // self.step + 1

    def parts(self, place: int) -> list[slice]:
        """Return what of each track a segment is that begins at a place, counted by `n_starts`."""
        if self.segment_frames is None:
            return [slice(None) for _ in self.tracks]
        start = place * self.step
        return [
            slice(
                start * hop.denominator // hop.numerator,
                (start + self.segment_frames) * hop.denominator // hop.numerator,
            )
            for hop in self._hops
        ]

    def _n_bytes(self, n_samples: int, sr: int) -> int:
        """Return about how many bytes an item takes as it is stored."""
        lengths = self.lengths or [one.spec.entries(n_samples, sr) for one in self.tracks]
        specs = [one.spec for one in self.tracks]
        return sum(
            n * (spec.n_mels or 1) * np.dtype(spec.dtype).itemsize for n, spec in zip(lengths, specs, strict=True)
        )


def _common(a: Fraction, b: Fraction) -> Fraction:
    """Return the smallest multiple of two lengths.

    >>> _common(Fraction(1), Fraction(1, 256)), _common(Fraction(1), Fraction(3, 2))
    (Fraction(1, 1), Fraction(3, 1))
    """
    return Fraction(lcm(a.numerator, b.numerator), gcd(a.denominator, b.denominator))


def _corpus(address: Sequence[str] | None) -> str:
    return "unknown" if address is None else f"{address[0]!r}, key {address[1]}"
