"""ADMM on a fixed magnitude, compiled; `solvers.admm_gla` has the equations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.misfit import TINY
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.lanes.sweep import Sweep, finish, groups, overlap, spectrum
from melmill.stages.numeric.lanes.vector import LANES, Flat, inlined, kernel, load, root, store
from melmill.stages.numeric.solvers.admm_gla import AdmmGla


class AdmmGlaState(NamedTuple):
    """``D = X - V``, whose projection is Z, and the magnitude Y."""

    D: NDArray[np.floating]
    Y: NDArray[np.floating]


def begin(
    solver: AdmmGla, X: NDArray[np.floating], Z: NDArray[np.floating], Y: NDArray[np.floating], M: NDArray[np.floating]
) -> AdmmGlaState:
    """Return the state in which the dual V is 0."""
    del X, M
    return AdmmGlaState(D=Z, Y=Y)


def run(solver: AdmmGla, iterations: range, n_iter: int, sweep: Sweep, state: AdmmGlaState, bank: Bank) -> None:
    """Iterate in place on the state and on the sweep's signal, which is that of Z."""
    del bank, n_iter
    _run(len(iterations), sweep, state, float(solver.rho))


@kernel
def _run(n_iter: int, s: Sweep, state: AdmmGlaState, rho: float) -> None:
    for _ in range(n_iter):
        for group in groups(s):
            spectrum(s, group)
            _step(s.Z, state.D, state.Y, group, rho)
            overlap(s, group)
        finish(s)


@inlined
def _step(Z: Flat, D: Flat, Y: Flat, group: int, rho: float) -> None:
    """Make D the next ``X - V``, and Z the same: it is projected next."""
    at = group * Z.size
    rho, share = Z.dtype.type(rho), Z.dtype.type(1 / (1 + rho))
    for row in range(0, Z.size, 2 * LANES):
        zr, zi = load(Z, row), load(Z, row + LANES)
        vr, vi = zr - load(D, at + row), zi - load(D, at + row + LANES)
        re, im = zr + vr, zi + vi
        modulus = root(re * re + im * im + TINY)
        factor = (load(Y, (at + row) // 2) + modulus * rho) * share / modulus
        re, im = re * factor - vr, im * factor - vi
        store(D, at + row, re)
        store(D, at + row + LANES, im)
        store(Z, row, re)
        store(Z, row + LANES, im)
