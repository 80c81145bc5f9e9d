"""Where an iteration starts from: random phase, zero phase, integrated phase, or a signal's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.compiled.heap import integrate
from melmill.stages.dsp.compiled.projection import Projection
from melmill.stages.dsp.lanes.framing import n_groups
from melmill.stages.dsp.lanes.sweep import to_lanes
from melmill.stages.dsp.lanes.vector import LANES
from melmill.stages.dsp.melspec import StftParams
from melmill.stages.dsp.recipe import Seed

# A periodic Hann window of `win_length` samples is nearest to the Gaussian exp(-pi t^2 / gamma) with this
# gamma / win_length^2 (Prusa et al. 2017, table of window constants).
_HANN_GAMMA = 0.25645

# Bins 80 dB below the loudest say little of phase: to integrate more of them, down to -120 dB, changes no score by
# more than its error (docs/results.md).
TOLERANCE = 1e-4

# About 4 s at a hop of 16 ms: what integration hops about in then nearly stays in a core's cache, and a quiet passage
# is judged by its own loudest bin. A tenth of that begins to cost quality.
SEGMENT_FRAMES = 256

# Nepers above the tolerance that count as below, so that rounding can't lift what was raised to it.
_MARGIN = 1e-4

# A magnitude that is 0 for audio, and whose share by TOLERANCE float32 can still hold.
_SILENT = 1e-30


def random_phase(n_frames: int, n_bins: int, seed: Seed) -> NDArray[np.float32]:
    """Return phases uniform in [-pi, pi), rad, in lane layout, a function of the sizes and `seed` alone."""
    phase = np.random.default_rng(seed).random((n_bins, n_frames), dtype=np.float32)
    phase -= np.float32(0.5)
    phase *= np.float32(2 * np.pi)
    return to_lanes(phase)


def zero_phase(n_frames: int, params: StftParams) -> NDArray[np.float32]:
    """Return the phases of impulses at the windows' centres, rad: zero phase as the window sees it."""
    phase = np.remainder(_centre_step(params) * np.arange(params.n_bins), 2 * np.pi)
    shape = (n_groups(n_frames), params.n_bins, LANES)
    return np.broadcast_to(phase.astype(np.float32)[:, np.newaxis], shape)


def pghi(Y: NDArray[Any], n_frames: int, params: StftParams, seed: Seed) -> NDArray[np.float32]:
    """Return the phase that a magnitude implies, by phase-gradient heap integration.

    The phase of an STFT with a Gaussian window follows from its log magnitude's slopes; the Hann window is taken for
    the Gaussian nearest to it. Integration starts at the loudest bin and goes to louder neighbours first, in segments
    of `SEGMENT_FRAMES`. Bins 80 dB below a segment's loudest get random phase.

    Parameters
    ----------
    Y : ndarray, shape (n_groups, n_bins, LANES)
        Magnitude in lane layout.
    n_frames : int
        Number of frames in Y.
    params : StftParams
    seed : int or sequence of int

    Returns
    -------
    ndarray of float32, shape (n_groups, n_bins, LANES)
        Phase in [-pi, pi], rad, referred to each frame's first sample as the FFT's.

    References
    ----------
    Prusa, Balazs and Søndergaard 2017, "A noniterative method for reconstruction of phase from STFT magnitude".
    """
    phase = random_phase(n_frames, params.n_bins, seed)
    for segment in segments(Y, n_frames):
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
    Y: NDArray[Any], n_frames: int, tolerance: float = TOLERANCE, length: int = SEGMENT_FRAMES
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


def signal_phase(projection: Projection) -> NDArray[Any]:
    """Return the phase of the STFT of the projection's current signal, rad, in lane layout."""
    Z = projection.analyse()
    return np.asarray(np.arctan2(Z[:, :, 1], Z[:, :, 0]))


def _centre_step(params: StftParams) -> float:
    centre = (params.n_fft - params.win_length) // 2 + params.win_length / 2
    return -2 * np.pi * centre / params.n_fft
