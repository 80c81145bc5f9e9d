"""Joint estimation of magnitude and phase by inertial proximal alternating linearised minimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.solvers.griffin_lim import extrapolated
from melmill.stages.dsp.solvers.method import Bank, with_magnitude
from melmill.stages.errors import ParameterError


class IpalmState(NamedTuple):
    """The last Z, the magnitude Y and the mel M."""

    Z_old: NDArray[Any]
    Y: NDArray[Any]
    M: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Ipalm:
    """Iterate Algorithm 1, on the bank scaled to unit spectral norm (the step of the W-update needs that).

    Parameters
    ----------
    alpha : float
        Inertia, in [0, 1).
    lam : float
        Weight of the mel against the phase, positive.

    References
    ----------
    Masuyama, Ueno and Ono 2023; Algorithm 1 of Masuyama et al. 2024.
    """

    alpha: float = 0.9
    lam: float = 10.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not 0 <= self.alpha < 1:
            raise ParameterError("alpha", f"must be in [0, 1), got {self.alpha!r}")
        if not self.lam > 0:
            raise ParameterError("lam", f"must be positive, got {self.lam!r}")

    def start(self, X: NDArray[Any], Z: NDArray[Any], Y: NDArray[Any], M: NDArray[Any]) -> IpalmState:
        """Return the state whose first Z is P_C(X)."""
        del Z
        return IpalmState(Z_old=X, Y=Y, M=M)

    def step(self, Z: NDArray[Any], state: IpalmState, bank: Bank) -> NDArray[Any]:
        """Return X, which is projected next: the Y-update of one iteration, then the X-update of the next."""
        Z_old, Y, M = state
        EY = bank.mel(Y)
        W = Y - (EY - bank.target(M, Y, EY)) @ bank.E
        W *= self.lam
        W += np.abs(Z)
        np.maximum(W, 0, out=Y)
        Y /= 1 + self.lam
        Psi = extrapolated(Z, Z_old, self.alpha)
        Z_old[...] = Z
        return with_magnitude(Psi, Y)
