"""Distances of whole sets, and their bias, as tables of the page."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from melmill.stages.report.tables import number, plus_minus, status
from melmill.stages.report.views.page_tables import Cell, Grid
from melmill.stages.score.metric import metric as metric_of

_TITLES = ("recordings", "failed", "parts", "numbers")


def grids(values: pd.DataFrame | None) -> list[Grid]:
    """Return a table for each embedding: a row per node, with its distances and the bias of FAD."""
    if values is None:
        return []
    return [_grid(rows, str(embedding)) for embedding, rows in values.groupby("embedding", sort=False)]


def _grid(rows: pd.DataFrame, embedding: str) -> Grid:
    metrics = list(dict.fromkeys(rows["metric"]))
    made = []
    for node, of_node in rows.groupby("node", sort=False):
        by_metric = {str(row["metric"]): row for row in of_node.to_dict("records")}
        first = next(iter(by_metric.values()))
        counts = [str(first[name]) for name in ("n", "n_failed", "n_parts", "n_dimensions")]
        cells = [_cell(by_metric[name]) if name in by_metric else Cell(text="–") for name in metrics]
        bias = [_bias(by_metric)] if "fad" in metrics else []
        made.append([Cell(text=str(node), kind="label"), *cells, *bias, *(Cell(text=one) for one in counts)])
    titles = [f"{metric_of(name).title}\u00a0{metric_of(name).arrow}" for name in metrics]
    return Grid(
        caption=f"Distance of both sets, embedding {embedding}",
        columns=["node", *titles, *(["bias of FAD"] if "fad" in metrics else []), *_TITLES],
        rows=made,
    )


def _cell(row: Mapping[Hashable, Any]) -> Cell:
    digits = metric_of(str(row["metric"])).decimals
    if math.isnan(row["value"]):
        return Cell(text=status(row["status"]), mark="none")
    text = plus_minus(row["value"], row["ci_low"], row["ci_high"], digits)
    if math.isnan(row["ci_low"]):
        return Cell(text=text, hint="no interval")
    return Cell(
        text=text, hint=f"95 % interval {number(row['ci_low'], digits)} to {number(row['ci_high'], digits)} (jackknife)"
    )


def _bias(by_metric: Mapping[str, Mapping[Hashable, Any]]) -> Cell:
    """Return by how much FAD of this many recordings is above FAD∞."""
    value = by_metric["fad"]["value"] - by_metric["fad_inf"]["value"]
    return Cell(text=number(value, metric_of("fad").decimals), hint="FAD less FAD∞")
