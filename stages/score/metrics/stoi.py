"""STOI and ESTOI, short-time objective intelligibility, without random numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.metric import Metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

LOWEST_RATE = 8000
"""Below this rate (Hz) the upper third-octave bands are missing."""

_RATE = 10000
_FRAME, _HOP, _N_FFT = 256, 128, 512
_SEGMENT = 30  # frames, 384 ms
_N_BANDS, _LOWEST_HZ = 15, 150.0
_DYNAMIC_RANGE_DB = 40.0
_CLIP = 10.0 ** (15.0 / 20.0)  # beta = -15 dB
_EPS = np.finfo(np.float64).eps
_PADDING = 16  # frames after the last, for passes that take 16 segments at once


@dataclass(frozen=True, slots=True)
class Envelopes:
    """Hold third-octave envelopes of both signals, without frames where the reference is silent.

    Parameters
    ----------
    x, y : ndarray of float64, shape (15, n_frames + 16)
        Reference and estimate in frames of 12.8 ms, then padding that compiled passes may read.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]


def envelopes(
    reference: NDArray[np.float32 | np.float64], estimate: NDArray[np.float32 | np.float64], sr: int
) -> Envelopes | None:
    """Return the envelopes that both metrics compare; None for fewer than 30 frames of speech.

    Parameters
    ----------
    reference, estimate : ndarray of float, shape (n_samples,)
    sr : int
        Rate of both, Hz, at least `LOWEST_RATE`.
    """
    from melmill.stages.score.compiled.intelligibility import envelopes as of  # here, as it imports numba

    x, y = _loud_frames(_at_10_khz(reference, sr), _at_10_khz(estimate, sr))
    x, y = (of(z, _window(), _N_FFT, _bands()) for z in (x, y))
    if x.shape[1] < _SEGMENT:
        return None
    return Envelopes(*(np.pad(z, ((0, 0), (0, _PADDING))) for z in (x, y)))


def stoi(pair: Envelopes | None) -> Measured:
    """Return STOI, the mean correlation of normalised and clipped envelopes in bands and segments.

    It is 1 for identical signals.

    References
    ----------
    Taal, Hendriks, Heusdens, Jensen, "An algorithm for intelligibility prediction of
    time-frequency weighted noisy speech", IEEE TASLP 19(7), 2011, eqs. 1 to 6.
    """
    from melmill.stages.score.compiled.intelligibility import clipped_correlation

    if pair is None:
        return Measured.failed(Status.TOO_SHORT)
    total = clipped_correlation(pair.x, pair.y, _SEGMENT, 1.0 + _CLIP, float(_EPS))
    return Measured.of(total / (_N_BANDS * _n_segments(pair)))


def estoi(pair: Envelopes | None) -> Measured:
    """Return ESTOI, the mean correlation of segments normalised over time, then over bands.

    It is 1 for identical signals.

    References
    ----------
    Jensen, Taal, "An algorithm for predicting the intelligibility of speech masked by modulated
    noise maskers", IEEE/ACM TASLP 24(11), 2016, eqs. 4 to 8.
    """
    from melmill.stages.score.compiled.intelligibility import spectral_correlation

    if pair is None:
        return Measured.failed(Status.TOO_SHORT)
    return Measured.of(spectral_correlation(pair.x, pair.y, _SEGMENT, float(_EPS)) / (_SEGMENT * _n_segments(pair)))


def _n_segments(pair: Envelopes) -> int:
    return int(pair.x.shape[1]) - _PADDING - _SEGMENT + 1


def _at_10_khz(y: NDArray[np.float32 | np.float64], sr: int) -> NDArray[np.float64]:
    """Return a signal at 10 kHz, by the filter of the reference implementation in Octave.

    It is a Kaiser window of 60 dB, a tenth of an octave wide.
    """
    from melmill.stages.score.compiled.intelligibility import polyphase, resampled

    samples = y.astype(np.float64)
    return samples if sr == _RATE else resampled(samples, polyphase(sr, _RATE, _low_pass))


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


