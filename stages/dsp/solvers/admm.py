"""Joint estimation of magnitude and phase by the alternating direction method of multipliers."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.stages.errors import ParameterError


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
