"""Which metric to trust: what each makes of damaged recordings, as a table of the page."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from melmill.stages.report.views.overview import grouped
from melmill.stages.report.views.page_tables import Cell, Grid
from melmill.stages.score.metric import metric as metric_of
from melmill.stages.score.trust.damages import DAMAGES, Damage
from melmill.stages.score.trust.judgement import cell, overall


def grids(trust: pd.DataFrame | None) -> list[Grid]:
    """Return a table for each node whose recordings were damaged: metrics down, damages across."""
    if trust is None:
        return []
    return [_grid(rows, str(node)) for node, rows in trust.groupby("node", sort=False)]


def shown_damages(trust: pd.DataFrame | None) -> list[Damage]:
    """Return the damages of the tables."""
    return [] if trust is None else [DAMAGES[name] for name in dict.fromkeys(trust["damage"])]


def _grid(rows: pd.DataFrame, node: str) -> Grid:
    # First what nobody hears: it tells metrics apart.
    damages = sorted((DAMAGES[name] for name in dict.fromkeys(rows["damage"])), key=lambda one: one.expected)
    of = {(row["metric"], row["damage"]): row for row in rows.to_dict("records")}
    whole = {row["metric"]: row for row in overall(rows).to_dict("records")}
    groups = grouped(rows["metric"])
    made = []
    for metric in (metric for _, members in groups for metric in members):
        head = [Cell(text=f"{metric.title} {metric.arrow}", kind="label"), *_sum(whole.get(metric.column))]
        made.append([*head, *(_cell(of[metric.column, damage.name]) for damage in damages)])
    titles = [one.title if one.expected == "worse" else f"{one.title} (not heard)" for one in damages]
    n = int(rows["n"].max())
    return Grid(
        caption=f"Damaged recordings of {node}, {n} of them",
        columns=["metric", "right", "steps told", "moved by", *titles],
        rows=made,
        sections=[(title, len(members)) for title, members in groups],
        is_sortable=False,
        is_dense=True,
    )


def _sum(row: Mapping[Hashable, Any] | None) -> list[Cell]:
    if row is None:
        return [Cell(text="–"), Cell(text="–"), Cell(text="–", kind="label")]
    right = f"{row['n_right']} of {row['n_damages']}" if row["n_damages"] else "–"
    told = f"{row['told']:.0%}" if row["n_damages"] else "–"
    return [Cell(text=right), Cell(text=told), Cell(text=row["moved_by"] or "nothing", kind="label")]


def _cell(row: Mapping[Hashable, Any]) -> Cell:
    metric, damage = metric_of(str(row["metric"])), DAMAGES[str(row["damage"])]
    hint = f"{metric.title}, {damage.title.lower()}: {row['n']} recordings"
    if row["verdict"] != "no value":
        strongest, itself = (f"{row[name]:.{metric.decimals}f}" for name in ("strongest", "itself"))
        hint += f"; strongest step {strongest}, the recording {itself}; "
        hint += f"{row['n_told']} of {row['n_steps']} steps told from the one before"
    text, _, small = cell(row).partition("; ")
    mark = "worse" if row["verdict"] in ("wrong", "deaf") else ""
    return Cell(text=text, small=small, hint=hint, mark=mark, kind="label")
