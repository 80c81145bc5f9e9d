"""Compiled pass over the spectra of two signals at one resolution: what M-STFT adds up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.framing import analysis, n_groups, tiled_signal
from melmill.stages.numeric.lanes.sweep import Sweep, groups, spectrum, sweep
from melmill.stages.numeric.lanes.vector import LANES, Flat, kernel, larger, load, root, smaller, store, zeros
from melmill.stages.numeric.melspec import StftParams
from melmill.stages.numeric.stft import hann

_BINS_TO_A_LOG = 8
"""Ratios of powers are multiplied before the log is taken: 8 of at most 1e30 fit into float64."""


class SpectralDistance(NamedTuple):
    """Hold the two parts of a distance between magnitude spectra.

    Parameters
    ----------
    convergence : float
        ``||Y - Y'|| / ||Y||``, Frobenius norms.
    log_magnitude : float
        Mean of ``|ln Y - ln Y'|``, Np.
    """

    convergence: float
    log_magnitude: float


def spectral_distance(
    reference: NDArray[np.float32], estimate: NDArray[np.float32], params: StftParams, floor: float
) -> SpectralDistance:
    """Return how far apart the magnitudes of two signals are.

    Parameters
    ----------
    reference, estimate : ndarray of float32, shape (n_samples,)
    params : StftParams
    floor : float
        Powers below it are raised to it.
    """
    n_frames = params.n_frames(reference.size)
    framed = analysis(hann(params), params.hop_length, n_frames, "float64")
    a, b = (sweep(framed, params.n_fft, tiled_signal(y, params, "float64")) for y in (reference, estimate))
    n_bins = 1 + params.n_fft // 2
    ratios = np.empty((n_groups(n_frames), -(-n_bins // _BINS_TO_A_LOG), LANES))
    energies = np.empty((2, n_groups(n_frames), LANES))
    _compare(a, b, floor, ratios, energies)
    # The last group may hold frames past the end.
    nepers = 0.5 * np.log(ratios).sum(axis=1).reshape(-1)[:n_frames].sum()
    difference, energy = energies.reshape(2, -1)[:, :n_frames].sum(axis=1)
    return SpectralDistance(float(np.sqrt(max(difference, 0.0) / energy)), float(nepers / (n_frames * n_bins)))


@kernel
def _compare(a: Sweep, b: Sweep, floor: float, ratios: Flat, energies: Flat) -> None:
    """Write ``(Y - Y')^2`` and ``Y^2`` of each frame, and products of ``max(P, Q) / min(P, Q)`` over bins."""
    n_bins, n_products = a.Z.size // (2 * LANES), ratios.shape[1]
    for group in groups(a):
        spectrum(a, group)
        spectrum(b, group)
        difference, energy = zeros(a.Z), zeros(a.Z)
        product = zeros(a.Z) + 1.0
        for k in range(n_bins):
            re, im = load(a.Z, 2 * k * LANES), load(a.Z, (2 * k + 1) * LANES)
            p = larger(re * re + im * im, floor)
            re, im = load(b.Z, 2 * k * LANES), load(b.Z, (2 * k + 1) * LANES)
            q = larger(re * re + im * im, floor)
            energy = energy + p
            difference = difference + (p + q - root(p * q) * 2.0)
            product = product * (larger(p, q) / smaller(p, q))
            if (k + 1) % _BINS_TO_A_LOG == 0 or k == n_bins - 1:
                store(ratios, (group * n_products + k // _BINS_TO_A_LOG) * LANES, product)
                product = zeros(a.Z) + 1.0
        store(energies, group * LANES, difference)
        store(energies, (energies.shape[1] + group) * LANES, energy)
