"""What fits a screen however much was scored: ranks of all nodes by all metrics, and which metrics agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from melmill.stages.report.tables import Results, number
from melmill.stages.score.metric import Metric
from melmill.stages.score.metric import metric as metric_of

GROUPS = {
    "signal": "Signal",
    "pitch": "Pitch and voicing",
    "learned": "Learned",
    "words": "Words",
    "sets": "Whole sets",
}
"""Titles of the groups of metrics, in the order of the page."""

_SHADES = 5


@dataclass(frozen=True, kw_only=True)
class Shaded:
    """Hold a small cell: its text, its tooltip, and its shade.

    `shade` is ``good0`` (none) to ``good5``, or ``bad1`` to ``bad5``; empty where there is nothing.
    """

    text: str
    hint: str = ""
    shade: str = ""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Hold a table of small shaded cells whose columns are metrics.

    Parameters
    ----------
    caption : str
    parts : sequence of (str, int)
        Titles of groups of columns, and how many columns each has.
    columns : sequence of str
    rows : sequence of (str, sequence of Shaded)
    last : str
        Title of a column behind those of the metrics. Empty if there is none.
    """

    caption: str
    parts: Sequence[tuple[str, int]]
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Shaded]]]
    last: str = ""


def grouped(columns: Iterable[str]) -> list[tuple[str, list[Metric]]]:
    """Return metrics by their groups, each group under its title."""
    metrics = [metric_of(name) for name in dict.fromkeys(columns)]
    order = [*GROUPS, *dict.fromkeys(one.group for one in metrics if one.group not in GROUPS)]
    groups = [(GROUPS.get(group, group), [one for one in metrics if one.group == group]) for group in order]
    return [(title, members) for title, members in groups if members]


def rank_matrix(results: Results) -> Matrix | None:
    """Return the ranks of all nodes by all metrics, best nodes first; None with fewer than two.

    A cell has the ranks between which a node can't be told from others. Nodes are ordered by the
    mean over metrics of the middle of these.
    """
    ranks = results.ranks
    if ranks.empty:
        return None
    of = {(row["node"], row["metric"]): row for row in ranks.to_dict("records")}
    groups = grouped(ranks["metric"])
    metrics = [metric for _, members in groups for metric in members]
    middle: dict[str, list[float]] = {}
    for row in ranks.to_dict("records"):
        middle.setdefault(row["node"], []).append((row["rank_low"] + row["rank_high"]) / 2)
    means = {node: sum(values) / len(values) for node, values in middle.items()}
    counts = ranks.groupby("metric").size().to_dict()
    rows = []
    for node in sorted(means, key=lambda name: means[name]):
        cells = [_rank(of.get((node, one.column)), one, counts[one.column]) for one in metrics]
        rows.append((str(node), [*cells, Shaded(text=f"{means[node]:.1f}", hint="mean over the metrics")]))
    return Matrix(
        caption="Rank by each metric, 1 is best",
        parts=[(title, len(members)) for title, members in groups],
        columns=[f"{one.title} {one.arrow}" for one in metrics],
        rows=rows,
        last="mean rank",
    )


def _rank(row: Mapping[Hashable, Any] | None, metric: Metric, n_nodes: int) -> Shaded:
    if row is None:
        return Shaded(text="–", hint=f"no value of {metric.title} to compare")
    low, high = row["rank_low"], row["rank_high"]
    share = 1 - ((low + high) / 2 - 1) / max(1, n_nodes - 1)
    mean = number(row["mean_common"], metric.decimals)
    return Shaded(
        text=f"{low}" if low == high else f"{low}–{high}",
        hint=f"{metric.title}: {mean} over {row['n_common']} utterances that all have",
        shade=f"good{round(share * _SHADES)}",
    )


def correlation_matrix(correlations: pd.DataFrame) -> Matrix | None:
    """Return how far each two metrics agree; None with one metric.

    Below the diagonal: on which utterances came out well. Above it: on the order of the nodes.
    """
    if correlations.empty:
        return None
    groups = grouped(itertools.chain(correlations["metric"], correlations["other"]))
    metrics = [metric for _, members in groups for metric in members]
    place = {one.column: at for at, one in enumerate(metrics)}
    cells = [[Shaded(text="·") for _ in metrics] for _ in metrics]
    for row in correlations.to_dict("records"):
        first, second = sorted((place[row["metric"]], place[row["other"]]))
        names = f"{metrics[first].title} and {metrics[second].title}"
        cells[second][first] = _agreement(row["over_utterances"], f"{names}, over utterances")
        cells[first][second] = _agreement(row["over_nodes"], f"{names}, over {row['n_nodes']} nodes")
    return Matrix(
        caption="Rank correlation: below the diagonal over utterances, above it over nodes",
        parts=[(title, len(members)) for title, members in groups],
        columns=[one.title for one in metrics],
        rows=[(one.title, row) for one, row in zip(metrics, cells, strict=True)],
    )


def _agreement(value: float, about: str) -> Shaded:
    if math.isnan(value):
        return Shaded(text="–", hint=f"{about}: too few values")
    shade = f"{'good' if value >= 0 else 'bad'}{round(abs(value) * _SHADES)}"
    return Shaded(text=f"{value:.2f}".replace("0.", ".", 1), hint=f"{about}: {value:.3f}", shade=shade)
