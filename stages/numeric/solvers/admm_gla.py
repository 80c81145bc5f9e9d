"""Griffin-Lim-like phase recovery by ADMM, on a fixed magnitude."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.stages.numeric.errors import ParameterError


@dataclass(frozen=True, kw_only=True)
class AdmmGla:
    """Iterate on ``Psi = Z + V``: X by eq. 15, ``Z = P_C(X - V)``, ``V += Z - X``, with Y fixed.

    With ``D = X - V`` the dual variable is ``V = Z - D``, so that only D is kept and ``Psi = 2 Z - D``.

    Parameters
    ----------
    rho : float
        At least 0. How much of ``|Psi|`` goes into the magnitude of X; 0 imposes Y.

    References
    ----------
    Masuyama, Yatabe and Oikawa 2019; the proximity operator is eq. 15 of Masuyama et al. 2024.
    """

    rho: float = 0.1

    def __post_init__(self) -> None:
        """Check rho."""
        if not self.rho >= 0:
            raise ParameterError("rho", f"must not be negative, got {self.rho!r}")
