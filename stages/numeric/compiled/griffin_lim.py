"""Griffin-Lim and its fast variant."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.bank import Bank
from melmill.stages.numeric.compiled.misfit import phase_factor
from melmill.stages.numeric.lanes.sweep import Sweep, finish, groups, overlap, spectrum
from melmill.stages.numeric.lanes.vector import LANES, Flat, inlined, kernel, load, store
from melmill.stages.numeric.solvers.griffin_lim import GriffinLim


class GriffinLimState(NamedTuple):
    """The magnitude Y and, with momentum, the last Z (else nothing)."""

    Y: NDArray[Any]
    Z_old: NDArray[Any]


def start(method: GriffinLim, X: NDArray[Any], Z: NDArray[Any], Y: NDArray[Any], M: NDArray[Any]) -> GriffinLimState:
    """Return the state that has no momentum yet."""
    del X, M
    return GriffinLimState(Y=Y, Z_old=Z if method.momentum else np.empty((0, 0, 2, LANES), dtype=Z.dtype))


def run(method: GriffinLim, iterations: range, n_iter: int, sweep: Sweep, state: GriffinLimState, bank: Bank) -> None:
    """Iterate on the signal of the sweep, that of Z, and on the state, both in place."""
    del bank, n_iter
    _run(len(iterations), sweep, state, method.momentum)


@kernel
def _run(n_iter: int, s: Sweep, state: GriffinLimState, momentum: float) -> None:
    for _ in range(n_iter):
        for group in groups(s):
            spectrum(s, group)
            if momentum:
                extrapolate(s.Z, state.Z_old, group, momentum)
            _update(s.Z, state.Y, group)
            overlap(s, group)
        finish(s)


@inlined
def _update(Z: Flat, Y: Flat, group: int) -> None:
    at = group * Z.size // 2
    for row in range(0, Z.size // 2, LANES):
        re, im = load(Z, 2 * row), load(Z, 2 * row + LANES)
        factor = phase_factor(re, im, load(Y, at + row))
        store(Z, 2 * row, re * factor)
        store(Z, 2 * row + LANES, im * factor)


@inlined
def extrapolate(Z: Flat, Z_old: Flat, group: int, alpha: float) -> None:
    """Overwrite Z by ``Psi = Z + alpha (Z - Z_old)`` and Z_old, of all groups, by Z."""
    at = group * Z.size
    for row in range(0, Z.size, LANES):
        new, old = load(Z, row), load(Z_old, at + row)
        store(Z_old, at + row, new)
        store(Z, row, new + (new - old) * alpha)