def _loud_frames(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both signals without frames where the reference is 40 dB below its loudest."""
    x_halves, y_halves = (_halves(z) for z in (x, y))
    if len(x_halves) < 2:
        return np.empty(0), np.empty(0)
    early, late = np.split(_window(), 2)
    energy = x_halves[:-1] ** 2 @ early**2 + x_halves[1:] ** 2 @ late**2
    level_db = 20.0 * np.log10(np.sqrt(energy) + _EPS)
    loud = np.flatnonzero(level_db > np.max(level_db) - _DYNAMIC_RANGE_DB)
    return _overlap_add(x_halves, loud), _overlap_add(y_halves, loud)


def _halves(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the hops ``(n_frames + 1, 128)`` of a signal.

    A last frame that fits exactly is left out, as in the reference implementation.
    """
    n_hops = max(0, y.size - 1) // _HOP
    return y[: n_hops * _HOP].reshape(n_hops, _HOP)


def _overlap_add(halves: NDArray[np.float64], frames: NDArray[np.intp]) -> NDArray[np.float64]:
    early, late = np.split(_window(), 2)
    out = np.zeros((len(frames) + 1, _HOP))
    out[:-1] += halves[frames] * early
    out[1:] += halves[frames + 1] * late
    return out.reshape(-1)


@cache
def _bands() -> NDArray[np.float64]:
    """Return third-octave bands ``(15, 257)``: 1 between edges rounded to bins, else 0."""
    centres = _LOWEST_HZ * 2.0 ** (np.arange(_N_BANDS) / 3.0)
    edges = np.rint(np.stack([centres * 2.0 ** (-1 / 6), centres * 2.0 ** (1 / 6)]) * _N_FFT / _RATE)
    bins = np.arange(_N_FFT // 2 + 1)
    return np.asarray((bins >= edges[0][:, np.newaxis]) & (bins < edges[1][:, np.newaxis]), dtype=np.float64)


def _shared_envelopes(pair: Pair) -> Envelopes | None:
    return envelopes(*pair.at(pair.estimate_sr), pair.estimate_sr)


STOI = Metric(
    name="stoi",
    title="STOI",
    better="higher",
    decimals=3,
    needs="signals",
    lowest_sr=LOWEST_RATE,
    compute=lambda pair: stoi(pair.once(_shared_envelopes)),
    order=30,
    says="Intelligibility as the mean correlation of short third-octave envelopes up to 4.3 kHz. Identical is 1.",
    formula="Third-octave envelopes at 10 kHz over 384 ms are normalised, clipped and correlated. Frames where the "
    "recording is silent, 40 dB below its loudest, are left out. It equals pystoi to 1e-12.",
    limits="It is near 1 for any good reconstruction, so it separates only bad methods. It needs 0.4 s of speech.",
    reference="Taal, Hendriks, Heusdens, Jensen, IEEE TASLP 19(7), 2011",
)

ESTOI = Metric(
    name="estoi",
    title="ESTOI",
    better="higher",
    decimals=3,
    needs="signals",
    lowest_sr=LOWEST_RATE,
    compute=lambda pair: estoi(pair.once(_shared_envelopes)),
    order=40,
    says="Intelligibility as the correlation of spectro-temporal patterns of 0.4 s up to 4.3 kHz. Identical is 1.",
    formula="The same envelopes in blocks of 384 ms are correlated, after rows and then columns of each block are "
    "normalised to mean 0 and norm 1. It equals pystoi to 1e-12, without the random noise that pystoi adds.",
    limits="It compares envelopes alone: buzz and phase artefacts above 4.3 kHz go unnoticed. It needs 0.4 s of "
    "speech.",
    reference="Jensen, Taal, IEEE/ACM TASLP 24(11), 2016",
)
