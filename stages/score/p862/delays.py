"""How much later one signal comes than another: by envelopes, by waveforms, and by magnitudes."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from melmill.stages.numeric.lanes.fourier import Fourier, forward, fourier, inverse
from melmill.stages.numeric.lanes.vector import LANES, Flat, Lanes, inlined, larger, load, store, zeros
from melmill.stages.score.p862.tables import kernel

Envelope = NDArray[np.float32]

_NEAR_PEAK = 0.99  # a frame votes for every delay whose correlation exceeds this share of its peak
_EXPONENT = 0.125  # of that, which is the weight of the vote
_SPAN = LANES + 4  # hops that `LANES` frames touch, and one to spare
_DIRECT = 1 << 21  # products up to which a correlation is summed up without an FFT
_DIRECT_IN_ALL = 1 << 26  # those of a correlation that grows


def envelope_delay(reference: Envelope, estimate: Envelope, unmet: int = 0) -> int:
    """Return by how many windows the estimate's envelope is later; `unmet` if they never meet.

    Parameters
    ----------
    reference, estimate : ndarray of float32, shape (n_windows,)
        Logarithms of activity.
    unmet : int
    """
    n, m = reference.size, estimate.size
    if n < 2 or m < 2:
        return unmet
    products = correlation(reference, estimate)
    best = int(np.argmax(products))
    return best - n + 1 if products[best] > 0 else unmet


def correlation(reference: Envelope, estimate: Envelope) -> Envelope:
    """Return the correlation of two envelopes of n and m windows, at lags from ``1 - n`` to ``m - 1``."""
    n, m = reference.size, estimate.size
    if n * m <= _DIRECT:
        out = np.zeros(n + m - 1, dtype=np.float32)
        _correlate(reference, 0, n, estimate, 0, m, out, n - 1)
        return out
    size = next_fast_len(n + m - 1, real=True)
    return np.asarray(irfft(rfft(estimate, size) * rfft(reference[::-1], size), size)[: n + m - 1])


def growing_delays(
    reference: Envelope, estimate: Envelope, at: NDArray[np.int64], estimate_at: NDArray[np.int64], unmet: int = 0
) -> NDArray[np.int64]:
    """Return the `envelope_delay` of the first ``at[k]`` windows within as many or fewer of the estimate.

    Neither count falls with k.
    """
    if at[-1] ** 2 <= _DIRECT_IN_ALL:
        return np.asarray(_growing_delays(reference, estimate, at, estimate_at, unmet))
    sizes = zip(at.tolist(), estimate_at.tolist(), strict=True)
    return np.array([envelope_delay(reference[:n], estimate[:m], unmet) for n, m in sizes])


@kernel
def _correlate(x: Flat, x_from: int, x_to: int, y: Flat, y_from: int, y_to: int, out: Flat, zero: int) -> None:
    """Add the products of two stretches by their lag; lag 0 is at ``out[zero]``."""
    stretch = y[y_from:y_to]
    for i in range(x_from, x_to):
        weight = x[i]
        if weight != 0:
            lags = out[zero - i + y_from : zero - i + y_to]
            for j in range(stretch.size):
                lags[j] += weight * stretch[j]


@inlined
def _largest(x: Flat, start: int, stop: int) -> float:
    """Return the largest of some elements; those within `LANES` behind them are none larger than 0."""
    peak, lanes = zeros(x), np.empty(LANES, x.dtype)
    for i in range(start, stop, LANES):
        peak = larger(peak, load(x, i))
    store(lanes, 0, peak)
    return float(lanes.max())


@kernel
def _growing_delays(reference: Flat, estimate: Flat, at: Flat, estimate_at: Flat, unmet: int) -> NDArray[np.int64]:
    most = at[at.size - 1]
    correlation = np.zeros(2 * most + 1 + LANES, np.float32)
    backwards = reference[:most][::-1].copy()
    delays = np.empty(at.size, np.int64)
    n_before, m_before = 0, 0
    for k in range(at.size):
        n, m = at[k], estimate_at[k]
        _correlate(reference, n_before, n, estimate, 0, m, correlation, most)
        # The older windows of the reference, backwards so that lags ascend with them.
        stretch = backwards[most - n_before :]
        for j in range(m_before, m):
            lags = correlation[most + j - n_before + 1 :]
            for i in range(stretch.size):
                lags[i] += estimate[j] * stretch[i]
        n_before, m_before = n, m
        delays[k] = unmet
        if n > 1 and m > 1:
            peak = _largest(correlation, most - n + 1, most + m)
            if peak > 0:
                delays[k] = 1 - n
                while correlation[most + delays[k]] != peak:
                    delays[k] += 1
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
def votes(
    x: Flat, y: Flat, x_at: int, y_at: int, direction: int, n_frames: Flat, t: FrameTables
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the delay of y that most frames vote for, and its share of all votes.

    A frame votes for the delays at which it correlates almost as well as at the best one. Votes are
    spread over neighbouring delays.

    Parameters
    ----------
    x, y : ndarray of float32
    x_at, y_at : int
        Where the first frames begin. A quarter of a frame lies between frames.
    direction : {1, -1}
        Whether the others follow or precede.
    n_frames : ndarray of int64, shape (n,)
        How many frames vote. The counts do not fall.
    t : FrameTables

    Returns
    -------
    delays, confidences : ndarray, shape (n,)
        For each number of frames: samples from 0 to a frame's length, and shares.
    """
    n, used, rank, total, best = t.window.size, 0, 0, 0.0, 0
    work = np.empty(n * LANES, np.float32)
    X, Y = np.empty((n + 2) * LANES, np.float32), np.empty((n + 2) * LANES, np.float32)
    span, peaks = np.empty(n // 4 * _SPAN, np.float32), np.empty(LANES, np.float32)
    places, n_places = np.empty((LANES, n), np.int32), np.empty(LANES, np.int64)
    histogram = np.zeros(n)
    delays, confidences = np.zeros(n_frames.size, np.int64), np.zeros(n_frames.size)
    while True:
        while rank < n_frames.size and n_frames[rank] <= used:
            delays[rank], confidences[rank] = best, histogram[best] / total if total > 0.0 else 0.0
            rank += 1
        if rank == n_frames.size:
            return delays, confidences
        k = used % LANES
        if k == 0:
            n_used = min(LANES, n_frames[-1] - used)
            step = direction * (n // 4) * used
            take_hops(x, x_at + step, direction, n_used, t.window, span, work)
            forward(work, X, t.fourier)
            take_hops(y, y_at + step, direction, n_used, t.window, span, work)
            forward(work, Y, t.fourier)
            _cross(X, Y)
            inverse(Y, work, t.fourier)
            _near_peaks(work, peaks, places, n_places)
        lane = k if direction > 0 else n_used - 1 - k
        weight = float(peaks[lane]) ** _EXPONENT
        for j in range(n_places[lane]):
            total += weight * (n // 64)
            best = _spread(histogram, places[lane, j], weight, n // 64, best)
        used += 1


@inlined
def _cross(X: Flat, Y: Flat) -> None:
    """Overwrite Y by ``conj(X) Y``."""
    for row in range(0, X.size, 2 * LANES):
        xr, xi, yr, yi = load(X, row), load(X, row + LANES), load(Y, row), load(Y, row + LANES)
        store(Y, row, xr * yr + xi * yi)
        store(Y, row + LANES, xr * yi - xi * yr)


@inlined
def _size(work: Flat, row: int) -> Lanes:
    value = load(work, row)
    return larger(value, zeros(work) - value)


@kernel
def _near_peaks(work: Flat, peaks: Flat, places: Flat, n_places: Flat) -> None:
    """Write what each lane's magnitude must exceed to be near its peak, and where it does."""
    peak, over = zeros(work), np.empty(LANES, np.float32)
    for row in range(0, work.size, LANES):
        peak = larger(peak, _size(work, row))
    peak = peak * np.float32(_NEAR_PEAK)
    store(peaks, 0, peak)
    n_places[:] = 0
    block = 8 * LANES
    for start in range(0, work.size, block):
        most = _size(work, start)
        for row in range(start + LANES, start + block, LANES):
            most = larger(most, _size(work, row))
        store(over, 0, most - peak)
        for lane in range(LANES):
            if over[lane] > 0:
                for row in range(start, start + block, LANES):
                    if abs(work[row + lane]) > peaks[lane]:
                        places[lane, n_places[lane]] = row // LANES
                        n_places[lane] += 1


@inlined
def _spread(histogram: Flat, at: int, weight: float, reach: int, best: int) -> int:
    """Add a triangle of votes around a delay; return the delay that has the most votes, given that before."""
    n = histogram.size
    for k in range(1 - reach, reach):
        i = (at + k) & (n - 1)
        histogram[i] += weight * (reach - abs(k))
        if histogram[i] > histogram[best] or (histogram[i] == histogram[best] and i < best):
            best = i
    return best


@kernel
def take_hops(y: Flat, at: int, direction: int, n_frames: int, window: Flat, span: Flat, work: Flat) -> None:
    """Write up to `LANES` frames under a window, a quarter of its length apart, one row a sample.

    Parameters
    ----------
    y : ndarray of float32
    at, direction : int
        Where the first frame begins, and whether the others follow (1) or precede (-1).
    n_frames : int
        Those that precede are in the order of time, the first frame in the last lane.
    window, span, work : ndarray of float32, shapes (n,), (n / 4 * _SPAN,), (n * LANES,)
        `span` is scratch.
    """
    hop = window.size // 4
    # Column c + j of row r is sample ``j hop + r`` of lane c.
    first, n_columns = at if direction > 0 else at + (1 - n_frames) * hop, n_frames + 3
    for r in range(hop):
        source, row = y[first + r :], span[r * _SPAN : (r + 1) * _SPAN]
        for c in range(n_columns):
            row[c] = source[c * hop]
        for c in range(n_columns, _SPAN):
            row[c] = 0
    for j in range(4):
        for r in range(hop):
            store(work, (j * hop + r) * LANES, load(span, r * _SPAN + j) * window[j * hop + r])


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
