"""Griffin-Lim and its fast variant."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.stages.numeric.checks import check_float
from melmill.stages.numeric.solver import Solver


@dataclass(frozen=True, kw_only=True)
class GriffinLim(Solver):
    """Recover phase by Griffin-Lim on a fixed magnitude.

    An iteration is ``X = Y Psi / |Psi|`` and ``Z = P_C(X)`` with
    ``Psi = Z + momentum (Z - Z_old)``.

    Parameters
    ----------
    momentum : float
        In [0, 1). 0 is the classic algorithm, 0.99 the usual fast one.

    References
    ----------
    Griffin and Lim 1984; Perraudin, Balazs and Søndergaard 2013 (momentum); Masuyama et al. 2024,
    eq. 3 with mu = 1.
    """

    name = "griffin_lim"
    compiled = "melmill.stages.numeric.compiled.griffin_lim"
    batched = "melmill.stages.numeric.batched.griffin_lim"

    momentum: float = 0.0

    def __post_init__(self) -> None:
        """Check the momentum."""
        check_float("momentum", self.momentum, at_least=0, below=1)
