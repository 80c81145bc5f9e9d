"""Compiled core of phase-gradient heap integration; importing it imports numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_TWO_PI = 2 * np.pi


@njit(cache=True, error_model="numpy")
def integrate(
    s: NDArray[Any], seeds: NDArray[Any], per_frame: float, per_bin: float, advance: NDArray[Any],
    centre: float, phase: NDArray[Any], done: NDArray[Any],
) -> None:  # fmt: skip
    """Spread phase from the loudest bins over all others, louder neighbours first.

    Parameters
    ----------
    s : ndarray of float32, shape (n_frames, n_bins)
        Log magnitude (natural).
    seeds : ndarray of int64
        Flat indices of the bins to reach, loudest first.
    per_frame, per_bin : float
        Factors of the log magnitude's slope over bins and over frames (rad).
    advance : ndarray of float64, shape (n_bins,)
        Phase advance of a bin's own frequency over one hop, rad.
    centre : float
        Phase step from bin to bin of an impulse at the window's centre, rad.
    phase : ndarray of float32, shape (n_frames, n_bins)
        Overwritten where the phase is found; rad, in [-pi, pi].
    done : ndarray of bool, shape (n_frames, n_bins)
        False exactly at `seeds`, True where `phase` stays as it is; all True on return.
    """
    n_frames, n_bins = s.shape
    keys = np.empty(len(seeds), np.float32)
    bins = np.empty(len(seeds), np.int64)
    for seed in seeds:
        if done.flat[seed]:
            continue
        done.flat[seed] = True
        phase.flat[seed] = 0.0
        keys[0], bins[0] = s.flat[seed], seed
        size = 1
        while size > 0:
            t, k = divmod(bins[0], n_bins)
            size = _pop(keys, bins, size)
            here = phase[t, k]
            for direction in range(4):
                step = 1 if direction % 2 == 0 else -1
                u, m = (t + step, k) if direction < 2 else (t, k + step)
                if u < 0 or u >= n_frames or m < 0 or m >= n_bins or done[u, m]:
                    continue
                if direction < 2:
                    slope = 0.5 * per_frame * (_over_bins(s, t, k) + _over_bins(s, u, k)) + advance[k]
                else:
                    slope = 0.5 * per_bin * (_over_frames(s, t, k) + _over_frames(s, t, m)) + centre
                angle = here + step * slope
                phase[u, m] = angle - _TWO_PI * np.round(angle / _TWO_PI)
                done[u, m] = True
                size = _push(keys, bins, size, s[u, m], u * n_bins + m)


@njit(cache=True, error_model="numpy")
def _over_bins(s: NDArray[Any], t: int, k: int) -> float:
    low, high = max(k - 1, 0), min(k + 1, s.shape[1] - 1)
    return float((s[t, high] - s[t, low]) / max(high - low, 1))


@njit(cache=True, error_model="numpy")
def _over_frames(s: NDArray[Any], t: int, k: int) -> float:
    early, late = max(t - 1, 0), min(t + 1, s.shape[0] - 1)
    return float((s[late, k] - s[early, k]) / max(late - early, 1))


@njit(cache=True)
def _push(keys: NDArray[Any], bins: NDArray[Any], size: int, key: float, item: int) -> int:
    """Sift a new entry up a max-heap; return the new size."""
    at = size
    while at > 0 and keys[(at - 1) // 2] < key:
        parent = (at - 1) // 2
        keys[at], bins[at] = keys[parent], bins[parent]
        at = parent
    keys[at], bins[at] = key, item
    return size + 1


@njit(cache=True)
def _pop(keys: NDArray[Any], bins: NDArray[Any], size: int) -> int:
    """Drop the top of a max-heap; return the new size."""
    size -= 1
    key, item = keys[size], bins[size]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and keys[child + 1] > keys[child]:
            child += 1
        if keys[child] <= key:
            break
        keys[at], bins[at] = keys[child], bins[child]
        at = child
    keys[at], bins[at] = key, item
    return size
