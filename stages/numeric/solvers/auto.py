"""The inverter that is taken where none is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.solvers.admm import Admm

Quality = Literal["draft", "good", "best"]

# Iterations that each costs. The best scores for their time among all that `docs/results.md` compares.
_N_ITER: Mapping[Quality, int] = {"draft": 20, "good": 50, "best": 200}


def auto(quality: Quality = "good") -> tuple[Admm, int]:
    """Return the method and the number of iterations of a quality, to be started from PGHI's phase.

    >>> auto("good")[1]
    50
    """
    if quality not in _N_ITER:
        raise ParameterError("quality", f"must be one of {', '.join(map(repr, _N_ITER))}, got {quality!r}")
    return Admm(lam=85.8, schedule="swing"), _N_ITER[quality]
