"""Relaxed averaged alternating reflections on a fixed magnitude."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.solvers.method import Bank, with_magnitude
from melmill.stages.errors import ParameterError


class RaarState(NamedTuple):
    """The iterate X, ``A = P_A(X)`` with the magnitude Y, and Y."""

    X: NDArray[Any]
    A: NDArray[Any]
    Y: NDArray[Any]


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

    def start(self, X: NDArray[Any], Z: NDArray[Any], Y: NDArray[Any], M: NDArray[Any]) -> RaarState:
        """Return the state whose first Z is P_C(X), as X has the magnitude Y already."""
        del Z, M
        return RaarState(X=X, A=X.copy(), Y=Y)

    def step(self, Z: NDArray[Any], state: RaarState, bank: Bank) -> NDArray[Any]:
        """Return ``2 A - X``, which is projected next."""
        del bank
        X, A, Y = state
        X += Z
        X *= self.beta
        A *= 1 - 2 * self.beta
        X += A
        A[...] = X
        with_magnitude(A, Y)
        return np.asarray(2 * A - X)
