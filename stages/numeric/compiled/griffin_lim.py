"""Griffin-Lim, compiled; `solvers.griffin_lim` has the equations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.misfit import phase_factor
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.lanes.sweep import Sweep, finish, groups, overlap, spectrum
from melmill.stages.numeric.lanes.vector import LANES, Flat, inlined, kernel, load, store
from melmill.stages.numeric.solvers.griffin_lim import GriffinLim


class GriffinLimState(NamedTuple):
    """The magnitude Y, and with momentum the last Z."""

    Y: NDArray[np.floating]
    Z_old: NDArray[np.floating]


def begin(
    solver: GriffinLim,
    X: NDArray[np.floating],
    Z: NDArray[np.floating],
    Y: NDArray[np.floating],
    M: NDArray[np.floating],
) -> GriffinLimState:
    """Return the state before any momentum."""
    del X, M
    return GriffinLimState(Y=Y, Z_old=Z if solver.momentum else np.empty((0, 0, 2, LANES), dtype=Z.dtype))


def run(solver: GriffinLim, iterations: range, n_iter: int, sweep: Sweep, state: GriffinLimState, bank: Bank) -> None:
    """Iterate in place on the state and on the sweep's signal, which is that of Z."""
    del bank, n_iter
    _run(len(iterations), sweep, state, float(solver.momentum))


@kernel
def _run(n_iter: int, s: Sweep, state: GriffinLimState, momentum: float) -> None:
    for _ in range(n_iter):
        for group in groups(s):
            spectrum(s, group)
            if momentum:
                _extrapolate(s.Z, state.Z_old, group, momentum)
            _step(s.Z, state.Y, group)
            overlap(s, group)
        finish(s)


@inlined
def _step(Z: Flat, Y: Flat, group: int) -> None:
    """Impose the magnitude: overwrite Psi, which Z holds, by ``X = Y Psi / |Psi|``."""
    at = group * Z.size // 2
    for row in range(0, Z.size // 2, LANES):
        re, im = load(Z, 2 * row), load(Z, 2 * row + LANES)
        factor = phase_factor(re, im, load(Y, at + row))
        store(Z, 2 * row, re * factor)
        store(Z, 2 * row + LANES, im * factor)


@inlined
def _extrapolate(Z: Flat, Z_old: Flat, group: int, alpha: float) -> None:
    """Overwrite Z by ``Psi = Z + alpha (Z - Z_old)`` and Z_old, of all groups, by Z."""
    at = group * Z.size
    for row in range(0, Z.size, LANES):
        new, old = load(Z, row), load(Z_old, at + row)
        store(Z_old, at + row, new)
        store(Z, row, new + (new - old) * alpha)
