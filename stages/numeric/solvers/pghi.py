"""Phase from the magnitude alone, in one pass."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.stages.numeric.solver import Solver


@dataclass(frozen=True, kw_only=True)
class Pghi(Solver):
    """Integrate the phase from the magnitude's slopes, in one pass (Prusa 2017).

    `melmill.stages.numeric.compiled.phase.pghi` has the equations. There are no iterations.

    References
    ----------
    Prusa, Balazs and Søndergaard 2017.
    """

    name = "pghi"
    default_n_iter = 0
    starts = ()
    default_start = "pghi"

    def resolved(self, n_iter: int | None, *, guided: bool = False) -> tuple[None, int]:
        """Return that nothing iterates."""
        return None, 0
