"""Joint estimation of magnitude and phase by the alternating direction method of multipliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.checks import check_choice, check_float
from melmill.stages.numeric.solver import Solver


@dataclass(frozen=True, kw_only=True)
class Admm(Solver):
    """Estimate magnitude and phase together by ADMM (Masuyama 2024).

    This is Algorithm 2 with a compact state: ``V = Z - D`` and ``U = Y - Ups`` need not be kept.
    The inverse of eq. 17 shrinks to the bands by the Woodbury identity,
    ``W = Phi - E^T (E E^T + (rho / lam) I)^-1 (E Phi - M)``.

    From PGHI's phase it needs half as many iterations as from random phase. ``schedule="swing"``
    with ``lam=85.8`` halves them again by PESQ and SC, and saves less by ESTOI and SCM.

    Parameters
    ----------
    lam : float
        Weight of the mel, positive, on a bank of unit spectral norm. A paper's lam on its own bank
        E is ``lam ||E||_2^2`` here. The default is the paper's 5000 with the Slaney-normalised bank
        of its setting (80 bands, 16 kHz, ``||E||_2 = 0.0414``).
    rho : float
        Penalty of the augmented Lagrangian, positive. Larger favours SCM, smaller PESQ.
    schedule : {"constant", "swing"}
        How the penalty changes over the iterations, see `penalties`.

    References
    ----------
    Masuyama, Ueno and Ono 2024, Algorithm 2, eqs. 15, 17, 18 and 20.
    """

    name = "admm"
    compiled = "melmill.stages.numeric.compiled.admm"
    batched = "melmill.stages.numeric.batched.admm"
    default_start = "pghi"

    lam: float = 8.58
    rho: float = 0.1
    schedule: Literal["constant", "swing"] = "constant"

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_float("lam", self.lam, above=0)
        check_float("rho", self.rho, above=0)
        check_choice("schedule", self.schedule, ("constant", "swing"))

    def penalties(self, n_iter: int) -> NDArray[np.float64]:
        """Return rho of every iteration of a run, shape (n_iter,).

        The swing starts at ``10 rho``, which makes the phase consistent fast. By half-time it is
        down to ``10 rho n_iter**(-3/4)``, where magnitude and phase find each other. It ends at
        ``1.5 rho``, which makes them agree. Each leg is geometric. `lam` goes along, so that
        eq. 17 keeps its inverse.
        """
        if self.schedule == "constant":
            return np.full(n_iter, self.rho)
        n = max(n_iter, 1)
        first, low, last = min(10.0, 0.3 * n), 10.0 * n**-0.75, 1.5
        legs = np.interp(np.linspace(0, 1, n_iter), (0, 0.5, 1), np.log((first, low, last)))
        return np.asarray(self.rho * np.exp(legs))
