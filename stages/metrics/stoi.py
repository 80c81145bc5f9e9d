"""Short-time objective intelligibility, plain and extended, without random numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.metrics.status import Measured, Status

LOWEST_RATE = 8000
"""Below this rate (Hz) the upper third-octave bands are missing."""

_RATE = 10000
_FRAME, _HOP, _N_FFT = 256, 128, 512
_SEGMENT = 30  # frames, 384 ms
_N_BANDS, _LOWEST_HZ = 15, 150.0
_DYNAMIC_RANGE_DB = 40.0
_CLIP = 10.0 ** (15.0 / 20.0)  # beta = -15 dB
_EPS = np.finfo(np.float64).eps


@dataclass(frozen=True, slots=True)
class Envelopes:
    """Third-octave envelopes of a reference and an estimate, silent frames of the reference left out.

    Parameters
    ----------
    x, y : ndarray of float64, shape (15, n_segments, 30)
        Reference and estimate: every run of 30 frames of 12.8 ms.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]


def envelopes(reference: NDArray[Any], estimate: NDArray[Any], sr: int) -> Envelopes | None:
    """Return the envelopes that both measures compare, None where there are fewer than 30 frames of speech.

    Parameters
    ----------
    reference, estimate : ndarray of float, shape (n_samples,)
    sr : int
        Rate of both, Hz, at least `LOWEST_RATE`.
    """
    x, y = _loud_frames(_at_10_khz(reference, sr), _at_10_khz(estimate, sr))
    x, y = _frames(_overlap_add(x)), _frames(_overlap_add(y))
    if len(x) < _SEGMENT:
        return None
    return Envelopes(_segments(x), _segments(y))


def stoi(pair: Envelopes | None) -> Measured:
    """Return STOI: the mean correlation of normalised and clipped envelopes in each band and segment.

    References
    ----------
    Taal, Hendriks, Heusdens, Jensen, "An algorithm for intelligibility prediction of time-frequency weighted noisy
    speech", IEEE TASLP 19(7), 2011, eqs. 1 to 6. With identical signals it is 1.
    """
    if pair is None:
        return Measured.failed(Status.TOO_SHORT)
    level = np.linalg.norm(pair.x, axis=-1, keepdims=True) / (np.linalg.norm(pair.y, axis=-1, keepdims=True) + _EPS)
    clipped = np.minimum(pair.y * level, pair.x * (1.0 + _CLIP))
    return Measured.of(float(np.mean(np.sum(_normalised(pair.x, -1) * _normalised(clipped, -1), axis=-1))))


def estoi(pair: Envelopes | None) -> Measured:
    """Return ESTOI: the mean correlation of segments normalised over time, then over bands.

    References
    ----------
    Jensen, Taal, "An algorithm for predicting the intelligibility of speech masked by modulated noise maskers",
    IEEE/ACM TASLP 24(11), 2016, eqs. 4 to 8. With identical signals it is 1.
    """
    if pair is None:
        return Measured.failed(Status.TOO_SHORT)
    x, y = (_normalised(_normalised(z, -1), 0) for z in (pair.x, pair.y))
    return Measured.of(float(np.mean(np.sum(x * y, axis=(0, 2)))) / _SEGMENT)


def _normalised(z: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return `z` with mean 0 and norm 1 along `axis`; what is constant there carries no pattern and gives 0."""
    centred = z - np.mean(z, axis=axis, keepdims=True)
    norm = np.linalg.norm(centred, axis=axis, keepdims=True)
    constant = norm <= 1e3 * _EPS * np.max(np.abs(z), axis=axis, keepdims=True)
    return np.asarray(np.divide(centred, norm, out=np.zeros_like(centred), where=~constant))


def _at_10_khz(y: NDArray[Any], sr: int) -> NDArray[np.float64]:
    """Resample as the reference implementation in Octave does: a Kaiser window of 60 dB, a tenth octave wide."""
    y = y.astype(np.float64)
    if sr == _RATE:
        return y
    from scipy.signal import resample_poly

    common = math.gcd(sr, _RATE)
    up, down = _RATE // common, sr // common
    window: Any = _low_pass(max(up, down))
    return np.asarray(resample_poly(y, up, down, window=window))


@cache
def _low_pass(factor: int) -> NDArray[np.float64]:
    cutoff = 0.5 / factor
    half = math.ceil((60.0 - 8.0) / (28.714 * cutoff / 10.0))
    taps = np.sinc(2.0 * cutoff * np.arange(-half, half + 1)) * np.kaiser(2 * half + 1, 0.1102 * (60.0 - 8.7))
    taps /= taps.sum()
    taps.flags.writeable = False
    return np.asarray(taps)


@cache
def _window() -> NDArray[np.float64]:
    return np.asarray(np.hanning(_FRAME + 2)[1:-1])


def _frames(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return windowed frames ``(n_frames, 256)``; the reference implementation leaves a last exact fit out."""
    if y.size <= _FRAME:
        return np.empty((0, _FRAME))
    view = np.lib.stride_tricks.sliding_window_view(y[:-1], _FRAME)[::_HOP]
    return np.asarray(view * _window())


def _loud_frames(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the frames of both where the reference is within 40 dB of its loudest frame."""
    x_frames, y_frames = _frames(x), _frames(y)
    if not len(x_frames):
        return x_frames, y_frames
    level_db = 20.0 * np.log10(np.linalg.norm(x_frames, axis=1) + _EPS)
    loud = level_db > np.max(level_db) - _DYNAMIC_RANGE_DB
    return x_frames[loud], y_frames[loud]


def _overlap_add(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    halves = np.zeros((len(frames) + 1, _HOP))
    halves[:-1] += frames[:, :_HOP]
    halves[1:] += frames[:, _HOP:]
    return halves.reshape(-1)


@cache
def _bands() -> NDArray[np.float64]:
    """Return the third-octave bands ``(15, 257)``: 1 for the bins between band edges rounded to bins, else 0."""
    centres = _LOWEST_HZ * 2.0 ** (np.arange(_N_BANDS) / 3.0)
    edges = np.rint(np.stack([centres * 2.0 ** (-1 / 6), centres * 2.0 ** (1 / 6)]) * _N_FFT / _RATE)
    bins = np.arange(_N_FFT // 2 + 1)
    return np.asarray((bins >= edges[0][:, np.newaxis]) & (bins < edges[1][:, np.newaxis]), dtype=np.float64)


def _segments(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    import scipy.fft

    power = np.abs(scipy.fft.rfft(frames, n=_N_FFT, axis=-1)) ** 2
    envelope = np.sqrt(_bands() @ power.T)
    return np.lib.stride_tricks.sliding_window_view(envelope, _SEGMENT, axis=1)
