"""How far a magnitude or a signal is from its mel, and what else the solvers share."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.lanes.bands import Factor, Runs, apply, factored, runs
from melmill.stages.numeric.lanes.gram import product
from melmill.stages.numeric.lanes.sweep import Sweep, groups, spectrum
from melmill.stages.numeric.lanes.vector import (  # fmt: skip
    LANES,
    Flat,
    Lanes,
    inlined,
    kernel,
    load,
    power,
    root,
    smaller,
    store,
    zeros,
)
from melmill.stages.numeric.melspec import Precision

# Added to |Psi|^2, so that nothing is divided by 0. A bin of exactly 0 keeps the phase factor 0
# that eq. 3 asks for.
TINY = 1e-36

# A band that Y left almost empty is not filled in one step.
MAX_SCALE = 10.0


class MelRuns(NamedTuple):
    """A scaled bank E and its transpose, and the exponent p of mels ``M = E |X|**p``."""

    E: Runs
    Et: Runs
    power: float


@lru_cache(maxsize=8)
def mel_runs(bank: Bank, dtype: Precision) -> MelRuns:
    """Return a bank for compiled code."""
    return MelRuns(runs(bank.E, dtype), runs(bank.E.T, dtype), float(bank.power))


@lru_cache(maxsize=16)
def resolvent(bank: Bank, mu: float, dtype: Precision) -> Factor:
    """Return the factors of ``E E^T + mu I``, the inverse of eq. 17 by the Woodbury identity."""
    return factored(product(bank.E, bank.E.T) + mu * np.eye(len(bank.E)), dtype)


@inlined
def phase_factor(re: Lanes, im: Lanes, length: float) -> Lanes:
    """Return ``length / |re + i im|``, finite where that is 0."""
    return length / root(re * re + im * im + TINY)


@kernel
def misfit(Y: Flat, at: int, M: Flat, group: int, bank: MelRuns, out: Flat, scratch: Flat) -> None:
    """Write ``E Phi - M`` of a group to the rows of `out`.

    `scratch` holds Phi. Y is read where p is not 1.

    For ``p = 1`` the joint methods aim at M. Otherwise every band of Y is scaled until
    ``E Y**p = M``, and they aim at what ``E Y`` becomes by that. So a fixed point of the iteration
    meets M itself, rather than a magnitude mel that was guessed before.
    """
    apply(bank.E, scratch, out, 0, 0)
    n_mels = len(bank.E.first)
    if bank.power == 1.0:
        for b in range(n_mels):
            store(out, b * LANES, load(out, b * LANES) - load(M, (group * n_mels + b) * LANES))
        return
    raised = np.empty(scratch.size, scratch.dtype)
    for row in range(0, scratch.size, LANES):
        store(raised, row, raised_to(load(Y, at + row), bank.power))
    EY, EYp = np.empty(n_mels * LANES, out.dtype), np.empty(n_mels * LANES, out.dtype)
    apply(bank.E, Y, EY, at, 0)
    apply(bank.E, raised, EYp, 0, 0)
    for row in range(0, n_mels * LANES, LANES):
        ratio = load(M, group * n_mels * LANES + row) / (load(EYp, row) + TINY)
        scale = raised_to(ratio, 1.0 / bank.power)
        store(out, row, load(out, row) - load(EY, row) * smaller(scale, MAX_SCALE))


@inlined
def raised_to(x: Lanes, exponent: float) -> Lanes:
    """Return ``x ** exponent`` of what is not negative."""
    if exponent == 1.0:
        return x
    if exponent == 2.0:
        return x * x
    if exponent == 0.5:
        return root(x)
    return power(x, exponent)


def misfit_energy(sweep: Sweep, M: NDArray[np.floating], bank: Bank) -> float:
    """Return ``||E |Z|**p - M||^2`` of the sweep's signal, SCM's numerator (eq. 21)."""
    return float(_misfit_energy(sweep, M, mel_runs(bank, M.dtype.name)))


@kernel
def _misfit_energy(s: Sweep, M: Flat, bank: MelRuns) -> float:
    n_mels = len(bank.E.first)
    S, mel, squares = np.empty(s.Z.size // 2, M.dtype), np.empty(n_mels * LANES, M.dtype), np.empty(LANES, M.dtype)
    total = 0.0
    for group in groups(s):
        spectrum(s, group)
        for row in range(0, S.size, LANES):
            re, im = load(s.Z, 2 * row), load(s.Z, 2 * row + LANES)
            store(S, row, raised_to(root(re * re + im * im), bank.power))
        apply(bank.E, S, mel, 0, 0)
        energy = zeros(M)
        for row in range(0, mel.size, LANES):
            difference = load(mel, row) - load(M, group * mel.size + row)
            energy = energy + difference * difference
        store(squares, 0, energy)
        for lane in range(min(LANES, s.framing.n_frames - group * LANES)):
            total += squares[lane]
    return total
