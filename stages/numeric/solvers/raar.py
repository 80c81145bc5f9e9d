"""Relaxed averaged alternating reflections on a fixed magnitude."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.stages.numeric.errors import ParameterError


@dataclass(frozen=True, kw_only=True)
class Raar:
    """Iterate ``X = beta/2 (R_C R_A + I) X + (1 - beta) P_A X`` with the reflections ``R = 2 P - I``.

    With ``A = P_A(X)`` and ``Z = P_C(2 A - X)`` this is ``X = beta (X + Z) + (1 - 2 beta) A``.

    Parameters
    ----------
    beta : float
        Relaxation, in (0, 1]; 1 averages the reflections alone. Larger wanders further from the start, which pays
        where the magnitude is true; on magnitudes from mels of speech 0.7 gave the best SCM.

    References
    ----------
    Luke 2005; Peer, Welker and Gerkmann 2022 (on speech).
    """

    beta: float = 0.7

    def __post_init__(self) -> None:
        """Check the relaxation."""
        if not 0 < self.beta <= 1:
            raise ParameterError("beta", f"must be in (0, 1], got {self.beta!r}")
