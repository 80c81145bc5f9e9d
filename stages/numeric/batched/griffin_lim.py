"""Griffin-Lim on batches; `solvers.griffin_lim` has the equations."""

from __future__ import annotations

from torch import Tensor

from melmill.stages.numeric.batched.device import Placement
from melmill.stages.numeric.batched.iteration import Iteration, Start, each_iteration, parts, store
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.solvers.griffin_lim import GriffinLim


def begin(solver: GriffinLim, n_iter: int, start: Start, bank: Bank, place: Placement) -> Iteration:
    """Return the iteration without momentum, or the one that keeps the last Z."""
    del bank
    parameters = each_iteration(n_iter, place, solver.momentum)
    if not solver.momentum:
        return Iteration(step=step, state=(start.X,), rest=(start.Y,), parameters=parameters)
    return Iteration(step=fast_step, state=(start.X, start.Z), rest=(start.Y,), parameters=parameters)


def step(Z: Tensor, X: Tensor, Y: Tensor, momentum: Tensor) -> None:
    """Impose the magnitude."""
    del momentum
    Psi = parts(Z)
    store(X, Psi.times(Y / Psi.modulus()))


def fast_step(Z: Tensor, X: Tensor, Z_old: Tensor, Y: Tensor, momentum: Tensor) -> None:
    """Impose the magnitude on ``Z + momentum (Z - Z_old)``."""
    new = parts(Z)
    Psi = new + (new - parts(Z_old)).times(momentum)
    store(X, Psi.times(Y / Psi.modulus()))
    store(Z_old, new)
