"""ADMM on magnitude and phase, on batches; `solvers.admm` has the equations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from melmill.stages.numeric.batched.bands import Bands, bands_of, misfit, resolvent
from melmill.stages.numeric.batched.device import Placement
from melmill.stages.numeric.batched.iteration import Iteration, Start, each_iteration, parts, store
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.solvers.admm import Admm


def begin(solver: Admm, n_iter: int, start: Start, bank: Bank, place: Placement) -> Iteration:
    """Return the iteration whose duals V and U are 0."""
    rhos = solver.penalties(n_iter)
    rescales = np.concatenate([np.ones(1), rhos[:-1] / rhos[1:], np.ones(1)])
    return Iteration(
        step=step,
        state=(start.Z, start.Y.clone(), start.Y),
        rest=(start.M, bands_of(bank, place), bank.power, resolvent(bank, solver.rho / solver.lam, place)),
        parameters=each_iteration(n_iter, place, rhos, rescales[:-1], rescales[1:]),
    )


def step(
    Z: Tensor, D: Tensor, Phi: Tensor, Y: Tensor, M: Tensor, E: Bands, power: float, inverse: Tensor, penalties: Tensor
) -> None:
    """Update ``D = X - V``, Y, and ``Phi = Y + U`` with ``U = Y - Ups``.

    V and U are scaled duals: they shrink by as much as rho grows.
    """
    rho, rescale, rescale_next = penalties.unbind()
    new = parts(Z)
    V = (new - parts(D)).times(rescale)
    Psi = new + V
    modulus = Psi.modulus()
    X_abs = (Y + rho * modulus) / (1 + rho)  # eq. 15
    # W = Phi - E^T (...) (eq. 17), so that Ups = W - U is Y - E^T (...).
    Ups = Y - E.spread(misfit(Phi, Y, M, E, power) @ inverse)
    magnitude = torch.relu(X_abs + rho * Ups) / (1 + rho)  # eq. 20
    store(D, Psi.times(X_abs / modulus) - V)
    Phi.copy_(magnitude + (magnitude - Ups) * rescale_next)
    Y.copy_(magnitude)
