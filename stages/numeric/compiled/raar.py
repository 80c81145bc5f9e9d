"""RAAR on a fixed magnitude, compiled; `solvers.raar` has the equations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.misfit import phase_factor
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.lanes.sweep import Sweep, finish, groups, overlap, spectrum
from melmill.stages.numeric.lanes.vector import LANES, Flat, inlined, kernel, load, store
from melmill.stages.numeric.solvers.raar import Raar


class RaarState(NamedTuple):
    """The iterate X and the magnitude Y."""

    X: NDArray[np.floating]
    Y: NDArray[np.floating]


def begin(
    solver: Raar, X: NDArray[np.floating], Z: NDArray[np.floating], Y: NDArray[np.floating], M: NDArray[np.floating]
) -> RaarState:
    """Return the state whose first Z is P_C(X), as X has the magnitude Y already."""
    del Z, M
    return RaarState(X=X, Y=Y)


def run(solver: Raar, iterations: range, n_iter: int, sweep: Sweep, state: RaarState, bank: Bank) -> None:
    """Iterate in place on the state and on the sweep's signal, which is that of Z."""
    del bank, n_iter
    _run(len(iterations), sweep, state, float(solver.beta))


@kernel
def _run(n_iter: int, s: Sweep, state: RaarState, beta: float) -> None:
    for _ in range(n_iter):
        for group in groups(s):
            spectrum(s, group)
            _step(s.Z, state.X, state.Y, group, beta)
            overlap(s, group)
        finish(s)


@inlined
def _step(Z: Flat, X: Flat, Y: Flat, group: int, beta: float) -> None:
    """Update X, and make Z its reflection ``R_A X``: it is projected next."""
    at = group * Z.size
    for row in range(0, Z.size, 2 * LANES):
        y = load(Y, (at + row) // 2)
        xr, xi = load(X, at + row), load(X, at + row + LANES)
        # P_A of the old X is cheaper made again than kept: 8 bytes a bin.
        old = phase_factor(xr, xi, y) * (1.0 - 2.0 * beta)
        xr, xi = (xr + load(Z, row)) * beta + xr * old, (xi + load(Z, row + LANES)) * beta + xi * old
        store(X, at + row, xr)
        store(X, at + row + LANES, xi)
        reflect = phase_factor(xr, xi, y) * 2.0
        store(Z, row, xr * reflect - xr)
        store(Z, row + LANES, xi * reflect - xi)
