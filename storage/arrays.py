"""Where utterances lie in an array: lengths, slots and spans, known before any of it is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.storage.errors import StoreError
from melmill.storage.packing import MAX_UTTERANCES
from melmill.storage.utterance import Shard, Utterance, resampled_length

# Inner chunks, the least that a reader fetches: about 16 s at the usual rates.
CHUNK_FRAMES = 1024
CHUNK_SAMPLES = 1024 * 256


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """Describe an array of one value per utterance: waveforms, or mels where `n_mels` is given.

    The entries of an utterance (samples or frames) follow from its length in the catalogue; a waveform is the
    case of frames of one sample.

    Parameters
    ----------
    dtype : {"int16", "float16", "float32"}
    sr : int
        Sampling rate of the waveforms, or of those under the mels, Hz.
    n_mels : int or None
        Mel bands; None for waveforms.
    n_fft, hop_length, pad : int
        Framing of the mels, samples; `pad` is added at each end of the waveform.
    """

    dtype: str
    sr: int
    n_mels: int | None = None
    n_fft: int = 1
    hop_length: int = 1
    pad: int = 0

    def __post_init__(self) -> None:
        """Check the type and that the sizes make sense."""
        if self.dtype not in ("int16", "float16", "float32"):
            raise StoreError(f"dtype must be 'int16', 'float16' or 'float32', got {self.dtype!r}")
        if self.dtype == "int16" and self.n_mels is not None:
            raise StoreError("dtype 'int16' is for waveforms: it can't mark gaps between mels")
        if min(self.sr, self.n_fft, self.hop_length) < 1 or self.pad < 0 or (self.n_mels or 1) < 1:
            raise StoreError(f"sr, n_mels, n_fft and hop_length must be positive and pad not negative, got {self!r}")

    @property
    def chunk_length(self) -> int:
        """Entries of an inner chunk."""
        return CHUNK_SAMPLES if self.n_mels is None else CHUNK_FRAMES

    @property
    def width(self) -> tuple[int, ...]:
        """Shape of one entry as stored."""
        return () if self.n_mels is None else (self.n_mels,)

    def length(self, utterance: Utterance) -> int:
        """Return how many samples or frames an utterance has; 0 where its header could not be read."""
        if utterance.n_samples == 0:
            return 0
        padded = resampled_length(utterance.n_samples, utterance.sr, self.sr) + 2 * self.pad
        return max(0, 1 + (padded - self.n_fft) // self.hop_length)

    def slot_length(self, shard_duration_s: float) -> int:
        """Return the entries of one slot: whole inner chunks with room for any shard that packing makes.

        Each of `MAX_UTTERANCES` may add a sample by resampling and what its padding adds to its frames.
        """
        rounding = MAX_UTTERANCES * (1 + max(0, self.hop_length + 2 * self.pad - self.n_fft))
        samples = Fraction(shard_duration_s) * self.sr + rounding
        return -(-samples // (self.hop_length * self.chunk_length)) * self.chunk_length

    def spans(self, shard: Shard) -> dict[str, slice]:
        """Return where each utterance lies, in entries from the beginning of the shard's first slot."""
        spans, start = {}, 0
        for utterance in shard.utterances:
            stop = start + self.length(utterance)
            spans[utterance.utterance_id] = slice(start, stop)
            start = stop
        return spans

    def shape(self, utterance: Utterance) -> tuple[int, ...]:
        """Return the shape of an utterance's array as the API takes it, ``(n_samples,)`` or ``(n_mels, n_frames)``."""
        return (*self.width, self.length(utterance))

    def check(self, utterance: Utterance, array: NDArray[Any], place: str) -> None:
        """Raise StoreError unless `array` has the utterance's shape and the dtype and is finite."""
        problem = ""
        if array.shape != self.shape(utterance):
            problem = f"shape {array.shape!r}, expected {self.shape(utterance)!r}"
        elif array.dtype != np.dtype(self.dtype):
            problem = f"dtype {array.dtype.name!r}, expected {self.dtype!r}"
        elif not np.isfinite(array).all():
            problem = f"{np.count_nonzero(~np.isfinite(array))} values that are not finite, expected none"
        if problem:
            raise StoreError(f"{place}: the array of {utterance.utterance_id!r} has {problem}")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values; ``ArraySpec(**fields)`` undoes it."""
        return asdict(self)


def joined(spec: ArraySpec, shard: Shard, arrays: Mapping[str, NDArray[Any]], slot_length: int) -> NDArray[Any]:
    """Lay the arrays of a shard out as stored, ``(n_slots * slot_length[, n_mels])``; gaps hold the fill value."""
    whole = np.full((shard.n_slots * slot_length, *spec.width), fill_value(spec), dtype=spec.dtype)
    spans = spec.spans(shard)
    for utterance_id, array in arrays.items():
        whole[spans[utterance_id]] = array.T
    return whole


def fill_value(spec: ArraySpec) -> float:
    """Return what stands where no utterance lies: silence, or NaN in a mel, where 0 could be a value."""
    return 0 if spec.n_mels is None else float("nan")
