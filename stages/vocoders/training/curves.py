"""Losses over the steps of a training, thinned to what a plot shows."""

from __future__ import annotations

import json
from collections.abc import Mapping

# Series, loss, step and value.
Point = tuple[str, str, int, float]


class Curves:
    """Collects losses as means over stretches of steps.

    Attributes
    ----------
    points : list of (str, str, int, float)
        Series, loss, step and value.
    """

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._sums: dict[str, list[float]] = {}

    def add(self, series: str, step: int, losses: Mapping[str, float]) -> None:
        """Add a point of every loss."""
        self.points += [(series, name, step, value) for name, value in losses.items()]

    def average(self, series: str, step: int, losses: Mapping[str, float], stretch: int) -> None:
        """Take the losses of a step in; where one ends a stretch of steps, add the means over it."""
        for name, value in losses.items():
            self._sums.setdefault(name, []).append(value)
        if step % stretch == 0:
            self.add(series, step, {name: sum(values) / len(values) for name, values in self._sums.items()})
            self._sums = {}

    def to_json(self) -> str:
        """Return all of it as text, for `restore`."""
        return json.dumps({"points": self.points, "sums": self._sums})

    def restore(self, text: str) -> None:
        """Become what `to_json` told of."""
        found = json.loads(text)
        self.points = [(series, name, int(step), float(value)) for series, name, step, value in found["points"]]
        self._sums = found["sums"]
