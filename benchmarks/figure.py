"""A measured value with its goal, and a table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table.

    Parameters
    ----------
    name : str
    measured : float
    unit : str
    goal : float or None
        None for what is only told.
    at_least : bool
        The goal is a lower bound; otherwise an upper one, which the figure must stay below.
    """

    name: str
    measured: float
    unit: str
    goal: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        return self.measured >= self.goal if self.at_least else self.measured < self.goal

    def row(self) -> tuple[str, str, str, str]:
        """Return the figure as words.

        >>> Figure(name="planning", measured=7.8912, unit="s", goal=10).row()
        ('planning', '7.891 s', '< 10 s', 'yes')
        """
        goal = "" if self.goal is None else f"{'>=' if self.at_least else '<'} {self.goal:g} {self.unit}"
        return self.name, f"{self.measured:.4g} {self.unit}", goal, {None: "", True: "yes", False: "NO"}[self.met]


def table(figures: Sequence[Figure]) -> str:
    """Set figures as a table of text."""
    rows = [("figure", "measured", "goal", "met?"), *(figure.row() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * sum(widths, 6), *lines[1:]])
