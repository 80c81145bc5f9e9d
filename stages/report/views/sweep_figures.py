"""Figures of a report's sweeps: scores against one parameter, and maps over two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from melmill.stages.report.figures import INK, Dash, as_svg, canvas, label, line_style
from melmill.stages.report.ranking import leaders
from melmill.stages.report.statistics import measured
from melmill.stages.report.sweeps import Arrangement, Sweep
from melmill.stages.report.tables import number
from melmill.stages.score.metric import Metric
from melmill.stages.score.metric import metric as metric_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Axes whose ends differ by more than this factor are logarithmic.
_WIDE = 8.0
_MOST_TICKS = 8


@dataclass(frozen=True, kw_only=True)
class Line:
    """Hold one line: mean scores with 95 % intervals at ascending values of a parameter.

    Parameters
    ----------
    name : str
    style : tuple
        Colour and dash pattern.
    x, mean, low, high : ndarray of float64, shape (n_points,)
        NaN where there is no mean or no interval.
    """

    name: str
    style: tuple[str, Dash]
    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def against(lines: Sequence[Line], metric: str, parameter: str) -> str:
    """Return a figure of a metric against a parameter, with a line and a band per sweep."""
    n_rows = sum(1.4 + label(line.name).count("\n") for line in lines) / 2
    with canvas(5.0, 3.0 + 0.15 * n_rows) as (figure, axis):
        for line in lines:
            colour, dash = line.style
            axis.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
            axis.plot(
                line.x,
                line.mean,
                color=colour,
                linestyle=dash,
                linewidth=1.6,
                marker="o",
                markersize=3.0,
                label=label(line.name),
            )
        values = np.unique(np.concatenate([line.x for line in lines]))
        if values[0] > 0 and values[-1] / values[0] > _WIDE:
            axis.set_xscale("log")
        if len(values) <= _MOST_TICKS:
            axis.set_xticks(values, [f"{value:g}" for value in values])
            axis.set_xticks([], minor=True)
        axis.grid()
        axis.set_xlabel(parameter)
        _title(axis, metric)
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
        return as_svg(figure)


@dataclass(frozen=True, kw_only=True)
class Map:
    """Hold the mean of a metric over two parameters.

    Parameters
    ----------
    names : (str, str)
        Of the parameters down and across.
    down, across : sequence of float
        Their values.
    means : ndarray of float64, shape (len(down), len(across))
        NaN where there is none.
    marks : mapping of (int, int) to str
        ``best`` or ``tied`` by cell.
    """

    names: tuple[str, str]
    down: Sequence[float]
    across: Sequence[float]
    means: NDArray[np.float64]
    marks: Mapping[tuple[int, int], str]


def heat_map(table: Map, metric: str) -> str:
    """Return a map with a cell for each pair of values.

    Brighter is better. The best cell has a thick frame. Cells that can't be told from it have a
    thin one.
    """
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    n_down, n_across = table.means.shape
    colours = mpl.colormaps["cividis" if metric_of(metric).better == "higher" else "cividis_r"]
    with canvas(0.9 + 0.72 * n_across, 0.8 + 0.4 * n_down) as (figure, axis):
        norm = mpl.colors.Normalize(float(np.nanmin(table.means)), float(np.nanmax(table.means)))
        for (i, j), mean in np.ndenumerate(table.means):
            if not np.isnan(mean):
                colour, text = colours(norm(mean)), number(float(mean), metric_of(metric).decimals)
                axis.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, facecolor=colour, linewidth=0))
                # Relative luminance by ITU-R BT.709 decides between black and white text.
                luminance = float(np.dot(colour[:3], (0.2126, 0.7152, 0.0722)))
                axis.text(j, i, text, ha="center", va="center", color="#000000" if luminance > 0.45 else "#ffffff")
            else:
                axis.text(j, i, "–", ha="center", va="center")
        for (i, j), mark in table.marks.items():
            width = {"best": 2.4, "tied": 0.9}[mark]
            axis.add_patch(Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, fill=False, edgecolor=INK, linewidth=width))
        axis.set_xlim(-0.54, n_across - 0.46)
        axis.set_ylim(-0.54, n_down - 0.46)
        axis.set_xticks(range(n_across), [f"{value:g}" for value in table.across])
        axis.set_yticks(range(n_down), [f"{value:g}" for value in table.down])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set_ylabel(table.names[0])
        axis.set_xlabel(table.names[1])
        _title(axis, metric)
        return as_svg(figure)


def _title(axis: Axes, metric: str) -> None:
    axis.set_title(f"{metric_of(metric).label}, {metric_of(metric).better} is better", loc="left", fontsize=9.0)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Hold figures that belong together, one per metric."""

    title: str
    drawn: Sequence[tuple[Metric, Markup]]


def lines(summary: pd.DataFrame, arrangement: Arrangement) -> list[Panel]:
    """Draw every metric against every parameter of a sweep over one parameter.

    All sweeps over one parameter share a figure.

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
                (metric_of(metric), Markup(against(drawn, metric, parameter)))
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
    return Line(name=sweep.name, style=line_style(arrangement.shown, stands), x=x[order], mean=mean, low=low, high=high)


def maps(scores: pd.DataFrame, summary: pd.DataFrame, arrangement: Arrangement, seed: int) -> list[Panel]:
    """Draw a map of every metric for each sweep over two parameters.

    Parameters
    ----------
    scores : DataFrame
        One row per utterance and node.
    summary : DataFrame
        What `statistics.summary` returned of them.
    arrangement : Arrangement
    seed : int
        Of the bootstrap that compares a map's best node with the others.
    """
    panels = []
    for sweep in arrangement.sweeps:
        if sweep.is_map:
            ranked = leaders(scores[scores["node"].isin(list(sweep.points))], seed=seed)
            drawn = [
                (metric_of(metric), Markup(heat_map(_map(summary, metric, sweep, ranked.get(metric, ())), metric)))
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
