"""The five methods on batches: of each its state, the start of it, and one step in the paper's symbols.

A step is given Z, the projection of the spectrum that comes first in the state, and overwrites the state. It is
element-wise but for the products with the bank, so that it compiles to one kernel, which reads what it needs of a bin
and writes it once. The equations are with `melmill.stages.numeric.solvers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from melmill.stages.numeric import solvers
from melmill.stages.numeric.bank import Bank
from melmill.stages.numeric.batched.bands import Bands, bands_of, misfit, resolvent
from melmill.stages.numeric.batched.pair import parts, store
from melmill.stages.numeric.batched.placement import Placement


class Start(NamedTuple):
    """What a method starts from: X of magnitude Y, its projection Z, and the mels M ``(B, T, n_mels)``.

    A state may take over any of these tensors.
    """

    X: Tensor
    Z: Tensor
    Y: Tensor
    M: Tensor


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """A method at work on a batch.

    Parameters
    ----------
    step : callable
        Called with Z, the state, the rest, and its row of `parameters`.
    state : tuple of Tensor
        What a step overwrites: first the spectrum that is projected next.
    rest : tuple
        What it only reads: magnitude or mels, and the bank.
    parameters : Tensor, shape (n_iter, n_parameters)
        The method's own, for every iteration; as they are no constants, other values need no other kernel.
    """

    step: Callable[..., None]
    state: tuple[Tensor, ...]
    rest: tuple[Any, ...]
    parameters: Tensor


def iteration(method: solvers.Method, n_iter: int, start: Start, bank: Bank, place: Placement) -> Iteration:
    """Return a method about to make the first of `n_iter` steps."""
    prepare, columns = _METHODS[type(method)]
    step, state, rest = prepare(method, start, bank, place)
    parameters = np.stack([np.broadcast_to(column, n_iter) for column in columns(method, n_iter)], axis=1)
    return Iteration(step=step, state=state, rest=rest, parameters=place.tensor(parameters))


Prepared = tuple[Callable[..., None], tuple[Tensor, ...], tuple[Any, ...]]


def _griffin_lim(method: solvers.GriffinLim, start: Start, bank: Bank, place: Placement) -> Prepared:
    del bank, place
    if method.momentum == 0:
        return griffin_lim_step, (start.X,), (start.Y,)
    return fast_griffin_lim_step, (start.X, start.Z), (start.Y,)


def griffin_lim_step(Z: Tensor, X: Tensor, Y: Tensor, momentum: Tensor) -> None:
    """Impose the magnitude."""
    del momentum
    Psi = parts(Z)
    store(X, Psi.times(Y / Psi.modulus()))


def fast_griffin_lim_step(Z: Tensor, X: Tensor, Z_old: Tensor, Y: Tensor, momentum: Tensor) -> None:
    """Impose the magnitude on ``Z + momentum (Z - Z_old)``."""
    new = parts(Z)
    Psi = new + (new - parts(Z_old)).times(momentum)
    store(X, Psi.times(Y / Psi.modulus()))
    store(Z_old, new)


def _admm_gla(method: solvers.AdmmGla, start: Start, bank: Bank, place: Placement) -> Prepared:
    del method, bank, place
    return admm_gla_step, (start.Z,), (start.Y,)


def admm_gla_step(Z: Tensor, D: Tensor, Y: Tensor, rho: Tensor) -> None:
    """Update ``D = X - V``."""
    new = parts(Z)
    V = new - parts(D)
    Psi = new + V
    modulus = Psi.modulus()
    store(D, Psi.times((Y + rho * modulus) / (1 + rho) / modulus) - V)


def _raar(method: solvers.Raar, start: Start, bank: Bank, place: Placement) -> Prepared:
    del method, bank, place
    return raar_step, (torch.empty_like(start.X), start.X), (start.Y,)


def raar_step(Z: Tensor, R: Tensor, X: Tensor, Y: Tensor, beta: Tensor) -> None:
    """Update X, and ``R = R_A X``, the reflection that is projected next."""
    old = parts(X)
    A = old.times(Y / old.modulus())
    new = (old + parts(Z)).times(beta) + A.times(1 - 2 * beta)
    store(R, new.times(2 * Y / new.modulus()) - new)
    store(X, new)


def _ipalm(method: solvers.Ipalm, start: Start, bank: Bank, place: Placement) -> Prepared:
    del method
    return ipalm_step, (torch.empty_like(start.X), start.X, start.Y), (start.M, bands_of(bank, place), bank.power)


def ipalm_step(
    Z: Tensor, X: Tensor, Z_old: Tensor, Y: Tensor, M: Tensor, E: Bands, power: float, parameters: Tensor
) -> None:
    """Make the Y-update of one iteration, then the X-update of the next."""
    alpha, lam = parameters.unbind()
    new = parts(Z)
    W = Y - E.spread(misfit(Y, Y, M, E, power))
    magnitude = torch.relu(new.modulus() + lam * W) / (1 + lam)
    Psi = new + (new - parts(Z_old)).times(alpha)
    store(X, Psi.times(magnitude / Psi.modulus()))
    store(Z_old, new)
    Y.copy_(magnitude)


def _admm(method: solvers.Admm, start: Start, bank: Bank, place: Placement) -> Prepared:
    inverse = resolvent(bank, method.rho / method.lam, place)
    return admm_step, (start.Z, start.Y.clone(), start.Y), (start.M, bands_of(bank, place), bank.power, inverse)


def admm_step(
    Z: Tensor, D: Tensor, Phi: Tensor, Y: Tensor, M: Tensor, E: Bands, power: float, inverse: Tensor, penalties: Tensor
) -> None:
    """Update ``D = X - V``, Y, and ``Phi = Y + U`` with ``U = Y - Ups``, of which the next step needs but the mel.

    V and U are scaled duals: where rho changes they shrink by as much as it grows.
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


def _penalties(method: solvers.Admm, n_iter: int) -> tuple[Any, ...]:
    rhos = method.penalties(n_iter)
    rescales = np.concatenate([np.ones(1), rhos[:-1] / rhos[1:], np.ones(1)])
    return rhos, rescales[:-1], rescales[1:]


# Of each: what prepares it, and the columns of its parameters, scalars or a value an iteration.
_METHODS: Mapping[type[solvers.Method], tuple[Callable[..., Prepared], Callable[..., tuple[Any, ...]]]] = {
    solvers.Admm: (_admm, _penalties),
    solvers.AdmmGla: (_admm_gla, lambda method, n_iter: (method.rho,)),
    solvers.GriffinLim: (_griffin_lim, lambda method, n_iter: (method.momentum,)),
    solvers.Ipalm: (_ipalm, lambda method, n_iter: (method.alpha, method.lam)),
    solvers.Raar: (_raar, lambda method, n_iter: (method.beta,)),
}
