"""Griffin-Lim-like phase recovery by ADMM, on a fixed magnitude."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from melmill.stages.numeric.bank import Bank
from melmill.stages.numeric.compiled.misfit import TINY
from melmill.stages.numeric.lanes.sweep import Sweep, finish, groups, overlap, spectrum
from melmill.stages.numeric.lanes.vector import LANES, Flat, inlined, kernel, load, root, store
from melmill.stages.numeric.solvers.admm_gla import AdmmGla


class AdmmGlaState(NamedTuple):
    """``D = X - V``, whose projection is Z, and the magnitude Y."""

    D: NDArray[Any]
    Y: NDArray[Any]


def start(method: AdmmGla, X: NDArray[Any], Z: NDArray[Any], Y: NDArray[Any], M: NDArray[Any]) -> AdmmGlaState:
    """Return the state of a dual V that is 0."""
    del X, M
    return AdmmGlaState(D=Z, Y=Y)


def run(method: AdmmGla, iterations: range, n_iter: int, sweep: Sweep, state: AdmmGlaState, bank: Bank) -> None:
    """Iterate on the signal of the sweep, that of Z, and on the state, both in place."""
    del bank, n_iter
    _run(len(iterations), sweep, state, float(method.rho))


@kernel
def _run(n_iter: int, s: Sweep, state: AdmmGlaState, rho: float) -> None:
    for _ in range(n_iter):
        for group in groups(s):
            spectrum(s, group)
            _update(s.Z, state.D, state.Y, group, rho)
            overlap(s, group)
        finish(s)


@inlined
def _update(Z: Flat, D: Flat, Y: Flat, group: int, rho: float) -> None:
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
