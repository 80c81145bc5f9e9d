"""Where an iteration starts from: random phase, zero phase, integrated phase, or a signal's own."""

from __future__ import annotations

from typing import Any

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

# Bins 80 dB below the loudest say little of phase: to go on to -120 dB (Prusa et al. 2017) takes twice as long and
# changes no score by more than its error.
_TOLERANCE = 1e-4

# About 4 s at a hop of 16 ms: what integration hops about in then nearly stays in a core's cache, and a quiet passage
# is judged by its own loudest bin. A tenth of that begins to cost quality.
_SEGMENT_FRAMES = 256

# Nepers above the tolerance that count as below, so that rounding can't lift what was raised to it.
_MARGIN = 1e-4

# A magnitude that is 0 for audio, and whose share by _TOLERANCE float32 can still hold.
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
    of `_SEGMENT_FRAMES`. Bins 80 dB below a segment's loudest get random phase.

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
    for first in range(0, n_frames, _SEGMENT_FRAMES):
        groups = slice(first // LANES, (first + _SEGMENT_FRAMES) // LANES)
        _integrate(Y[groups], min(_SEGMENT_FRAMES, n_frames - first), params, phase[groups])
    return phase


def _integrate(Y: NDArray[Any], n_frames: int, params: StftParams, phase: NDArray[np.float32]) -> None:
    """Overwrite the phase of audible bins."""
    loudest = float(Y.max())
    if loudest < _SILENT:
        return
    s = np.log(np.maximum(Y, Y.dtype.type(_TOLERANCE * loudest)), dtype=np.float32)
    gamma = _HANN_GAMMA * params.win_length**2
    n_fft, hop = params.n_fft, params.hop_length
    advance = 2 * np.pi * (np.arange(params.n_bins) * hop % n_fft) / n_fft
    least = float(np.log(_TOLERANCE * loudest)) + _MARGIN
    integrate(s, n_frames, least, hop * n_fft / gamma, -gamma / (hop * n_fft), advance, _centre_step(params), phase)


def signal_phase(projection: Projection) -> NDArray[Any]:
    """Return the phase of the STFT of the projection's current signal, rad, in lane layout."""
    Z = projection.analyse()
    return np.asarray(np.arctan2(Z[:, :, 1], Z[:, :, 0]))


def _centre_step(params: StftParams) -> float:
    centre = (params.n_fft - params.win_length) // 2 + params.win_length / 2
    return -2 * np.pi * centre / params.n_fft
