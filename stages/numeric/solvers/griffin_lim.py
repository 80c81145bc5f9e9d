"""Griffin-Lim and its fast variant."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.stages.numeric.errors import ParameterError


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
