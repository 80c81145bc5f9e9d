"""Where an iteration starts from: random phase, zero phase, integrated phase, or a signal's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.melspec import StftParams
from melmill.stages.dsp.projection import Projection

START_WORDS = ("random", "zero", "pghi")

# A periodic Hann window of `win_length` samples is nearest to the Gaussian exp(-pi t^2 / gamma) with this
# gamma / win_length^2 (Prusa et al. 2017, table of window constants).
_HANN_GAMMA = 0.25645

# Below this share of the loudest bin a magnitude says nothing of phase (Prusa et al. 2017 call it tol).
_TOLERANCE = 1e-6

# About a minute at a hop of 16 ms: bounds the heap's memory, and keeps its jumps near.
_SEGMENT_FRAMES = 4096

# A magnitude that is 0 for audio, and whose share by _TOLERANCE float32 can still hold.
_SILENT = 1e-30

Seed = int | Sequence[int]


def random_phase(shape: tuple[int, int], seed: Seed) -> NDArray[np.float32]:
    """Return phases uniform in [-pi, pi), rad, a function of `shape` and `seed` alone."""
    phase = np.random.default_rng(seed).random(shape, dtype=np.float32)
    phase -= np.float32(0.5)
    phase *= np.float32(2 * np.pi)
    return phase


def zero_phase(shape: tuple[int, int], params: StftParams) -> NDArray[np.float32]:
    """Return the phases of impulses at the windows' centres, rad: zero phase as the window sees it."""
    phase = np.remainder(_centre_step(params) * np.arange(params.n_bins), 2 * np.pi)
    return np.broadcast_to(phase.astype(np.float32), shape)


def pghi(Y: NDArray[Any], params: StftParams, seed: Seed) -> NDArray[np.float32]:
    """Return the phase that a magnitude implies, by phase-gradient heap integration.

    The phase of an STFT with a Gaussian window follows from its log magnitude's slopes; the Hann window is taken for
    the Gaussian nearest to it. Integration starts at the loudest bin and goes to louder neighbours first. Bins of less
    than a millionth of the loudest get random phase. Recordings over `_SEGMENT_FRAMES` are integrated in segments.

    Parameters
    ----------
    Y : ndarray, shape (n_frames, n_bins)
        Magnitude.
    params : StftParams
    seed : int or sequence of int

    Returns
    -------
    ndarray of float32, shape (n_frames, n_bins)
        Phase in [-pi, pi], rad, referred to each frame's first sample as the FFT's.

    References
    ----------
    Prusa, Balazs and Søndergaard 2017, "A noniterative method for reconstruction of phase from STFT magnitude".
    """
    phase = random_phase((len(Y), params.n_bins), seed)
    loudest = float(Y.max(initial=0.0))
    if loudest >= _SILENT:
        for start in range(0, len(Y), _SEGMENT_FRAMES):
            segment = slice(start, start + _SEGMENT_FRAMES)
            _integrate(Y[segment], params, _TOLERANCE * loudest, phase[segment])
    return phase


def _integrate(Y: NDArray[Any], params: StftParams, least: float, phase: NDArray[np.float32]) -> None:
    """Overwrite the phase of the bins above `least`."""
    from melmill.stages.dsp.heap import integrate  # here, as it imports numba

    s = np.log(np.maximum(Y, least), dtype=np.float32)
    faint = least >= Y
    audible = np.flatnonzero(~faint)
    seeds = audible[np.argsort(-s.ravel()[audible], kind="stable")]
    gamma = _HANN_GAMMA * params.win_length**2
    n_fft, hop = params.n_fft, params.hop_length
    advance = 2 * np.pi * (np.arange(params.n_bins) * hop % n_fft) / n_fft
    integrate(s, seeds, hop * n_fft / gamma, -gamma / (hop * n_fft), advance, _centre_step(params), phase, faint)


def signal_phase(y: NDArray[Any], projection: Projection) -> NDArray[np.float32]:
    """Return the phase of a signal's own STFT, rad."""
    framed = projection.framed(y)
    phase = [np.angle(projection.analyse(framed, block)) for block in projection.blocks()]
    return np.concatenate(phase) if phase else np.empty((0, projection.params.n_bins), dtype=np.float32)


def _centre_step(params: StftParams) -> float:
    centre = (params.n_fft - params.win_length) // 2 + params.win_length / 2
    return -2 * np.pi * centre / params.n_fft
