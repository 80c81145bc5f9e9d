"""Relaxed averaged alternating reflections on a fixed magnitude."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.stages.numeric.checks import check_float
from melmill.stages.numeric.solver import Solver


@dataclass(frozen=True, kw_only=True)
class Raar(Solver):
    """Recover phase by relaxed averaged alternating reflections on a fixed magnitude (Peer 2022).

    With the reflections ``R = 2 P - I`` an iteration is
    ``X = beta/2 (R_C R_A + I) X + (1 - beta) P_A X``. With ``A = P_A(X)`` and
    ``Z = P_C(2 A - X)`` this is ``X = beta (X + Z) + (1 - 2 beta) A``.

    Parameters
    ----------
    beta : float
        Relaxation, in (0, 1]; 1 averages the reflections alone. A larger one wanders further from
        the start, which pays where the magnitude is true. On magnitudes from mels of speech 0.7
        gave the best SCM.

    References
    ----------
    Luke 2005; Peer, Welker and Gerkmann 2022 (on speech).
    """

    name = "raar"
    compiled = "melmill.stages.numeric.compiled.raar"
    batched = "melmill.stages.numeric.batched.raar"

    beta: float = 0.7

    def __post_init__(self) -> None:
        """Check the relaxation."""
        check_float("beta", self.beta, above=0, at_most=1)
