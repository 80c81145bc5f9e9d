"""Griffin-Lim and its fast variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.solvers.method import Bank, with_magnitude
from melmill.stages.errors import ParameterError


class GriffinLimState(NamedTuple):
    """The magnitude Y and, with momentum, the last Z (else no rows)."""

    Y: NDArray[Any]
    Z_old: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class GriffinLim:
    """Iterate ``X = Y Psi / |Psi|`` and ``Z = P_C(X)`` with ``Psi = Z + momentum (Z - Z_old)``.

    Parameters
    ----------
    momentum : float
        In [0, 1); 0 is the classic algorithm, 0.99 the usual fast one.

    References
    ----------
    Griffin and Lim 1984; Perraudin, Balazs and Søndergaard 2013 (momentum); Masuyama et al. 2024, eq. 3 with mu = 1.
    """

    momentum: float = 0.0

    def __post_init__(self) -> None:
        """Check the momentum."""
        if not 0 <= self.momentum < 1:
            raise ParameterError("momentum", f"must be in [0, 1), got {self.momentum!r}")

    def start(self, X: NDArray[Any], Z: NDArray[Any], Y: NDArray[Any], M: NDArray[Any]) -> GriffinLimState:
        """Return the state that has no momentum yet."""
        del X, M
        return GriffinLimState(Y=Y, Z_old=Z if self.momentum else np.empty((0, 1), dtype=Z.dtype))

    def step(self, Z: NDArray[Any], state: GriffinLimState, bank: Bank) -> NDArray[Any]:
        """Return X, which is projected next."""
        del bank
        if not self.momentum:
            return with_magnitude(Z, state.Y)
        Psi = extrapolated(Z, state.Z_old, self.momentum)
        state.Z_old[...] = Z
        return with_magnitude(Psi, state.Y)


def extrapolated(Z: NDArray[Any], Z_old: NDArray[Any], alpha: float) -> NDArray[Any]:
    """Return ``Z + alpha (Z - Z_old)`` in an array of its own."""
    Psi = Z - Z_old
    Psi *= alpha
    Psi += Z
    return np.asarray(Psi)
