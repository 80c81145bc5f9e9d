"""RAAR on batches; `solvers.raar` has the equations."""

from __future__ import annotations

import torch
from torch import Tensor

from melmill.stages.numeric.batched.device import Placement
from melmill.stages.numeric.batched.iteration import Iteration, Start, each_iteration, parts, store
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.solvers.raar import Raar


def begin(solver: Raar, n_iter: int, start: Start, bank: Bank, place: Placement) -> Iteration:
    """Return the iteration whose first Z is P_C(X)."""
    del bank
    state = (torch.empty_like(start.X), start.X)
    return Iteration(step=step, state=state, rest=(start.Y,), parameters=each_iteration(n_iter, place, solver.beta))


def step(Z: Tensor, R: Tensor, X: Tensor, Y: Tensor, beta: Tensor) -> None:
    """Update X, and ``R = R_A X``, the reflection that is projected next."""
    old = parts(X)
    A = old.times(Y / old.modulus())
    new = (old + parts(Z)).times(beta) + A.times(1 - 2 * beta)
    store(R, new.times(2 * Y / new.modulus()) - new)
    store(X, new)
