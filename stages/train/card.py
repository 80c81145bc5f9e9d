"""The model card that goes with weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def card(name: str, says: str, about: Mapping[str, Any], headline: pd.DataFrame | None) -> str:
    """Return the card of what was trained as Markdown.

    Parameters
    ----------
    name, says : str
        Its name, and a sentence that says what it is.
    about : mapping
        `recipe`, `trained_on`, `heard_h`, `held_out`.
    headline : DataFrame or None
        Scores on held-out speakers, one row for each inverter; None where none were held out.
    """
    trained, held = about["trained_on"], about["held_out"]
    lines = [
        f"# {name}",
        "",
        says,
        "",
        f"- Trained on {trained['minutes']:g} minutes of {trained['speakers']} speakers "
        f"({trained['utterances']} utterances), for {about['recipe']['steps']} steps: {about['heard_h']:.1f} hours of "
        "segments heard.",
        f"- Held out: {held['utterances']} utterances of {held['speakers']} other speakers, "
        f"{held['minutes']:g} minutes.",
        *(f"- {line}" for line in about.get("notes", ())),
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
