"""Joint estimation of magnitude and phase by iPALM.

The letters stand for inertial proximal alternating linearised minimisation.
"""

from __future__ import annotations

from dataclasses import dataclass

from melmill.stages.numeric.checks import check_float
from melmill.stages.numeric.solver import Solver


@dataclass(frozen=True, kw_only=True)
class Ipalm(Solver):
    """Estimate magnitude and phase together by iPALM (Masuyama 2023).

    This is Algorithm 1 on the bank scaled to unit spectral norm, which the step of the W-update
    needs.

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

    name = "ipalm"
    compiled = "melmill.stages.numeric.compiled.ipalm"
    batched = "melmill.stages.numeric.batched.ipalm"

    alpha: float = 0.9
    lam: float = 10.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_float("alpha", self.alpha, at_least=0, below=1)
        check_float("lam", self.lam, above=0)
