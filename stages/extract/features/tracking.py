"""Pitch of a waveform at any moments, by autocorrelation and the likeliest path through its peaks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Frames that are transformed at a time.
_BLOCK = 512
# Peaks of a frame that the path may take.
_CANDIDATES = 8
_PERIODS = 3.0  # of the lowest pitch in a window
_LEAST_LAG_SR = 24_000  # lags are at least so fine, so that a parabola finds the top of a peak
_TOP_HZ = 4000.0  # what lies above makes peaks narrow, and is noise more often than voice
# Costs of a path as in Boersma's paper, for steps of 10 ms.
_OCTAVE, _JUMP, _TURN = 0.01, 0.35, 0.14
_SILENCE = 0.03  # re the loudest sample
_STEP_S = 0.01


@dataclass(frozen=True, kw_only=True)
class PitchRange:
    """Say what is looked for.

    Parameters
    ----------
    fmin, fmax : float
        Lowest and highest pitch, Hz.
    threshold : float
        Periodicity from which a frame is voiced, from 0 to 1.
    """

    fmin: float
    fmax: float
    threshold: float


class _Candidates(NamedTuple):
    """Hold the pitches that each frame may have ``(n_frames, n)`` in Hz, and how good each is.

    The first is 0: unvoiced.
    """

    f0: Floats
    strength: Floats


def autocorrelation_f0(y: NDArray[np.floating], sr: int, centres: Floats, wanted: PitchRange) -> Floats:
    """Return the pitch ``(n_frames,)`` of a waveform at some moments in Hz, 0 where it is unvoiced.

    The autocorrelation of a windowed frame is divided by that of the window. Its peaks are
    candidates, and dynamic programming takes the path that costs least.

    Parameters
    ----------
    y : ndarray of float, shape (n_samples,)
    sr : int
        Its rate, Hz.
    centres : ndarray of float64, shape (n_frames,)
        Moments a constant step apart, samples. Past its ends the waveform is silent.
    wanted : PitchRange

    References
    ----------
    Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise
    ratio of a sampled sound", Proc. Institute of Phonetic Sciences Amsterdam 17, 1993.
    """
    loudest = float(np.abs(y - np.mean(y)).max(initial=0.0))
    if loudest == 0.0 or centres.size == 0:
        return np.zeros(centres.size)
    parts = [
        _candidates(frames, sr, wanted, loudest) for frames in _blocks(y, centres, round(_PERIODS * sr / wanted.fmin))
    ]
    found = _Candidates(*(np.concatenate(one) for one in zip(*parts, strict=True)))
    step_s = (centres[1] - centres[0]) / sr if centres.size > 1 else _STEP_S
    path = _path(found, _STEP_S / step_s)
    return np.asarray(found.f0[np.arange(centres.size), path])


def _blocks(y: NDArray[np.floating], centres: Floats, length: int) -> list[NDArray[np.float64]]:
    """Return frames of a length around moments, ``(n, length)`` in blocks."""
    starts = np.rint(centres - length / 2).astype(np.int64)
    before, after = max(0, -int(starts.min())), max(0, int(starts.max()) + length - y.size)
    padded = np.pad(y.astype(np.float64), (before, after))
    every = np.lib.stride_tricks.sliding_window_view(padded, length)
    return [every[starts[at : at + _BLOCK] + before] for at in range(0, starts.size, _BLOCK)]


def _candidates(frames: Floats, sr: int, wanted: PitchRange, loudest: float) -> _Candidates:
    import scipy.fft  # here, as planning needs none of it

    n_frames, length = frames.shape
    shape = _shape(length, sr)
    frames = frames - frames.mean(axis=1, keepdims=True)
    third = length // 3
    peak = np.abs(frames[:, third : length - third]).max(axis=1)
    spectrum = scipy.fft.rfft(frames * shape.window, shape.n_fft, axis=1)[:, : shape.n_bins]
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    r = scipy.fft.irfft(power, shape.n_lags, axis=1)[:, : shape.normal.size]
    energy = r[:, :1]
    r = np.divide(r, energy, out=np.zeros_like(r), where=energy > 0) / shape.normal
    first, last = max(1, int(shape.lag_sr / wanted.fmax)), min(r.shape[1] - 2, int(np.ceil(shape.lag_sr / wanted.fmin)))
    left, middle, right = (r[:, first + k : last + 1 + k] for k in (-1, 0, 1))
    curve = left - 2.0 * middle + right
    slope = 0.5 * (left - right)
    shift = np.divide(slope, curve, out=np.zeros_like(curve), where=curve < 0)
    lag = np.arange(first, last + 1) + shift
    top = middle - 0.5 * slope * shift
    top = np.where(top > 1.0, 1.0 / np.maximum(top, 1.0), top)
    f0 = shape.lag_sr / lag
    is_peak = (middle > left) & (middle >= right) & (middle > 0.5 * wanted.threshold)
    is_peak &= (f0 >= wanted.fmin) & (f0 <= wanted.fmax)
    strength = np.where(is_peak, top - _OCTAVE * np.log2(wanted.fmin * np.maximum(lag, 1.0) / shape.lag_sr), -np.inf)
    best = np.argpartition(strength, max(0, strength.shape[1] - _CANDIDATES), axis=1)[:, -_CANDIDATES:]
    silent = np.maximum(0.0, 2.0 - peak / loudest * (1.0 + wanted.threshold) / _SILENCE)
    return _Candidates(
        np.column_stack([np.zeros(n_frames), np.take_along_axis(f0, best, axis=1)]),
        np.column_stack([wanted.threshold + silent, np.take_along_axis(strength, best, axis=1)]),
    )


class _Shape(NamedTuple):
    """Hold what windows of one length share."""

    window: Floats
    n_fft: int
    n_bins: int
    n_lags: int
    lag_sr: float
    normal: Floats


@lru_cache(maxsize=8)
def _shape(length: int, sr: int) -> _Shape:
    """Return the window of a length, sizes of its transforms, and its own autocorrelation."""
    import scipy.fft

    n_fft = scipy.fft.next_fast_len(length + length // 2, real=True)
    n_fft += n_fft % 2
    finer = -(-_LEAST_LAG_SR // sr)
    n_lags = n_fft * finer
    n_bins = min(n_fft // 2 + 1, 1 + int(_TOP_HZ * n_fft / sr))
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * (np.arange(length) + 0.5) / length)
    power = np.abs(scipy.fft.rfft(window, n_fft)) ** 2
    r = scipy.fft.irfft(power, n_lags)[: n_lags // 3]
    return _Shape(window, n_fft, n_bins, n_lags, float(sr * finer), r / r[0])


def _path(found: _Candidates, per_step: float) -> NDArray[np.int64]:
    """Return the candidate of each frame on the path that costs least."""
    n_frames, n = found.f0.shape
    strength = np.where(np.isfinite(found.strength), found.strength, -1e9)
    voiced = found.f0 > 0
    octaves = np.log2(np.where(voiced, found.f0, 1.0))
    before, after = voiced[:-1, :, np.newaxis], voiced[1:, np.newaxis, :]
    jumps = np.abs(octaves[:-1, :, np.newaxis] - octaves[1:, np.newaxis, :])
    costs = per_step * np.where(before & after, _JUMP * jumps, _TURN * (before ^ after))
    came = np.zeros((n_frames, n), dtype=np.int64)
    score, columns = strength[0], np.arange(n)
    for t in range(1, n_frames):
        reached = score[:, np.newaxis] - costs[t - 1]
        came[t] = reached.argmax(axis=0)
        score = reached[came[t], columns] + strength[t]
    path = np.empty(n_frames, dtype=np.int64)
    path[-1] = score.argmax()
    for t in range(n_frames - 1, 0, -1):
        path[t - 1] = came[t, path[t]]
    return path


def interpolated(f0: Floats) -> Floats:
    """Return a pitch without gaps: its log goes straight from voiced frame to voiced frame.

    Before the first and after the last it stays. Where nothing is voiced, all is 0.

    >>> interpolated(np.array([0.0, 100.0, 0.0, 400.0, 0.0])).round(6).tolist()
    [100.0, 100.0, 200.0, 400.0, 400.0]
    """
    voiced = np.flatnonzero(f0 > 0)
    if voiced.size == 0:
        return f0
    return np.exp(np.interp(np.arange(f0.size), voiced, np.log(f0[voiced])))
