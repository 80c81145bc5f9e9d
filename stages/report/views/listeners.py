"""What listeners said, as tables of the page."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melmill.stages.report.contract import HeardTest
from melmill.stages.report.tables import number, p_value
from melmill.stages.report.views.page_tables import Cell, Grid
from melmill.stages.score.listeners.analysis import Outcome
from melmill.stages.score.listeners.kinds import ListeningKind
from melmill.stages.score.metric import metric as metric_of

Record = Mapping[Hashable, Any]


@dataclass(frozen=True, kw_only=True)
class ShownTest:
    """Hold a test as the page shows it: its heading, how it was evaluated, and its tables."""

    title: str
    about: str
    says: str
    tables: Sequence[Grid]


def shown(test: HeardTest, made: Outcome) -> ShownTest:
    """Return a test as the page shows it."""
    return ShownTest(
        title=made.kind.title,
        about=f"{test.test_id}, {made.n_listeners} listeners, {test.n_trials} pages",
        says=" ".join([*made.says, *(f"{note[:1].upper()}{note[1:]}." for note in test.notes)]),
        tables=tables(made),
    )


def tables(made: Outcome) -> list[Grid]:
    """Return systems, pairs of a paired test, and how far metrics agree; nothing if no listener counts."""
    kind = made.kind
    if made.systems.empty:
        return []
    grids = [_systems(kind, made)]
    if kind.is_paired:
        grids.append(_pairs(kind, made))
    if len(made.agreement):
        grids.append(_agreement(kind, made))
    return grids


def value_text(kind: ListeningKind, value: float, low: float, high: float) -> str:
    """Return a number of a system with its interval.

    >>> from melmill.stages.score.listeners.kinds import KINDS
    >>> value_text(KINDS["abx"], 0.75, 0.6, 0.9), value_text(KINDS["mushra"], 80.25, float("nan"), float("nan"))
    ('75 % (60 to 90)', '80.2')
    """
    scale = 100.0 if kind.percent else 1.0
    unit = " %" if kind.percent else ""
    text = f"{number(scale * value, kind.decimals)}{unit}"
    if math.isnan(low):
        return text
    return f"{text} ({number(scale * low, kind.decimals)} to {number(scale * high, kind.decimals)})"


def _arrow(kind: ListeningKind) -> str:
    return "↑" if kind.better == "higher" else "↓"


def _text(text: str) -> Cell:
    return Cell(text=text, kind="label")


def _systems(kind: ListeningKind, made: Outcome) -> Grid:
    rows = [
        [
            _text(row["system"]),
            Cell(text=value_text(kind, row["mean"], row["ci_low"], row["ci_high"])),
            Cell(text=str(row["n_listeners"])),
            Cell(text=str(row["n_ratings"])),
        ]
        for row in made.systems.to_dict("records")
    ]
    return Grid(
        caption="Mean over listeners, with its 95 % interval",
        columns=["system", f"{kind.measure} {_arrow(kind)}", "listeners", "answers"],
        rows=rows,
        is_sortable=False,
    )


def _pairs(kind: ListeningKind, made: Outcome) -> Grid:
    tested = kind.name == "abx"
    rows = []
    for row in made.pairs.to_dict("records"):
        cells = [
            _text(f"{row['system']} and {row['other']}" if tested else f"{row['system']} over {row['other']}"),
            Cell(text=value_text(kind, row["mean"], row["ci_low"], row["ci_high"])),
            Cell(text=str(row["n_listeners"])),
            Cell(text=str(row["n_trials"])),
        ]
        rows.append([*cells, Cell(text=p_value(row["p_holm"]))] if tested else cells)
    return Grid(
        caption="Pairs, with the 95 % interval over listeners",
        columns=["pair", kind.measure, "listeners", "answers", *(["Holm p"] if tested else [])],
        rows=rows,
        is_sortable=False,
    )


def _agreement(kind: ListeningKind, made: Outcome) -> Grid:
    rows = []
    for row in made.agreement.to_dict("records"):
        stimuli = number(row["over_stimuli"], 2)
        if not math.isnan(row["over_stimuli"]) and not math.isnan(row["ci_low"]):
            stimuli += f" ({number(row['ci_low'], 2)} to {number(row['ci_high'], 2)})"
        rows.append(
            [
                _text(metric_of(row["metric"]).label),
                Cell(text=number(row["over_systems"], 2), small=f"n = {row['n_systems']}"),
                Cell(text=stimuli, small=f"n = {row['n_stimuli']}"),
            ]
        )
    return Grid(
        caption="Do metrics agree with listeners? Spearman's rank correlation, 1 is agreement",
        columns=["metric", "over systems", "over single sounds"],
        rows=rows,
        notes=["The interval is over listeners. With few systems a correlation over them says little."],
        is_sortable=False,
    )
