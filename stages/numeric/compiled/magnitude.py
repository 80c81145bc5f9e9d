"""From a mel spectrogram to a full-band magnitude, each frame for itself."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.misfit import raised_to
from melmill.stages.numeric.compiled.prior import guess
from melmill.stages.numeric.filterbank import Bank, bank_of
from melmill.stages.numeric.lanes.bands import Runs, apply, runs
from melmill.stages.numeric.lanes.gram import pseudo_inverse, spectral_norm
from melmill.stages.numeric.lanes.sweep import to_lanes
from melmill.stages.numeric.lanes.vector import LANES, Flat, kernel, larger, load, store
from melmill.stages.numeric.melspec import MelSpec, Precision
from melmill.stages.numeric.solver import MagnitudeStart, Recipe

# On speech the misfit is below -70 dB after 30 iterations, far under what phase recovery leaves.
N_ITER = 30


def starting_magnitude(linear: NDArray[np.float32], spec: MelSpec, recipe: Recipe) -> NDArray[np.floating]:
    """Return the magnitude that a recipe starts from, by its prior or without one.

    Parameters
    ----------
    linear : ndarray of float32, shape (n_mels, n_frames)
        ``E |X|**p``.
    spec : MelSpec
        Of the mel.
    recipe : Recipe
        Its prior fits the mel, and is taken wherever it leads.

    Returns
    -------
    ndarray of the recipe's dtype, shape (n_groups, n_bins, LANES)
        Non-negative, in lane layout.
    """
    if recipe.prior is not None:
        return guess(linear, spec, recipe.prior).Y.astype(recipe.dtype, copy=False)
    bank = bank_of(spec)
    return estimate_magnitude(to_lanes(np.asarray(linear / bank.norm, dtype=recipe.dtype)), bank, recipe.magnitude)


def estimate_magnitude(M: NDArray[np.floating], bank: Bank, how: MagnitudeStart) -> NDArray[np.floating]:
    """Return a magnitude whose mel is near M.

    Parameters
    ----------
    M : ndarray, shape (n_groups, n_mels, LANES)
        Linear mel ``E |X|**p``, divided by the bank's norm, in lane layout.
    bank : Bank
    how : {"nnls", "pinv"}
        ``"pinv"`` is ``(E^+ M)_+``: the smallest solution of ``E Y = M``, its negative bins set to
        0. ``"nnls"`` goes on from there to a non-negative Y with ``E Y`` near M, by accelerated
        projected gradient. The bands are weighted to rows of equal norm. Where some ``Y >= 0``
        attains M, as for every mel of a signal, that changes the speed but no solution of eq. 6.
        Elsewhere it judges misfit relative to each band's width.

    Returns
    -------
    ndarray, shape (n_groups, n_bins, LANES)
        Non-negative, of M's dtype.

    References
    ----------
    Masuyama et al. 2024, eq. 6; Beck and Teboulle 2009 (the iteration).
    """
    Y = np.empty((len(M), bank.E.shape[1], M.shape[2]), dtype=M.dtype)
    n_iter = N_ITER if how == "nnls" else 0
    _estimate(M, Y, _conditioned(bank, M.dtype.name), inertia(n_iter).astype(M.dtype), 1 / bank.power)
    return Y


class _Conditioned(NamedTuple):
    """E with rows of equal norm and unit spectral norm, its transpose, weights and E^+."""

    E: Runs
    Et: Runs
    weight: NDArray[np.floating]
    pinv: Runs


@lru_cache(maxsize=8)
def _conditioned(bank: Bank, dtype: Precision) -> _Conditioned:
    weight = balance(bank.E)
    scaled = weight[:, np.newaxis] * bank.E
    pinv = runs(pseudo_inverse(bank.E), dtype)
    return _Conditioned(runs(scaled, dtype), runs(scaled.T, dtype), weight.astype(dtype), pinv)


def balance(E: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights ``(n_mels,)`` that give a bank rows of equal norm and unit spectral norm."""
    row = np.sqrt(np.sum(E * E, axis=1))
    weight = 1 / np.where(row > 0, row, 1.0)
    return np.asarray(weight / spectral_norm(weight[:, np.newaxis] * E))


def inertia(n_iter: int) -> NDArray[np.float64]:
    """Return by how much each iteration of accelerated projected gradient goes past its step."""
    t, factors = 1.0, []
    for _ in range(n_iter):
        t, old = (1 + np.sqrt(1 + 4 * t * t)) / 2, t
        factors.append((old - 1) / t)
    return np.array(factors)


@kernel
def _estimate(M: Flat, Y: Flat, bank: _Conditioned, inertia: NDArray[np.floating], exponent: float) -> None:
    n_groups, n_mels = M.shape[0], M.shape[1]
    mel, misfit = np.empty(n_mels * LANES, M.dtype), np.empty(n_mels * LANES, M.dtype)
    size = Y.shape[1] * LANES
    y, Psi, step = np.empty(size, M.dtype), np.empty(size, M.dtype), np.empty(size, M.dtype)
    for group in range(n_groups):
        apply(bank.pinv, M, y, group * n_mels * LANES, 0)
        for b in range(n_mels):
            store(mel, b * LANES, load(M, (group * n_mels + b) * LANES) * bank.weight[b])
        for row in range(0, size, LANES):
            first = larger(load(y, row), 0.0)
            store(y, row, first)
            store(Psi, row, first)
        for i in range(len(inertia)):
            apply(bank.E, Psi, misfit, 0, 0)
            for row in range(0, n_mels * LANES, LANES):
                store(misfit, row, load(misfit, row) - load(mel, row))
            apply(bank.Et, misfit, step, 0, 0)
            for row in range(0, size, LANES):
                new = larger(load(Psi, row) - load(step, row), 0.0)
                store(Psi, row, new + (new - load(y, row)) * inertia[i])
                store(y, row, new)
        for row in range(0, size, LANES):
            store(Y, group * size + row, raised_to(load(y, row), exponent))
