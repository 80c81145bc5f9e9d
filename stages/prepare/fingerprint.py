"""Stage `fingerprint`: what tells equal and similar recordings, for `dedupe`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Input, Item, Kind, Outcome, Prints, Product, Waveform, each
from melmill.stages.numeric.resample import resample
from melmill.stages.prepare.prepare import floats, waveform

SR = 8000
N_TIMES, N_BANDS = 32, 17
"""A recording is compared in so many equal parts of its time, and in so many bands."""

N_BITS = (N_TIMES - 1) * (N_BANDS - 1)

_N_FFT, _HOP = 256, 40
_LOWEST_HZ, _HIGHEST_HZ = 200.0, 3400.0
_SHORTEST_S = 0.1
_OUTSIDE = 0.005
_SILENT_POWER = 1e-9


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Make a row of each recording by which `dedupe` tells equal and similar ones.

    `dedupe` has such a node by itself. The row holds a hash of the samples, the length, and 496 bits:
    the signs of how the energy changes from one 32nd of the recording to the next, and from one band
    to the next. Level, equaliser, noise below the sound, and silence at the ends change few of them.

    References
    ----------
    Haitsma, Kalker, A Highly Robust Audio Fingerprinting System, 2002, equation 1. There the times are
    of fixed length; here they are parts of the recording, so that its bits have a fixed number.
    """

    uses: ClassVar[str] = "fingerprint"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    def identity(self) -> Mapping[str, Any]:
        """Return that nothing can be chosen."""
        return {}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Describe the table; raise ContractError if the input is not one node's waveforms."""
        waveform(self.uses, inputs["from"])
        return Prints()

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return a row for each recording."""
        del product
        source = waveform(self.uses, [inputs["from"]])
        return each(items, lambda item: Outcome(row=self._row(item.inputs["from"], source)))

    def _row(self, y: NDArray[Any], source: Waveform) -> dict[str, str | float]:
        little = np.ascontiguousarray(y, y.dtype.newbyteorder("<"))
        bits, duration_s = fingerprint(floats(y), source.sr)
        return {
            "samples_sha256": hashlib.sha256(little.tobytes()).hexdigest(),
            "sound_s": duration_s,
            "bits": "" if bits is None else np.packbits(bits).tobytes().hex(),
        }


def fingerprint(y: NDArray[np.float32], sr: int) -> tuple[NDArray[np.bool_] | None, float]:
    """Return the bits ``(N_BITS,)`` of a recording, and how long its sound is, s.

    There are none of silence, and of a sound shorter than a tenth of a second.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
    sr : int
        Its rate, Hz.
    """
    energy = np.cumsum(y.astype(np.float64) ** 2)
    if not y.size or energy[-1] <= y.size * _SILENT_POWER:
        return None, 0.0
    # Where nearly all of the energy lies: noise moves that less than where sound begins.
    start, stop = np.searchsorted(energy, [_OUTSIDE * energy[-1], (1.0 - _OUTSIDE) * energy[-1]])
    sound = y[start : stop + 1]
    if sound.size < _SHORTEST_S * sr:
        return None, 0.0
    energies = np.log(_energies(resample(sound, sr, SR)))
    change = np.diff(np.diff(energies, axis=1), axis=0)
    return (change > 0).ravel(), sound.size / sr


def _energies(y: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the energies ``(N_TIMES, N_BANDS)`` of a sound at `SR`."""
    padded = np.pad(y, _N_FFT // 2).astype(np.float64)
    starts = np.arange(0, padded.size - _N_FFT + 1, _HOP)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[starts]
    power = np.abs(np.fft.rfft(frames * np.hanning(_N_FFT), axis=1)) ** 2
    bands = power @ _bank().T
    # Each part of the time begins and ends anywhere within a frame.
    summed = np.concatenate([np.zeros((1, N_BANDS)), np.cumsum(bands, axis=0)])
    edges = np.linspace(0.0, len(bands), N_TIMES + 1)
    at = np.stack([np.interp(edges, np.arange(len(summed)), summed[:, band]) for band in range(N_BANDS)], axis=1)
    found: NDArray[np.float64] = np.diff(at, axis=0)
    return np.maximum(found, max(float(found.max()) * 1e-9, 1e-20))


@lru_cache(maxsize=1)
def _bank() -> NDArray[np.float64]:
    """Return overlapping triangles ``(N_BANDS, n_bins)``, evenly spaced in the logarithm of frequency."""
    centres = np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, N_BANDS + 2)
    hz = np.arange(_N_FFT // 2 + 1) * SR / _N_FFT
    rising = (hz - centres[:-2, np.newaxis]) / np.diff(centres)[:-1, np.newaxis]
    falling = (centres[2:, np.newaxis] - hz) / np.diff(centres)[1:, np.newaxis]
    bank: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    # The lowest bands are narrower than a bin.
    empty = bank.sum(axis=1) == 0
    bank[empty, np.rint(centres[1:-1][empty] * _N_FFT / SR).astype(int)] = 1.0
    return bank
