"""Starting phases: random, zero, integrated from the magnitude, or a signal's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.projection import Projection
from melmill.stages.numeric.lanes.framing import n_groups
from melmill.stages.numeric.lanes.sweep import to_lanes
from melmill.stages.numeric.lanes.vector import LANES, inlined, kernel
from melmill.stages.numeric.melspec import StftParams
from melmill.stages.numeric.solver import Recipe, Seed

_TWO_PI = 2 * np.pi
_TURNS = 1 / _TWO_PI

# Entries within 1 / 50 neper of each other (0.17 dB) are taken in any order. So a queue for each
# level stands for the heap, and nothing is sorted.
_LEVELS_PER_NEPER = 50.0

# A bin's four fields lie together, as integration hops about and would wait for memory once for
# each: its log magnitude and phase (float32), the entry after it in its level's queue, and the seed
# after it (int32).
_LOUD, _PHASE, _NEXT, _SEED, _FIELDS = 0, 1, 2, 3, 4

# In place of an entry: the queue ends here; the bin was never queued.
_END, _UNSEEN = -1, -2


def integrate(
    s: NDArray[np.float32], n_frames: int, least: float, per_frame: float, per_bin: float, advance: NDArray[np.float64],
    centre: float, phase: NDArray[np.float32],
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
    s: NDArray[np.float32], n_frames: int, least: float, lowest: int,
    fields: NDArray[np.int32], values: NDArray[np.float32], seeds: NDArray[np.int32],
) -> None:  # fmt: skip
    """Fill the bins' fields. A border continues the slopes at the edges and counts as done."""
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
    fields: NDArray[np.int32], values: NDArray[np.float32], heads: NDArray[np.int32], seeds: NDArray[np.int32],
    lowest: int, per_frame: float, per_bin: float, advance: NDArray[np.float64], centre: float,
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
    fields: NDArray[np.int32],
    values: NDArray[np.float32],
    heads: NDArray[np.int32],
    here: int,
    angle: float,
    lowest: int,
) -> int:
    """Give a bin its phase and queue it; return its level."""
    values[here * _FIELDS + _PHASE] = angle - _TWO_PI * np.round(angle * _TURNS)
    level = _level(values[here * _FIELDS + _LOUD], lowest)
    fields[here * _FIELDS + _NEXT], heads[level] = heads[level], here
    return int(level)


@inlined
def _slope(values: NDArray[np.float32], here: int, step: int) -> float:
    return float(0.5 * (values[(here + step) * _FIELDS + _LOUD] - values[(here - step) * _FIELDS + _LOUD]))


@inlined
def _level(loud: float, lowest: int) -> int:
    return int(np.floor(loud * _LEVELS_PER_NEPER)) - lowest


