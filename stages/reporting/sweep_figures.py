"""Figures of scores over parameters: lines along one, a map over two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.metrics.registry import metric as described
from melmill.stages.reporting.figures import INK, as_svg, canvas, label
from melmill.stages.reporting.wording import decimals, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Axes that span more than this are logarithmic.
_WIDE = 8.0
_MOST_TICKS = 8


@dataclass(frozen=True, kw_only=True)
class Line:
    """Hold one line: mean scores and their 95 % intervals at ascending values of a parameter.

    Parameters
    ----------
    name : str
    look : tuple
        Colour and dash pattern.
    x, mean, low, high : ndarray of float64, shape (n_points,)
        NaN where there is no mean or no interval.
    """

    name: str
    look: tuple[str, Any]
    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def against(lines: Sequence[Line], metric: str, parameter: str) -> str:
    """Return a metric against a parameter, a line each in the band of its intervals."""
    n_rows = sum(1.4 + label(line.name).count("\n") for line in lines) / 2
    with canvas(5.0, 3.0 + 0.15 * n_rows) as (figure, axis):
        for line in lines:
            colour, dash = line.look
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
        _scale(axis, np.unique(np.concatenate([line.x for line in lines])))
        axis.grid()
        axis.set_xlabel(parameter)
        _title(axis, metric)
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
        return as_svg(figure)


def _scale(axis: Axes, values: NDArray[np.float64]) -> None:
    if values[0] > 0 and values[-1] / values[0] > _WIDE:
        axis.set_xscale("log")
    if len(values) <= _MOST_TICKS:
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.set_xticks([], minor=True)


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
    """Return a cell per pair of values with its mean, brighter the better; the best is framed, its equals thinly."""
    import matplotlib as mpl

    n_down, n_across = table.means.shape
    colours = mpl.colormaps["cividis" if described(metric).better == "higher" else "cividis_r"]
    with canvas(0.9 + 0.72 * n_across, 0.8 + 0.4 * n_down) as (figure, axis):
        norm = mpl.colors.Normalize(float(np.nanmin(table.means)), float(np.nanmax(table.means)))
        for (i, j), mean in np.ndenumerate(table.means):
            if not np.isnan(mean):
                _cell(axis, i, j, colours(norm(mean)), number(float(mean), decimals(metric)))
            else:
                axis.text(j, i, "–", ha="center", va="center")
        for (i, j), mark in table.marks.items():
            _frame(axis, i, j, {"best": 2.4, "tied": 0.9}[mark])
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
    axis.set_title(f"{described(metric).label}, {described(metric).better} is better", loc="left", fontsize=9.0)


def _cell(axis: Axes, i: int, j: int, colour: tuple[float, ...], text: str) -> None:
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, facecolor=colour, linewidth=0))
    # Relative luminance by ITU-R BT.709, near enough to choose between black and white.
    luminance = float(np.dot(colour[:3], (0.2126, 0.7152, 0.0722)))
    axis.text(j, i, text, ha="center", va="center", color="#000000" if luminance > 0.45 else "#ffffff")


def _frame(axis: Axes, i: int, j: int, width: float) -> None:
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, fill=False, edgecolor=INK, linewidth=width))
