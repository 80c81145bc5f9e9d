"""Compiled core of phase-gradient heap integration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.lanes.vector import LANES, inlined, kernel

_TWO_PI = 2 * np.pi
_TURNS = 1 / _TWO_PI

# Entries within this much log magnitude of each other (0.17 dB) are taken in any order: a queue of levels then stands
# for the heap, and nothing is sorted.
_LEVELS_PER_NEPER = 50.0

# A bin's four fields lie together, as integration hops about and would wait for memory once a field: its log magnitude
# and phase (float32), the entry after it in its level's queue, and the seed after it (int32).
_LOUD, _PHASE, _NEXT, _SEED, _FIELDS = 0, 1, 2, 3, 4

# In place of an entry: the queue ends here; the bin was never queued.
_END, _UNSEEN = -1, -2


def integrate(
    s: NDArray[Any], n_frames: int, least: float, per_frame: float, per_bin: float, advance: NDArray[Any],
    centre: float, phase: NDArray[Any],
) -> None:  # fmt: skip
    """Spread phase from the loudest bins over all others that are audible, louder neighbours first.

    Parameters
    ----------
    s : ndarray of float32, shape (n_groups, n_bins, LANES)
        Log magnitude (natural) in lane layout.
    n_frames : int
        Frames that `s` holds.
    least : float
        The log magnitude that an audible bin exceeds.
    per_frame, per_bin : float
        Factors of the log magnitude's slope over bins and over frames (rad).
    advance : ndarray of float64, shape (n_bins,)
        Phase advance of a bin's own frequency over one hop, rad.
    centre : float
        Phase step from bin to bin of an impulse at the window's centre, rad.
    phase : ndarray of float32, shape (n_groups, n_bins, LANES)
        Overwritten where the phase is found; rad, in [-pi, pi].
    """
    fields = np.empty((n_frames + 2) * (s.shape[1] + 2) * _FIELDS, dtype=np.int32)
    values = fields.view(np.float32)
    lowest = int(np.floor(least * _LEVELS_PER_NEPER))
    n_levels = int(np.floor(float(s.max()) * _LEVELS_PER_NEPER)) - lowest + 1
    heads, seeds = np.full(n_levels, _END, dtype=np.int32), np.full(n_levels, _END, dtype=np.int32)
    _fill(s, n_frames, least, lowest, fields, values, seeds)
    _integrate(fields, values, heads, seeds, lowest, per_frame, per_bin, advance, centre)
    _copy(values, s, n_frames, least, phase)


@kernel
def _fill(
    s: NDArray[Any], n_frames: int, least: float, lowest: int,
    fields: NDArray[Any], values: NDArray[Any], seeds: NDArray[Any],
) -> None:  # fmt: skip
    """Fill the bins' fields, with a border that continues the slopes at the edges and counts as done."""
    n_bins = s.shape[1]
    width = n_bins + 2
    for t in range(-1, n_frames + 1):
        u = min(max(t, 0), n_frames - 1)
        inward = u - (t - u) if n_frames > 1 else u
        for k in range(-1, n_bins + 1):
            m = min(max(k, 0), n_bins - 1)
            inner = m - (k - m) if n_bins > 1 else m
            loud = _at(s, u, m)
            here = (t + 1) * width + k + 1
            border = u != t or m != k
            values[here * _FIELDS + _LOUD] = 2 * loud - _at(s, inward, inner) if border else loud
            fields[here * _FIELDS + _NEXT] = _END
            if not border and loud > least:
                fields[here * _FIELDS + _NEXT] = _UNSEEN
                level = _level(loud, lowest)
                fields[here * _FIELDS + _SEED], seeds[level] = seeds[level], here


@kernel
def _integrate(
    fields: NDArray[Any], values: NDArray[Any], heads: NDArray[Any], seeds: NDArray[Any], lowest: int,
    per_frame: float, per_bin: float, advance: NDArray[Any], centre: float,
) -> None:  # fmt: skip
    width = len(advance) + 2
    for start in range(len(heads) - 1, -1, -1):
        seed = seeds[start]
        while seed != _END:
            if fields[seed * _FIELDS + _NEXT] == _UNSEEN:
                values[seed * _FIELDS + _PHASE] = 0.0
                fields[seed * _FIELDS + _NEXT], heads[start] = _END, seed
                top = start
                while top >= 0:
                    here = heads[top]
                    if here == _END:
                        top -= 1
                        continue
                    heads[top] = fields[here * _FIELDS + _NEXT]
                    angle = values[here * _FIELDS + _PHASE]
                    over_bins, over_frames = _slope(values, here, 1), _slope(values, here, width)
                    for step in (1, -1):
                        there = here + step * width
                        if fields[there * _FIELDS + _NEXT] == _UNSEEN:
                            slope = 0.5 * per_frame * (over_bins + _slope(values, there, 1))
                            slope += advance[here % width - 1]
                            top = max(top, _queue(fields, values, heads, there, angle + step * slope, lowest))
                    for step in (1, -1):
                        there = here + step
                        if fields[there * _FIELDS + _NEXT] == _UNSEEN:
                            slope = 0.5 * per_bin * (over_frames + _slope(values, there, width)) + centre
                            top = max(top, _queue(fields, values, heads, there, angle + step * slope, lowest))
            seed = fields[seed * _FIELDS + _SEED]


@inlined
def _queue(
    fields: NDArray[Any], values: NDArray[Any], heads: NDArray[Any], here: int, angle: float, lowest: int
) -> int:
    """Give a bin its phase and queue it; return its level."""
    values[here * _FIELDS + _PHASE] = angle - _TWO_PI * np.round(angle * _TURNS)
    level = _level(values[here * _FIELDS + _LOUD], lowest)
    fields[here * _FIELDS + _NEXT], heads[level] = heads[level], here
    return int(level)


@inlined
def _slope(values: NDArray[Any], here: int, step: int) -> float:
    return float(0.5 * (values[(here + step) * _FIELDS + _LOUD] - values[(here - step) * _FIELDS + _LOUD]))


@inlined
def _level(loud: float, lowest: int) -> int:
    return int(np.floor(loud * _LEVELS_PER_NEPER)) - lowest


@kernel
def _copy(
    values: NDArray[Any], s: NDArray[Any], n_frames: int, least: float,
    phase: NDArray[Any],
) -> None:  # fmt: skip
    width = s.shape[1] + 2
    for t in range(n_frames):
        for k in range(s.shape[1]):
            if _at(s, t, k) > least:
                phase[t // LANES, k, t % LANES] = values[((t + 1) * width + k + 1) * _FIELDS + _PHASE]


@inlined
def _at(array: NDArray[Any], t: int, k: int) -> Any:  # noqa: ANN401 - a float of the array's precision
    return array[t // LANES, k, t % LANES]
