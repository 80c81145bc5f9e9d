"""The inverter that is taken where none is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from melmill.stages.numeric.checks import check_choice
from melmill.stages.numeric.solver import Solver
from melmill.stages.numeric.solvers.admm import Admm

Quality = Literal["draft", "good", "best"]

# Iterations that each costs. They score best for their time among all that docs/results.md compares.
_N_ITER: Mapping[Quality, int] = {"draft": 20, "good": 50, "best": 200}


@dataclass(frozen=True, kw_only=True)
class Auto(Solver):
    """Invert as well as is known for the time: at present by ADMM with a swinging penalty.

    Parameters
    ----------
    quality : {"draft", "good", "best"}
        What to spend: 20, 50 or 200 iterations.

    Examples
    --------
    >>> Auto(quality="draft").resolved(None)[1]
    20
    """

    name = "auto"
    uses = "invert"
    default_n_iter = None
    starts = ("pghi",)
    default_start = "pghi"

    quality: Quality = "good"

    def __post_init__(self) -> None:
        """Check the quality."""
        check_choice("quality", self.quality, tuple(_N_ITER))

    def resolved(self, n_iter: int | None) -> tuple[Solver, int]:
        """Return ADMM and the iterations of the quality, unless the user asked for another number."""
        return Admm(lam=85.8, schedule="swing"), _N_ITER[self.quality] if n_iter is None else n_iter
