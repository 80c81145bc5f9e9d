"""Joint estimation of magnitude and phase by the alternating direction method of multipliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.errors import ParameterError


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
    schedule : {"constant", "swing"}
        How the penalty goes through the iterations, see `penalties`. From PGHI's phase, 50 iterations of ``"swing"``
        with ten times `lam` have the PESQ and SC of 100 of the constant penalty, the paper's, and are between 50 and
        100 of them by ESTOI and SCM.

    References
    ----------
    Masuyama, Ueno and Ono 2024, Algorithm 2, eqs. 15, 17, 18 and 20.
    """

    lam: float = 8.58
    rho: float = 0.1
    schedule: Literal["constant", "swing"] = "constant"

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name in ("lam", "rho"):
            if not getattr(self, name) > 0:
                raise ParameterError(name, f"must be positive, got {getattr(self, name)!r}")
        if self.schedule not in ("constant", "swing"):
            raise ParameterError("schedule", f"must be 'constant' or 'swing', got {self.schedule!r}")

    def penalties(self, n_iter: int) -> NDArray[np.float64]:
        """Return rho of every iteration of a run.

        It swings from ``10 rho``, which makes the phase consistent fast, down to a little of rho at half-time, where
        magnitude and phase find each other, and up to ``1.5 rho``, which makes them agree; each leg is geometric. The
        longer the run, the further down: ``10 rho n_iter**(-3/4)``. `lam` goes along, so that eq. 17 keeps its inverse.
        """
        if self.schedule == "constant":
            return np.full(n_iter, self.rho)
        n = max(n_iter, 1)
        first, low, last = min(10.0, 0.3 * n), 10.0 * n**-0.75, 1.5
        legs = np.interp(np.linspace(0, 1, n_iter), (0, 0.5, 1), np.log((first, low, last)))
        return np.asarray(self.rho * np.exp(legs))
