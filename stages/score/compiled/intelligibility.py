"""Compiled passes of STOI and ESTOI, over `LANES` segments or samples at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.mel import sweep_bands
from melmill.stages.numeric.lanes.bands import Runs, runs
from melmill.stages.numeric.lanes.framing import analysis, n_groups, tiled
from melmill.stages.numeric.lanes.sweep import sweep
from melmill.stages.numeric.lanes.vector import (  # fmt: skip
    LANES,
    Flat,
    Lanes,
    inlined,
    kept,
    kernel,
    larger,
    load,
    root,
    smaller,
    store,
    zeros,
)


class Polyphase(NamedTuple):
    """Hold a low-pass from one rate to another: taps of each output phase, and their inputs."""

    up: int
    down: int
    before: int  # samples of padding before the signal
    taps: NDArray[np.float64]
    plane: NDArray[np.int64]
    shift: NDArray[np.int64]


@lru_cache(maxsize=8)
def polyphase(sr: int, rate: int, low_pass: Callable[[int], NDArray[np.float64]]) -> Polyphase:
    """Return the filter from `sr` to `rate` Hz; the low-pass is symmetric and has unit sum."""
    up, down = rate // gcd(sr, rate), sr // gcd(sr, rate)
    h = up * low_pass(max(up, down))
    per_phase = -(-h.size // up)
    at = np.arange(up) * down + h.size // 2
    first, j = at % up, np.arange(per_phase)
    taps = np.pad(h, (0, up * (per_phase + 1) - h.size))[first[:, np.newaxis] + up * j]
    before = down * (1 + per_phase // down)
    places = (at // up)[:, np.newaxis] - j + before
    return Polyphase(up, down, before, taps, places % down, places // down)


def resampled(y: NDArray[np.float64], filter: Polyphase) -> NDArray[np.float64]:
    """Return a signal at the filter's output rate, ``ceil(n_samples up / down)`` samples."""
    n_out = -(-y.size * filter.up // filter.down)
    per_phase = -(-n_out // filter.up)
    width = per_phase + int(filter.shift.max()) + 2 * LANES
    padded = np.zeros(width * filter.down)
    padded[filter.before : filter.before + y.size] = y
    planes = np.ascontiguousarray(padded.reshape(width, filter.down).T)
    out = np.empty((filter.up, -(-per_phase // LANES) * LANES))
    _resample(planes, filter, out)
    return np.ascontiguousarray(out[:, :per_phase].T).reshape(-1)[:n_out]


@kernel
def _resample(planes: Flat, f: Polyphase, out: Flat) -> None:
    width = planes.shape[1]
    for phase in range(f.up):
        for m in range(0, out.shape[1], LANES):
            total = zeros(out)
            for j in range(f.taps.shape[1]):
                total = total + load(planes, f.plane[phase, j] * width + m + f.shift[phase, j]) * f.taps[phase, j]
            store(out, phase * out.shape[1] + m, total)


def envelopes(
    y: NDArray[np.float64], window: NDArray[np.float64], n_fft: int, bands: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the root of each band's power in frames of a window's length, half a window apart.

    Parameters
    ----------
    y : ndarray, shape (n_samples,)
    window : ndarray, shape (frame_length,)
        Padded to `n_fft` with zeros.
    bands : ndarray, shape (n_bands, 1 + n_fft // 2)

    Returns
    -------
    ndarray, shape (n_bands, n_frames)
        A last frame that ends with the signal is left out, as in the reference implementation.
    """
    hop = window.size // 2
    n_frames = max(0, 1 + (y.size - 1 - window.size) // hop)
    padded = np.pad(window, (0, n_fft - window.size))
    s = sweep(analysis(padded, hop, n_frames, "float64"), n_fft)
    signal = np.zeros(s.signal.size)
    size = min(y.size, signal.size)
    signal[:size] = y[:size]
    s.signal[...] = tiled(signal, hop)
    power = np.empty((len(bands), n_groups(n_frames) * LANES))
    sweep_bands(s, _runs(bands.tobytes(), bands.shape), 1.0, 0.0, 0.0, 2.0, power)
    return np.asarray(np.sqrt(power[:, :n_frames]))


@lru_cache(maxsize=2)
def _runs(bands: bytes, shape: tuple[int, int]) -> Runs:
    return runs(np.frombuffer(bands).reshape(shape), "float64")


@kernel
def clipped_correlation(x: Flat, y: Flat, length: int, most: float, eps: float) -> float:
    """Return the sum over bands and segments of the correlations of x with y.

    Each segment of y is scaled to the level of x and clipped to ``most x``. Segments are all runs
    of `length` frames of ``(n_bands, n_frames)``, which are padded by `LANES`.
    """
    n_segments = x.shape[1] - LANES - length + 1
    total, clipped, lanes = 0.0, np.empty(length * LANES), np.empty(LANES)
    for m in range(0, n_segments, LANES):
        sums = zeros(x)
        for b in range(x.shape[0]):
            at = b * x.shape[1] + m
            xx, yy = zeros(x), zeros(x)
            for i in range(length):
                a, c = load(x, at + i), load(y, at + i)
                xx, yy = xx + a * a, yy + c * c
            level = root(xx) / (root(yy) + eps)
            for i in range(length):
                store(clipped, i * LANES, smaller(load(y, at + i) * level, load(x, at + i) * most))
            a_mean, a_over = _pattern(x, at, 1, length, eps)
            c_mean, c_over = _pattern(clipped, 0, LANES, length, eps)
            both = zeros(x)
            for i in range(length):
                both = both + (load(x, at + i) - a_mean) * (load(clipped, i * LANES) - c_mean)
            sums = sums + both * a_over * c_over
        store(lanes, 0, sums)
        for lane in range(min(LANES, n_segments - m)):
            total += lanes[lane]
    return total


@kernel
def spectral_correlation(x: Flat, y: Flat, length: int, eps: float) -> float:
    """Return the sum over segments and frames of the correlations over bands.

    Each band is normalised over the segment first.
    """
    n_bands, n_segments = x.shape[0], x.shape[1] - LANES - length + 1
    total, lanes = 0.0, np.empty(LANES)
    rows_x, rows_y = np.empty(n_bands * length * LANES), np.empty(n_bands * length * LANES)
    for m in range(0, n_segments, LANES):
        _normalise_bands(x, m, length, eps, rows_x)
        _normalise_bands(y, m, length, eps, rows_y)
        sums = zeros(x)
        for i in range(length):
            a_mean, a_over = _pattern(rows_x, i * LANES, length * LANES, n_bands, eps)
            c_mean, c_over = _pattern(rows_y, i * LANES, length * LANES, n_bands, eps)
            both = zeros(x)
            for b in range(n_bands):
                row = (b * length + i) * LANES
                both = both + (load(rows_x, row) - a_mean) * (load(rows_y, row) - c_mean)
            sums = sums + both * a_over * c_over
        store(lanes, 0, sums)
        for lane in range(min(LANES, n_segments - m)):
            total += lanes[lane]
    return total


@inlined
def _normalise_bands(x: Flat, m: int, length: int, eps: float, rows: Flat) -> None:
    for b in range(x.shape[0]):
        at = b * x.shape[1] + m
        mean, over = _pattern(x, at, 1, length, eps)
        for i in range(length):
            store(rows, (b * length + i) * LANES, (load(x, at + i) - mean) * over)


@inlined
def _pattern(x: Flat, at: int, step: int, length: int, eps: float) -> tuple[Lanes, Lanes]:
    """Return the mean of `length` vectors, and 1 over the norm of the rest; 0 if constant."""
    total, most = zeros(x), zeros(x)
    for i in range(length):
        value = load(x, at + i * step)
        total, most = total + value, larger(most, larger(value, 0.0 - value))
    mean, energy = total * (1.0 / length), zeros(x)
    for i in range(length):
        centred = load(x, at + i * step) - mean
        energy = energy + centred * centred
    norm = root(energy)
    return mean, kept(1.0 / larger(norm, 1e-300), norm, most * (1e3 * eps))
