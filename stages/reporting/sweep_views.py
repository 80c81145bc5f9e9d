"""The figures of a report's sweeps, drawn: scores against one parameter, and maps over two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from melmill.stages.metrics.registry import Metric
from melmill.stages.metrics.registry import metric as described
from melmill.stages.reporting.comparison import leaders
from melmill.stages.reporting.figures import look
from melmill.stages.reporting.statistics import measured
from melmill.stages.reporting.sweep_figures import Line, Map, against, heat_map
from melmill.stages.reporting.sweeps import Arrangement, Sweep


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Hold figures that belong together, one a metric."""

    title: str
    drawn: Sequence[tuple[Metric, Markup]]


def lines(summary: pd.DataFrame, arrangement: Arrangement) -> list[Panel]:
    """Draw every metric against every parameter that makes a sweep of its own, all such sweeps in one figure.

    Parameters
    ----------
    summary : DataFrame
        What `statistics.summary` returned.
    arrangement : Arrangement
    """
    of_parameter: dict[str, list[Sweep]] = {}
    for sweep in arrangement.sweeps:
        if not sweep.is_map:
            of_parameter.setdefault(sweep.axes[0], []).append(sweep)
    return [
        Panel(
            title=f"Against {parameter}",
            drawn=[
                (described(metric), Markup(against(drawn, metric, parameter)))
                for metric in measured(summary)
                if (drawn := [line for sweep in some if (line := _line(summary, metric, sweep, arrangement))])
            ],
        )
        for parameter, some in of_parameter.items()
    ]


def _line(summary: pd.DataFrame, metric: str, sweep: Sweep, arrangement: Arrangement) -> Line | None:
    rows = _rows(summary, metric, sweep)
    if rows["mean"].isna().all():
        return None
    x = np.array([sweep.points[node][0] for node in rows.index])
    order = np.argsort(x)
    mean, low, high = (rows[name].to_numpy(dtype=np.float64)[order] for name in ("mean", "ci_low", "ci_high"))
    stands = arrangement.standing_for(sweep)
    return Line(name=sweep.name, look=look(arrangement.shown, stands), x=x[order], mean=mean, low=low, high=high)


def maps(scores: pd.DataFrame, summary: pd.DataFrame, arrangement: Arrangement, seed: int) -> list[Panel]:
    """Draw a map of every metric for every sweep over two parameters.

    Parameters
    ----------
    scores : DataFrame
        One row per utterance and node.
    summary : DataFrame
        What `statistics.summary` returned of them.
    arrangement : Arrangement
    seed : int
        Of the bootstrap that tells a map's best from the others.
    """
    panels = []
    for sweep in arrangement.sweeps:
        if sweep.is_map:
            found = leaders(scores[scores["node"].isin(list(sweep.points))], seed=seed)
            drawn = [
                (described(metric), Markup(heat_map(_map(summary, metric, sweep, found.get(metric, ())), metric)))
                for metric in measured(summary)
                if _rows(summary, metric, sweep)["mean"].notna().any()
            ]
            panels.append(Panel(title=f"{sweep.name}: {sweep.axes[0]} and {sweep.axes[1]}", drawn=drawn))
    return panels


def _map(summary: pd.DataFrame, metric: str, sweep: Sweep, ranked: Sequence[str]) -> Map:
    down, across = (sweep.values(axis) for axis in sweep.axes)
    means = np.full((len(down), len(across)), np.nan)
    cells = {node: (down.index(point[0]), across.index(point[1])) for node, point in sweep.points.items()}
    for node, mean in _rows(summary, metric, sweep)["mean"].items():
        means[cells[str(node)]] = mean
    return Map(
        names=(sweep.axes[0], sweep.axes[1]),
        down=down,
        across=across,
        means=means,
        marks={cells[node]: "tied" if at else "best" for at, node in enumerate(ranked)},
    )


def _rows(summary: pd.DataFrame, metric: str, sweep: Sweep) -> pd.DataFrame:
    """Return a sweep's rows over all utterances, by node."""
    whole = summary[(summary["level"] == "all") & (summary["metric"] == metric)].set_index("node")
    return whole.loc[[node for node in sweep.points if node in whole.index]]
