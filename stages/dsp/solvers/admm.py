"""Joint estimation of magnitude and phase by the alternating direction method of multipliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.solvers.admm_gla import x_step
from melmill.stages.dsp.solvers.method import Bank
from melmill.stages.errors import ParameterError


class AdmmState(NamedTuple):
    """``D = X - V`` and ``Ups = W - U``, the magnitude Y and the mel M."""

    D: NDArray[Any]
    Ups: NDArray[Any]
    Y: NDArray[Any]
    M: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Admm:
    """Iterate Algorithm 2 with a compact state.

    ``V = Z - D`` and ``U = Y - Ups`` need not be kept. The inverse of eq. 17 shrinks to the bands by the Woodbury
    identity, ``W = Phi - E^T (E E^T + (rho / lam) I)^-1 (E Phi - M)``.

    Parameters
    ----------
    lam : float
        Weight of the mel, positive, on a bank of unit spectral norm: a paper's lam on its own bank E is
        ``lam ||E||_2^2`` here. The default is the paper's 5000 with the Slaney-normalised bank of its setting
        (80 bands, 16 kHz, ``||E||_2 = 0.0414``).
    rho : float
        Penalty of the augmented Lagrangian, positive; larger favours SCM, smaller PESQ.

    References
    ----------
    Masuyama, Ueno and Ono 2024, Algorithm 2, eqs. 15, 17, 18 and 20.
    """

    lam: float = 8.58
    rho: float = 0.1

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name in ("lam", "rho"):
            if not getattr(self, name) > 0:
                raise ParameterError(name, f"must be positive, got {getattr(self, name)!r}")

    def start(self, X: NDArray[Any], Z: NDArray[Any], Y: NDArray[Any], M: NDArray[Any]) -> AdmmState:
        """Return the state of duals V and U that are 0."""
        del X
        return AdmmState(D=Z, Ups=Y.copy(), Y=Y, M=M)

    def step(self, Z: NDArray[Any], state: AdmmState, bank: Bank) -> NDArray[Any]:
        """Return D, which is projected next (eq. 18)."""
        D, Ups, Y, M = state
        X_abs = x_step(Z, D, Y, self.rho)
        Phi = 2 * Y - Ups
        misfit = bank.mel(Phi)
        misfit -= M if bank.power == 1 else bank.target(M, Y, bank.mel(Y))
        # W = Phi - correction (eq. 17), so that Ups = W - U = Y - correction.
        correction = misfit @ bank.resolvent(self.rho / self.lam)
        np.subtract(Y, correction, out=Ups)
        np.multiply(Ups, self.rho, out=Y)
        Y += X_abs
        np.maximum(Y, 0, out=Y)
        Y /= 1 + self.rho
        return D
