"""How much later one signal comes than another: by envelopes, by waveforms, and by magnitudes."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from melmill.stages.numeric.lanes.fourier import Fourier, forward, fourier, inverse
from melmill.stages.numeric.lanes.vector import LANES, Flat, larger, load, store, zeros
from melmill.stages.score.p862.tables import kernel

_NEAR_PEAK = 0.99  # a frame votes for every delay whose correlation exceeds this share of its peak
_EXPONENT = 0.125  # of that, which is the weight of the vote
_DIRECT = 1 << 21  # products up to which a correlation is summed up without an FFT


def envelope_delay(reference: NDArray[np.float64], estimate: NDArray[np.float64]) -> int:
    """Return by how many windows the estimate's envelope is later; 0 if they never meet.

    Parameters
    ----------
    reference, estimate : ndarray, shape (n_windows,)
        Logarithms of activity.
    """
    n, m = reference.size, estimate.size
    if n < 2 or m < 2:
        return 1
    if n * m <= _DIRECT:
        correlation = np.zeros(n + m - 1)
        _correlate(reference, 0, n, estimate, 0, m, correlation, n - 1)
    else:
        size = next_fast_len(n + m - 1, real=True)
        correlation = irfft(rfft(estimate, size) * rfft(reference[::-1], size), size)[: n + m - 1]
    best = int(np.argmax(correlation))
    return best - n + 1 if correlation[best] > 0 else 1


@kernel
def _correlate(x: Flat, x_from: int, x_to: int, y: Flat, y_from: int, y_to: int, out: Flat, zero: int) -> None:
    """Add the products of two stretches by their lag; lag 0 is at ``out[zero]``."""
    for i in range(x_from, x_to):
        weight = x[i]
        if weight != 0.0:
            at = zero - i
            for j in range(y_from, y_to):
                out[at + j] += weight * y[j]


@kernel
def growing_delays(reference: Flat, estimate: Flat, at: Flat, estimate_at: Flat) -> NDArray[np.int64]:
    """Return the delay of the first ``at[k]`` windows within as many or fewer of the estimate.

    Neither count falls with k.
    """
    most = at[at.size - 1]
    correlation = np.zeros(2 * most + 1)
    delays = np.empty(at.size, np.int64)
    n_before, m_before = 0, 0
    for k in range(at.size):
        n, m = at[k], estimate_at[k]
        _correlate(reference, 0, n_before, estimate, m_before, m, correlation, most)
        _correlate(reference, n_before, n, estimate, 0, m, correlation, most)
        n_before, m_before = n, m
        delays[k], peak = 1, 0.0
        if n > 1 and m > 1:
            for lag in range(1 - n, m):
                if correlation[most + lag] > peak:
                    delays[k], peak = lag, correlation[most + lag]
    return delays


class FrameTables(NamedTuple):
    """What the correlation of frames needs."""

    fourier: Fourier
    window: NDArray[np.float32]


@cache
def frame_tables(n: int) -> FrameTables:
    """Return the tables of frames of `n` samples."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    return FrameTables(fourier(n, "float32"), window.astype(np.float32))


@kernel
def vote(x: Flat, y: Flat, starts: Flat, slots: Flat, t: FrameTables, histogram: Flat, total: Flat) -> None:
    """Add each frame's vote for the delay of y against x to its slot.

    Parameters
    ----------
    x, y : ndarray of float32
    starts : ndarray of int64, shape (2, n_frames)
        Where frames begin in x and y.
    slots : ndarray of int64, shape (n_frames,)
    t : FrameTables
    histogram, total : ndarray of float64, shapes (n_slots, n) and (n_slots,)
        Smooth votes for each delay, and their sum.
    """
    n, n_frames = t.window.size, slots.size
    kernel_size = n // 64
    work = np.empty(n * LANES, np.float32)
    X, Y = np.empty((n + 2) * LANES, np.float32), np.empty((n + 2) * LANES, np.float32)
    peaks = np.empty(LANES, np.float32)
    for group in range(0, n_frames, LANES):
        take_frames(x, starts[0], group, n_frames, t.window, work)
        forward(work, X, t.fourier)
        take_frames(y, starts[1], group, n_frames, t.window, work)
        forward(work, Y, t.fourier)
        for row in range(0, X.size, 2 * LANES):
            xr, xi, yr, yi = load(X, row), load(X, row + LANES), load(Y, row), load(Y, row + LANES)
            store(Y, row, xr * yr + xi * yi)
            store(Y, row + LANES, xr * yi - xi * yr)
        inverse(Y, work, t.fourier)
        peak = zeros(work)
        for row in range(0, work.size, LANES):
            size = load(work, row)
            size = larger(size, zeros(work) - size)
            store(work, row, size)
            peak = larger(peak, size)
        store(peaks, 0, peak * np.float32(_NEAR_PEAK))
        n_used = min(LANES, n_frames - group)
        for i in range(n):
            any_near = 0
            for lane in range(LANES):
                any_near |= work[i * LANES + lane] > peaks[lane]
            if any_near:
                for lane in range(n_used):
                    if work[i * LANES + lane] > peaks[lane]:
                        slot, weight = slots[group + lane], float(peaks[lane]) ** _EXPONENT
                        total[slot] += weight * kernel_size
                        for k in range(1 - kernel_size, kernel_size):
                            histogram[slot, (i + k) % n] += weight * (kernel_size - abs(k))


@kernel
def take_frames(y: Flat, starts: Flat, group: int, n_frames: int, window: Flat, work: Flat) -> None:
    """Write `LANES` frames under a window, one row a sample; the last frame fills up a group."""
    at = np.empty(LANES, np.int64)
    for lane in range(LANES):
        at[lane] = starts[min(group + lane, n_frames - 1)]
    for i in range(window.size):
        for lane in range(LANES):
            work[i * LANES + lane] = y[at[lane] + i] * window[i]


def magnitude_delay(reference: NDArray[np.float32], estimate: NDArray[np.float32], reach: int) -> int:
    """Return the delay within ``-reach`` to ``reach - 1`` samples at which magnitudes agree best.

    It is 0 if they correlate by less than a half.
    """
    x, y = np.abs(reference), np.abs(estimate)
    size = 1 << (2 * x.size - 1).bit_length()
    level = np.sqrt(np.dot(x.astype(np.float64), x) * np.dot(y.astype(np.float64), y))
    if not level > 0:
        return 0
    correlation = irfft(np.conj(rfft(x, size)) * rfft(y, size), size)
    near = np.abs(np.concatenate([correlation[-reach:], correlation[:reach]])) / level
    best = int(np.argmax(near))
    return best - reach if near[best] >= 0.5 else 0
