"""iPALM on batches; `solvers.ipalm` has the equations."""

from __future__ import annotations

import torch
from torch import Tensor

from melmill.stages.numeric.batched.bands import Bands, bands_of, misfit
from melmill.stages.numeric.batched.device import Placement
from melmill.stages.numeric.batched.iteration import Iteration, Start, each_iteration, parts, store
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.solvers.ipalm import Ipalm


def begin(solver: Ipalm, n_iter: int, start: Start, bank: Bank, place: Placement) -> Iteration:
    """Return the iteration whose first Z is P_C(X)."""
    return Iteration(
        step=step,
        state=(torch.empty_like(start.X), start.X, start.Y),
        rest=(start.M, bands_of(bank, place), bank.power),
        parameters=each_iteration(n_iter, place, solver.alpha, solver.lam),
    )


def step(Z: Tensor, X: Tensor, Z_old: Tensor, Y: Tensor, M: Tensor, E: Bands, power: float, parameters: Tensor) -> None:
    """Make the Y-update of one iteration, then the X-update of the next."""
    alpha, lam = parameters.unbind()
    new = parts(Z)
    W = Y - E.spread(misfit(Y, Y, M, E, power))
    magnitude = torch.relu(new.modulus() + lam * W) / (1 + lam)
    Psi = new + (new - parts(Z_old)).times(alpha)
    store(X, Psi.times(magnitude / Psi.modulus()))
    store(Z_old, new)
    Y.copy_(magnitude)
