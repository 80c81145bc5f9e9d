"""The five methods on batches: of each its state, the start of it, and one step in the paper's symbols.

A step is given Z, the projection of the spectrum that comes first in the state, and overwrites the state. It is
element-wise but for the products with the bank, so that it compiles to one kernel, which reads what it needs of a bin
and writes it once. The equations are with `melmill.stages.dsp.solvers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from melmill.stages.dsp import solvers
from melmill.stages.dsp.bank import Bank
from melmill.stages.dsp.batched.bands import Bands, bands_of, misfit, resolvent
from melmill.stages.dsp.batched.pair import parts, store
from melmill.stages.dsp.batched.placement import Placement


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
        Called with Z, the state and the rest.
    state : tuple of Tensor
        What a step overwrites: first the spectrum that is projected next.
    rest : tuple
        What it only reads: magnitude or mels, the bank, and the method's parameters, which are tensors so that
        another value needs no other kernel.
    """

    step: Callable[..., None]
    state: tuple[Tensor, ...]
    rest: tuple[Any, ...]


def iteration(method: solvers.Method, start: Start, bank: Bank, place: Placement) -> Iteration:
    """Return a method about to make its first step."""
    made: Iteration = _METHODS[type(method)](method, start, bank, place)
    return made


def _griffin_lim(method: solvers.GriffinLim, start: Start, bank: Bank, place: Placement) -> Iteration:
    del bank
    if method.momentum == 0:
        return Iteration(step=griffin_lim_step, state=(start.X,), rest=(start.Y,))
    rest = (start.Y, place.tensor(method.momentum))
    return Iteration(step=fast_griffin_lim_step, state=(start.X, start.Z), rest=rest)


def griffin_lim_step(Z: Tensor, X: Tensor, Y: Tensor) -> None:
    """Impose the magnitude."""
    Psi = parts(Z)
    store(X, Psi.times(Y / Psi.modulus()))


def fast_griffin_lim_step(Z: Tensor, X: Tensor, Z_old: Tensor, Y: Tensor, alpha: Tensor) -> None:
    """Impose the magnitude on ``Z + alpha (Z - Z_old)``."""
    new = parts(Z)
    Psi = new + (new - parts(Z_old)).times(alpha)
    store(X, Psi.times(Y / Psi.modulus()))
    store(Z_old, new)


def _admm_gla(method: solvers.AdmmGla, start: Start, bank: Bank, place: Placement) -> Iteration:
    del bank
    return Iteration(step=admm_gla_step, state=(start.Z,), rest=(start.Y, place.tensor(method.rho)))


def admm_gla_step(Z: Tensor, D: Tensor, Y: Tensor, rho: Tensor) -> None:
    """Update ``D = X - V``."""
    new = parts(Z)
    V = new - parts(D)
    Psi = new + V
    modulus = Psi.modulus()
    store(D, Psi.times((Y + rho * modulus) / (1 + rho) / modulus) - V)


def _raar(method: solvers.Raar, start: Start, bank: Bank, place: Placement) -> Iteration:
    del bank
    state = (torch.empty_like(start.X), start.X)
    return Iteration(step=raar_step, state=state, rest=(start.Y, place.tensor(method.beta)))


def raar_step(Z: Tensor, R: Tensor, X: Tensor, Y: Tensor, beta: Tensor) -> None:
    """Update X, and ``R = R_A X``, the reflection that is projected next."""
    old = parts(X)
    A = old.times(Y / old.modulus())
    new = (old + parts(Z)).times(beta) + A.times(1 - 2 * beta)
    store(R, new.times(2 * Y / new.modulus()) - new)
    store(X, new)


def _ipalm(method: solvers.Ipalm, start: Start, bank: Bank, place: Placement) -> Iteration:
    parameters = place.tensor(method.alpha), place.tensor(method.lam)
    rest = (start.M, bands_of(bank, place), bank.power, *parameters)
    return Iteration(step=ipalm_step, state=(torch.empty_like(start.X), start.X, start.Y), rest=rest)


def ipalm_step(
    Z: Tensor, X: Tensor, Z_old: Tensor, Y: Tensor, M: Tensor, E: Bands, power: float, alpha: Tensor, lam: Tensor
) -> None:
    """Make the Y-update of one iteration, then the X-update of the next."""
    new = parts(Z)
    W = Y - E.spread(misfit(Y, Y, M, E, power))
    magnitude = torch.relu(new.modulus() + lam * W) / (1 + lam)
    Psi = new + (new - parts(Z_old)).times(alpha)
    store(X, Psi.times(magnitude / Psi.modulus()))
    store(Z_old, new)
    Y.copy_(magnitude)


def _admm(method: solvers.Admm, start: Start, bank: Bank, place: Placement) -> Iteration:
    inverse = resolvent(bank, method.rho / method.lam, place)
    rest = (start.M, bands_of(bank, place), bank.power, inverse, place.tensor(method.rho))
    return Iteration(step=admm_step, state=(start.Z, start.Y.clone(), start.Y), rest=rest)


def admm_step(
    Z: Tensor, D: Tensor, Phi: Tensor, Y: Tensor, M: Tensor, E: Bands, power: float, inverse: Tensor, rho: Tensor
) -> None:
    """Update ``D = X - V``, Y, and ``Phi = Y + U = 2 Y - Ups``, of which the next step needs but the mel."""
    new = parts(Z)
    V = new - parts(D)
    Psi = new + V
    modulus = Psi.modulus()
    X_abs = (Y + rho * modulus) / (1 + rho)  # eq. 15
    # W = Phi - E^T (...) (eq. 17), so that Ups = W - U is Y - E^T (...).
    Ups = Y - E.spread(misfit(Phi, Y, M, E, power) @ inverse)
    magnitude = torch.relu(X_abs + rho * Ups) / (1 + rho)  # eq. 20
    store(D, Psi.times(X_abs / modulus) - V)
    Phi.copy_(2 * magnitude - Ups)
    Y.copy_(magnitude)


_METHODS: Mapping[type[solvers.Method], Any] = {
    solvers.Admm: _admm,
    solvers.AdmmGla: _admm_gla,
    solvers.GriffinLim: _griffin_lim,
    solvers.Ipalm: _ipalm,
    solvers.Raar: _raar,
}