@kernel
def _copy(
    values: NDArray[np.float32], s: NDArray[np.float32], n_frames: int, least: float,
    phase: NDArray[np.float32],
) -> None:  # fmt: skip
    width = s.shape[1] + 2
    for t in range(n_frames):
        for k in range(s.shape[1]):
            if _at(s, t, k) > least:
                phase[t // LANES, k, t % LANES] = values[((t + 1) * width + k + 1) * _FIELDS + _PHASE]


@inlined
def _at(array: NDArray[np.float32], t: int, k: int) -> Any:  # noqa: ANN401 - a float32
    return array[t // LANES, k, t % LANES]


# A periodic Hann window of `win_length` samples is nearest to the Gaussian exp(-pi t^2 / gamma)
# with this gamma / win_length^2 (Prusa et al. 2017, table of window constants).
_HANN_GAMMA = 0.25645

# Bins 80 dB below the loudest say little about phase. Integrating down to -120 dB changes no score
# by more than its error (docs/results.md).
TOLERANCE = 1e-4

# Of a magnitude that a prior guessed. Bins down to -60 dB take half the time, and no score after the
# first iterations is worse (docs/results.md).
GUIDED_TOLERANCE = 1e-3

# About 4 s at a hop of 16 ms. The bins of a segment then nearly fit a core's cache, and a quiet
# passage is judged by its own loudest bin. A tenth of that begins to cost quality.
SEGMENT_FRAMES = 256

# Nepers above the tolerance that count as below, so that rounding can't lift what was raised to it.
_MARGIN = 1e-4

# A magnitude that is 0 for audio, and whose share by TOLERANCE float32 can still hold.
_SILENT = 1e-30


def start_phase(
    recipe: Recipe,
    params: StftParams,
    length: int,
    magnitude: Callable[[], NDArray[np.floating]],
    tolerance: float = TOLERANCE,
) -> NDArray[np.floating]:
    """Return the phase that a recipe starts from, rad, in lane layout.

    Parameters
    ----------
    recipe : Recipe
        A waveform to start from has `length` samples.
    params : StftParams
    length : int
        Samples of the result.
    magnitude : callable
        Returns the magnitude in lane layout; called where the phase follows from it.
    tolerance : float
        Of PGHI.
    """
    n_frames = params.n_frames(length)
    if not isinstance(recipe.start, str):
        projection = Projection(params, length, recipe.dtype)
        projection.samples = recipe.start
        Z = projection.analyse()
        return np.asarray(np.arctan2(Z[:, :, 1], Z[:, :, 0]))
    if recipe.start == "random":
        return random_phase(n_frames, params.n_bins, recipe.seed)
    if recipe.start == "zero":
        return zero_phase(n_frames, params)
    return pghi(magnitude(), n_frames, params, recipe.seed, tolerance)


def random_phase(n_frames: int, n_bins: int, seed: Seed) -> NDArray[np.float32]:
    """Return phases uniform in [-pi, pi), rad, in lane layout. The sizes and `seed` decide them."""
    phase = np.random.default_rng(seed).random((n_bins, n_frames), dtype=np.float32)
    phase -= np.float32(0.5)
    phase *= np.float32(2 * np.pi)
    return to_lanes(phase)


def zero_phase(n_frames: int, params: StftParams) -> NDArray[np.float32]:
    """Return the phases of impulses at the windows' centres, rad: zero phase for the window."""
    phase = np.remainder(_centre_step(params) * np.arange(params.n_bins), 2 * np.pi)
    shape = (n_groups(n_frames), params.n_bins, LANES)
    return np.broadcast_to(phase.astype(np.float32)[:, np.newaxis], shape)


def pghi(
    Y: NDArray[np.floating], n_frames: int, params: StftParams, seed: Seed, tolerance: float = TOLERANCE
) -> NDArray[np.float32]:
    """Return the phase that a magnitude implies, by phase-gradient heap integration.

    The phase of an STFT with a Gaussian window follows from the slopes of its log magnitude. The
    Hann window is taken for the Gaussian nearest to it. Integration starts at the loudest bin and
    goes to louder neighbours first, in segments of `SEGMENT_FRAMES`. Bins that lie below a segment's
    loudest by the tolerance get random phase.

    Parameters
    ----------
    Y : ndarray, shape (n_groups, n_bins, LANES)
        Magnitude in lane layout.
    n_frames : int
        Number of frames in Y.
    params : StftParams
    seed : int or sequence of int
    tolerance : float
        Share of the loudest bin, as `segments` takes it.

    Returns
    -------
    ndarray of float32, shape (n_groups, n_bins, LANES)
        Phase in [-pi, pi], rad, referred to each frame's first sample as the FFT's.

    References
    ----------
    Prusa, Balazs and Søndergaard 2017, "A noniterative method for reconstruction of phase from STFT
    magnitude".
    """
    phase = random_phase(n_frames, params.n_bins, seed)
    for segment in segments(Y, n_frames, tolerance):
        spread(segment, params, phase)
    return phase


class Segment(NamedTuple):
    """Frames that are integrated by themselves.

    Parameters
    ----------
    groups : slice
        Of the lane layout's first axis.
    n_frames : int
    s : ndarray of float32, shape (n_groups, n_bins, LANES)
        Natural log magnitude.
    least : float
        What it exceeds where a bin is audible.
    """

    groups: slice
    n_frames: int
    s: NDArray[np.float32]
    least: float


def segments(
    Y: NDArray[np.floating], n_frames: int, tolerance: float = TOLERANCE, length: int = SEGMENT_FRAMES
) -> Iterator[Segment]:
    """Yield the segments of a magnitude in lane layout that hold anything, each with its own floor.

    Parameters
    ----------
    Y : ndarray, shape (n_groups, n_bins, LANES)
    n_frames : int
    tolerance : float
        Share of a segment's loudest bin that an audible one exceeds.
    length : int
        Frames of a segment, a multiple of LANES.
    """
    for first in range(0, n_frames, length):
        groups = slice(first // LANES, (first + length) // LANES)
        part = Y[groups]
        loudest = float(part.max())
        if loudest >= _SILENT:
            s = np.log(np.maximum(part, part.dtype.type(tolerance * loudest)), dtype=np.float32)
            least = float(np.log(tolerance * loudest)) + _MARGIN
            yield Segment(groups, min(length, n_frames - first), s, least)


def spread(segment: Segment, params: StftParams, phase: NDArray[np.float32]) -> None:
    """Overwrite the phase of a segment's audible bins, in the lane layout of the whole."""
    gamma = _HANN_GAMMA * params.win_length**2
    n_fft, hop = params.n_fft, params.hop_length
    advance = 2 * np.pi * (np.arange(params.n_bins) * hop % n_fft) / n_fft
    integrate(
        segment.s, segment.n_frames, segment.least, hop * n_fft / gamma, -gamma / (hop * n_fft), advance,
        _centre_step(params), phase[segment.groups],
    )  # fmt: skip


def _centre_step(params: StftParams) -> float:
    centre = (params.n_fft - params.win_length) // 2 + params.win_length / 2
    return -2 * np.pi * centre / params.n_fft
