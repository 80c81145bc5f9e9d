"""What the page's script shows on demand: the worst utterances by any metric, and groups by any metric."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from melmill.stages.report.statistics import Cube
from melmill.stages.report.views.overview import grouped
from melmill.stages.report.views.page_tables import all_first
from melmill.stages.score.metric import Metric

# Rows of utterances that a page holds at most, for all metrics together, and the most of one order.
_ROWS = 8_000
_MOST, _FEWEST = 20, 5
# Means of groups that a page holds at most; about sixteen bytes each, with interval and count.
MOST_MEANS = 30_000


def worst(table: Cube, nodes: Sequence[str]) -> dict[str, Any]:
    """Return the worst utterances by each metric, for each of `nodes` and for their mean.

    Parameters
    ----------
    table : Cube
    nodes : sequence of str
        At least one of the cube's.

    Returns
    -------
    dict
        ``nodes``, ``count`` (utterances of one order), ``metrics`` with their ``rows``: the index
        of an utterance, and its value for each node, None without one. ``utterances`` has id,
        speaker and subset of each that a row names.
    """
    at = [table.nodes.index(node) for node in nodes]
    measured = [name for k, name in enumerate(table.metrics) if not np.isnan(table.values[:, at, k]).all()]
    count = min(_MOST, max(_FEWEST, _ROWS // max(1, len(measured) * (len(nodes) + 1))))
    places: dict[int, int] = {}
    metrics = []
    for metric in (one for _, members in grouped(measured) for one in members):
        values = table.values[:, at, table.metrics.index(metric.column)]
        rows = []
        for row in _worst_rows(values * metric.sign, count):
            shown = [None if math.isnan(value) else round(value, metric.decimals + 1) for value in values[row].tolist()]
            rows.append([places.setdefault(int(row), len(places)), *shown])
        metrics.append({**_described(metric), "rows": rows})
    named = table.utterances.iloc[list(places)]
    columns = [named[name].astype(str) for name in ("utterance_id", "speaker_id", "subset")]
    return {
        "nodes": list(nodes),
        "count": count,
        "metrics": metrics,
        "utterances": [list(row) for row in zip(*columns, strict=True)],
    }


def _worst_rows(goodness: NDArray[np.float64], count: int) -> list[int]:
    """Return the rows that are among the `count` worst of some column, or of the mean of all."""
    present = ~np.isnan(goodness)
    rated = present.all(axis=1)
    mean = np.where(rated, np.where(present, goodness, 0.0).mean(axis=1), np.nan)
    found: dict[int, None] = {}
    for column in (mean, *goodness.T):
        order = np.argsort(column, kind="stable")[: int((~np.isnan(column)).sum())]  # NaN sorts last
        found.update(dict.fromkeys(order[:count].tolist()))
    return list(found)


def slices(summary: pd.DataFrame, by: Sequence[str], nodes: Sequence[str]) -> dict[str, Any]:
    """Return the means of groups by each metric, in arrays of groups and nodes.

    Parameters
    ----------
    summary : DataFrame
        What `statistics.summary` returned.
    by : sequence of str
        ``subset`` and ``speaker``, as there.
    nodes : sequence of str

    Returns
    -------
    dict
        ``by``, ``nodes``, ``groups`` (names of each), and ``metrics`` with ``mean``, ``half`` (of
        the 95 % interval) and ``n``, each a list of groups with a list of nodes. ``left_out`` counts
        the metrics that the page has no room for.
    """
    levels = [{"subset": "subset", "speaker": "speaker_id"}[name] for name in by]
    parts = summary[(summary["level"] != "all") & summary["node"].isin(nodes)]
    keys = pd.MultiIndex.from_frame(parts[levels].astype(str))
    groups = sorted(dict.fromkeys(keys), key=all_first)
    members = [one for _, found in grouped(parts["metric"]) for one in found]
    kept = members[: max(1, MOST_MEANS // max(1, len(groups) * len(nodes)))]
    row_of, column_of = {key: at for at, key in enumerate(groups)}, {node: at for at, node in enumerate(nodes)}
    metrics = []
    for metric in kept:
        chosen = (parts["metric"] == metric.column).to_numpy()
        part = parts[chosen]
        index = np.array([row_of[key] for key in keys[chosen]]), np.array([column_of[node] for node in part["node"]])
        mean, half = (np.full((len(groups), len(nodes)), np.nan) for _ in range(2))
        n = np.zeros((len(groups), len(nodes)), dtype=np.int64)
        mean[index], n[index] = part["mean"].to_numpy(), part["n"].to_numpy()
        half[index] = (part["ci_high"].to_numpy() - part["ci_low"].to_numpy()) / 2
        metrics.append(
            {
                **_described(metric),
                "mean": _rounded(mean, metric.decimals),
                "half": _rounded(half, metric.decimals),
                "n": n.tolist(),
            }
        )
    return {
        "by": list(by),
        "nodes": list(nodes),
        "groups": [[name or "(none)" for name in key] for key in groups],
        "metrics": metrics,
        "left_out": len(members) - len(kept),
    }


def _described(metric: Metric) -> dict[str, Any]:
    return {"label": f"{metric.label} {metric.arrow}", "digits": metric.decimals, "sign": metric.sign}


def _rounded(values: NDArray[np.float64], digits: int) -> list[list[float | None]]:
    rounded = np.round(values, digits)
    return [[None if math.isnan(value) else value for value in row] for row in rounded.tolist()]


def as_data(value: object) -> Markup:
    """Return plain values as JSON that can stand in a script element of a page."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    escaped = text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
    return Markup(escaped.replace("\u2028", r"\u2028").replace("\u2029", r"\u2029"))
