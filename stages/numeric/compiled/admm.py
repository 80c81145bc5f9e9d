"""ADMM on magnitude and phase, compiled; `solvers.admm` has the equations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.misfit import TINY, MelRuns, mel_runs, misfit, resolvent
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.lanes.bands import Factor, apply, solve
from melmill.stages.numeric.lanes.sweep import Sweep, finish, groups, overlap, spectrum
from melmill.stages.numeric.lanes.vector import LANES, Flat, inlined, kernel, larger, load, root, store
from melmill.stages.numeric.solvers.admm import Admm


class AdmmState(NamedTuple):
    """``D = X - V`` and ``Ups = W - U``, the magnitude Y and the mel M."""

    D: NDArray[np.floating]
    Ups: NDArray[np.floating]
    Y: NDArray[np.floating]
    M: NDArray[np.floating]


def begin(
    solver: Admm, X: NDArray[np.floating], Z: NDArray[np.floating], Y: NDArray[np.floating], M: NDArray[np.floating]
) -> AdmmState:
    """Return the state in which the duals V and U are 0."""
    del X
    return AdmmState(D=Z, Ups=Y.copy(), Y=Y, M=M)


def run(solver: Admm, iterations: range, n_iter: int, sweep: Sweep, state: AdmmState, bank: Bank) -> None:
    """Iterate in place on the state and on the sweep's signal, which is that of Z.

    V and U are scaled duals: they shrink by as much as rho grows.
    """
    dtype = state.Y.dtype
    rhos = solver.penalties(n_iter)
    rescales = np.concatenate([[1.0], rhos[:-1] / rhos[1:]])
    now = slice(iterations.start, iterations.stop)
    factor = resolvent(bank, solver.rho / solver.lam, dtype.name)
    _run(sweep, state, mel_runs(bank, dtype.name), factor, rhos[now].astype(dtype), rescales[now].astype(dtype))


@kernel
def _run(
    s: Sweep,
    state: AdmmState,
    bank: MelRuns,
    factor: Factor,
    rhos: NDArray[np.floating],
    rescales: NDArray[np.floating],
) -> None:
    r = np.empty(len(bank.E.first) * LANES, s.Z.dtype)
    scratch = np.empty(s.Z.size // 2, s.Z.dtype)
    for i in range(len(rhos)):
        rho, rescale = rhos[i], rescales[i]
        for group in groups(s):
            spectrum(s, group)
            at = group * scratch.size
            for row in range(0, scratch.size, LANES):
                y = load(state.Y, at + row)
                store(scratch, row, y + (y - load(state.Ups, at + row)) * rescale)
            misfit(state.Y, at, state.M, group, bank, r, scratch)
            solve(factor, r)
            apply(bank.Et, r, scratch, 0, 0)
            _step(s.Z, state.D, state.Ups, state.Y, scratch, at, rho, rescale)
            overlap(s, group)
        finish(s)


@inlined
def _step(Z: Flat, D: Flat, Ups: Flat, Y: Flat, correction: Flat, at: int, rho: float, rescale: float) -> None:
    """Make D the next ``X - V``, and Z the same: it is projected next (eq. 18)."""
    share = Z.dtype.type(1) / (Z.dtype.type(1) + rho)
    for row in range(0, correction.size, LANES):
        zr, zi = load(Z, 2 * row), load(Z, 2 * row + LANES)
        d = 2 * (at + row)
        vr, vi = (zr - load(D, d)) * rescale, (zi - load(D, d + LANES)) * rescale
        re, im = zr + vr, zi + vi
        modulus = root(re * re + im * im + TINY)
        y = load(Y, at + row)
        X_abs = (y + modulus * rho) * share  # eq. 15
        factor = X_abs / modulus
        re, im = re * factor - vr, im * factor - vi
        store(D, d, re)
        store(D, d + LANES, im)
        store(Z, 2 * row, re)
        store(Z, 2 * row + LANES, im)
        # W = Y + U - correction (eq. 17), so that Ups = W - U = Y - correction.
        ups = y - load(correction, row)
        store(Ups, at + row, ups)
        store(Y, at + row, larger(X_abs + ups * rho, 0.0) * share)  # eq. 20
