"""Joint estimation of magnitude and phase by inertial proximal alternating linearised minimisation."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.stages.numeric.errors import ParameterError


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
