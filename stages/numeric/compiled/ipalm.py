"""iPALM on magnitude and phase, compiled; `solvers.ipalm` has the equations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.misfit import TINY, MelRuns, mel_runs, misfit, phase_factor
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.lanes.bands import apply
from melmill.stages.numeric.lanes.sweep import Sweep, finish, groups, overlap, spectrum
from melmill.stages.numeric.lanes.vector import LANES, Flat, inlined, kernel, larger, load, root, store
from melmill.stages.numeric.solvers.ipalm import Ipalm


class IpalmState(NamedTuple):
    """The last Z, the magnitude Y and the mel M."""

    Z_old: NDArray[np.floating]
    Y: NDArray[np.floating]
    M: NDArray[np.floating]


def begin(
    solver: Ipalm, X: NDArray[np.floating], Z: NDArray[np.floating], Y: NDArray[np.floating], M: NDArray[np.floating]
) -> IpalmState:
    """Return the state whose first Z is P_C(X)."""
    del Z
    return IpalmState(Z_old=X, Y=Y, M=M)


def run(solver: Ipalm, iterations: range, n_iter: int, sweep: Sweep, state: IpalmState, bank: Bank) -> None:
    """Iterate in place on the state and on the sweep's signal, which is that of Z."""
    del n_iter
    _run(len(iterations), sweep, state, mel_runs(bank, state.Y.dtype.name), float(solver.alpha), float(solver.lam))


@kernel
def _run(n_iter: int, s: Sweep, state: IpalmState, bank: MelRuns, alpha: float, lam: float) -> None:
    r = np.empty(len(bank.E.first) * LANES, s.Z.dtype)
    back = np.empty(s.Z.size // 2, s.Z.dtype)
    for _ in range(n_iter):
        for group in groups(s):
            spectrum(s, group)
            at = group * back.size
            for row in range(0, back.size, LANES):
                store(back, row, load(state.Y, at + row))
            misfit(state.Y, at, state.M, group, bank, r, back)
            apply(bank.Et, r, back, 0, 0)
            _step(s.Z, state.Z_old, state.Y, back, at, alpha, lam)
            overlap(s, group)
        finish(s)


@inlined
def _step(Z: Flat, Z_old: Flat, Y: Flat, back: Flat, at: int, alpha: float, lam: float) -> None:
    """Make the Y-update of one iteration, then the X-update of the next: Z becomes X."""
    lam, share = Z.dtype.type(lam), Z.dtype.type(1 / (1 + lam))
    for row in range(0, back.size, LANES):
        zr, zi = load(Z, 2 * row), load(Z, 2 * row + LANES)
        W = load(Y, at + row) - load(back, row)
        y = larger(W * lam + root(zr * zr + zi * zi + TINY), 0.0) * share
        store(Y, at + row, y)
        old = 2 * (at + row)
        re, im = zr + (zr - load(Z_old, old)) * alpha, zi + (zi - load(Z_old, old + LANES)) * alpha
        store(Z_old, old, zr)
        store(Z_old, old + LANES, zi)
        factor = phase_factor(re, im, y)
        store(Z, 2 * row, re * factor)
        store(Z, 2 * row + LANES, im * factor)
