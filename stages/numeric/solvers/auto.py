"""The inverter that is taken where none is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from melmill.stages.numeric.checks import check_choice
from melmill.stages.numeric.solver import Solver
from melmill.stages.numeric.solvers.admm import Admm

Quality = Literal["draft", "good", "best"]

# Iterations of each, without a prior and with one. docs/results.md compares inverters: these score
# best for their time, in which a prior's network takes the place of some iterations.
_N_ITER: Mapping[Quality, tuple[int, int]] = {"draft": (20, 10), "good": (50, 42), "best": (200, 200)}


@dataclass(frozen=True, kw_only=True)
class Auto(Solver):
    """Invert as well as is known for the time: at present by ADMM with a swinging penalty.

    Parameters
    ----------
    quality : {"draft", "good", "best"}
        What to spend: 20, 50 or 200 iterations. With a prior 10, 42 or 200.

    Examples
    --------
    >>> Auto(quality="draft").resolved(None)[1]
    20
    >>> Auto(quality="draft").resolved(None, guided=True)[1]
    10
    """

    name = "auto"
    uses = "invert"
    default_n_iter = None
    starts = ("pghi",)
    default_start = "pghi"
    default_prior = "auto"

    quality: Quality = "good"

    def __post_init__(self) -> None:
        """Check the quality."""
        check_choice("quality", self.quality, tuple(_N_ITER))

    def resolved(self, n_iter: int | None, *, guided: bool = False) -> tuple[Solver, int]:
        """Return ADMM, and the quality's number of iterations unless the user gave one."""
        return Admm(lam=85.8, schedule="swing"), _N_ITER[self.quality][guided] if n_iter is None else n_iter
