"""The model card that goes with weights.

- Losses over the steps of a training, thinned to what a plot shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def card(name: str, about: Mapping[str, Any], headline: pd.DataFrame | None) -> str:
    """Return the card of a trained vocoder as Markdown.

    Parameters
    ----------
    name : str
    about : mapping
        `recipe`, `parameters`, `bytes`, `trained_on`, `heard_h`, `held_out`.
    headline : DataFrame or None
        Scores on held-out speakers, a row an inverter; None where none were held out.
    """
    trained, held = about["trained_on"], about["held_out"]
    lines = [
        f"# {name}",
        "",
        f"A vocoder of the family `{about['recipe']['generator']}`, {about['parameters']:,} parameters, "
        f"{about['bytes'] / 1e6:.1f} MB in float16, trained by melmill's `train_vocoder`.",
        "",
        f"- Trained on {trained['minutes']:g} minutes of {trained['speakers']} speakers "
        f"({trained['utterances']} utterances), for {about['recipe']['steps']} steps: {about['heard_h']:.1f} hours of "
        "segments heard.",
        f"- Held out: {held['utterances']} utterances of {held['speakers']} other speakers, "
        f"{held['minutes']:g} minutes.",
        "- Made for the mel that `config.json` describes; `melmill mel explain` says what differs from another.",
        "",
    ]
    if headline is not None:
        columns = list(headline.columns)
        lines += ["Held-out speakers, mean ± half the 95 % bootstrap interval over utterances:", ""]
        lines.append("| | " + " | ".join(columns) + " |")
        lines.append("|---|" + "---|" * len(columns))
        lines += [f"| {node} | " + " | ".join(map(str, row)) + " |" for node, row in headline.iterrows()]
        lines.append("")
    return "\n".join([*lines, "## Recipe", "", "```json", json.dumps(about["recipe"], indent=1), "```", ""])


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
