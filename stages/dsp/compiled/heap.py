"""Compiled core of phase-gradient heap integration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.lanes.vector import LANES, inlined, kernel

_TWO_PI = 2 * np.pi

# Entries within this much log magnitude of each other (0.02 dB) are taken in any order: a queue of levels then stands
# for the heap, which would cost a sort of all bins.
_LEVELS_PER_NEPER = 500.0

_END = -1


@kernel
def integrate(
    s: NDArray[Any], first: int, stop: int, least: float, most: float,
    per_frame: float, per_bin: float, advance: NDArray[Any], centre: float, phase: NDArray[Any],
) -> None:  # fmt: skip
    """Spread phase from the loudest bins over all others that are audible, louder neighbours first.

    Parameters
    ----------
    s : ndarray of float32, shape (n_groups, n_bins, LANES)
        Log magnitude (natural) in lane layout.
    first, stop : int
        Frames to integrate over.
    least, most : float
        The least log magnitude that counts as audible, and the largest there is.
    per_frame, per_bin : float
        Factors of the log magnitude's slope over bins and over frames (rad).
    advance : ndarray of float64, shape (n_bins,)
        Phase advance of a bin's own frequency over one hop, rad.
    centre : float
        Phase step from bin to bin of an impulse at the window's centre, rad.
    phase : ndarray of float32, shape (n_groups, n_bins, LANES)
        Overwritten where the phase is found; rad, in [-pi, pi].
    """
    n_bins, n_frames = s.shape[1], stop - first
    lowest = _level(least, 0)
    n_levels = _level(most, lowest) + 1
    heads, waiting = np.full(n_levels, _END, np.int32), np.full(n_levels, _END, np.int32)
    following, seeds = np.empty(n_frames * n_bins, np.int32), np.empty(n_frames * n_bins, np.int32)
    done = np.empty(n_frames * n_bins, np.bool_)
    for t in range(n_frames):
        for k in range(n_bins):
            here = t * n_bins + k
            loud = _at(s, first + t, k)
            done[here] = not loud > least
            if not done[here]:
                level = _level(loud, lowest)
                seeds[here], waiting[level] = waiting[level], here
    for level in range(n_levels - 1, -1, -1):
        seed = waiting[level]
        while seed != _END:
            if not done[seed]:
                done[seed] = True
                _set(phase, first + seed // n_bins, seed % n_bins, 0.0)
                following[seed], heads[level] = _END, seed
                _spread(s, first, n_frames, lowest, per_frame, per_bin, advance, centre, phase, done, heads, following,
                        level)  # fmt: skip
            seed = seeds[seed]


@inlined
def _spread(
    s: NDArray[Any], first: int, n_frames: int, lowest: int, per_frame: float, per_bin: float,
    advance: NDArray[Any], centre: float, phase: NDArray[Any], done: NDArray[Any], heads: NDArray[Any],
    following: NDArray[Any], top: int,
) -> None:  # fmt: skip
    n_bins = s.shape[1]
    while top >= 0:
        entry = heads[top]
        if entry == _END:
            top -= 1
            continue
        heads[top] = following[entry]
        t, k = entry // n_bins, entry % n_bins
        here = _at(phase, first + t, k)
        for direction in range(4):
            step = 1 if direction % 2 == 0 else -1
            u, m = (t + step, k) if direction < 2 else (t, k + step)
            if u < 0 or u >= n_frames or m < 0 or m >= n_bins or done[u * n_bins + m]:
                continue
            if direction < 2:
                slope = 0.5 * per_frame * (_over_bins(s, first + t, k) + _over_bins(s, first + u, k)) + advance[k]
            else:
                slopes = _over_frames(s, first, n_frames, t, k) + _over_frames(s, first, n_frames, t, m)
                slope = 0.5 * per_bin * slopes + centre
            angle = here + step * slope
            _set(phase, first + u, m, angle - _TWO_PI * np.round(angle / _TWO_PI))
            there = u * n_bins + m
            done[there] = True
            level = _level(_at(s, first + u, m), lowest)
            following[there], heads[level] = heads[level], there
            top = max(top, level)


@inlined
def _level(loud: float, lowest: int) -> int:
    return int(np.floor(loud * _LEVELS_PER_NEPER)) - lowest


@inlined
def _at(array: NDArray[Any], t: int, k: int) -> Any:  # noqa: ANN401 - a float of the array's precision
    return array[t // LANES, k, t % LANES]


@inlined
def _set(array: NDArray[Any], t: int, k: int, value: float) -> None:
    array[t // LANES, k, t % LANES] = value


@inlined
def _over_bins(s: NDArray[Any], t: int, k: int) -> float:
    low, high = max(k - 1, 0), min(k + 1, s.shape[1] - 1)
    return float((_at(s, t, high) - _at(s, t, low)) / max(high - low, 1))


@inlined
def _over_frames(s: NDArray[Any], first: int, n_frames: int, t: int, k: int) -> float:
    early, late = max(t - 1, 0), min(t + 1, n_frames - 1)
    return float((_at(s, first + late, k) - _at(s, first + early, k)) / max(late - early, 1))
