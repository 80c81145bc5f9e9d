"""ADMM on a fixed magnitude, on batches; `solvers.admm_gla` has the equations."""

from __future__ import annotations

from torch import Tensor

from melmill.stages.numeric.batched.device import Placement
from melmill.stages.numeric.batched.iteration import Iteration, Start, each_iteration, parts, store
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.solvers.admm_gla import AdmmGla


def begin(solver: AdmmGla, n_iter: int, start: Start, bank: Bank, place: Placement) -> Iteration:
    """Return the iteration whose dual V is 0."""
    del bank
    return Iteration(step=step, state=(start.Z,), rest=(start.Y,), parameters=each_iteration(n_iter, place, solver.rho))


def step(Z: Tensor, D: Tensor, Y: Tensor, rho: Tensor) -> None:
    """Update ``D = X - V``."""
    new = parts(Z)
    V = new - parts(D)
    Psi = new + V
    modulus = Psi.modulus()
    store(D, Psi.times((Y + rho * modulus) / (1 + rho) / modulus) - V)
