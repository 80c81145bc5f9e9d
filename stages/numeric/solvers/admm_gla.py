"""Griffin-Lim-like phase recovery by ADMM, on a fixed magnitude."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.stages.numeric.checks import check_float
from melmill.stages.numeric.solver import Solver


@dataclass(frozen=True, kw_only=True)
class AdmmGla(Solver):
    """Recover phase by ADMM on a fixed magnitude (Masuyama 2019).

    With Y fixed and ``Psi = Z + V``, an iteration is X by eq. 15, then ``Z = P_C(X - V)`` and
    ``V += Z - X``. The dual variable is ``V = Z - D`` with ``D = X - V``. So only D is kept, and
    ``Psi = 2 Z - D``.

    Parameters
    ----------
    rho : float
        At least 0. How much of ``|Psi|`` goes into the magnitude of X; 0 imposes Y.

    References
    ----------
    Masuyama, Yatabe and Oikawa 2019; the proximity operator is eq. 15 of Masuyama et al. 2024.
    """

    name = "admm_gla"
    compiled = "melmill.stages.numeric.compiled.admm_gla"
    batched = "melmill.stages.numeric.batched.admm_gla"

    rho: float = 0.1

    def __post_init__(self) -> None:
        """Check rho."""
        check_float("rho", self.rho, at_least=0)
