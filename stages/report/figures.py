"""Figures as SVG in the page's own text colour, with the same bytes every time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.report.statistics import Cube
from melmill.stages.score.metric import metric as metric_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The vibrant scheme of Paul Tol's "Colour Schemes" (SRON/EPS/TN/09-002, 2021), safe for
# colour-blind readers. Without its grey, every colour stands out from white and from near-black.
# From the seventh node on they are dashed.
COLOURS = ("#0077BB", "#EE7733", "#009988", "#EE3377", "#33BBEE", "#CC3311")
# A dash pattern as matplotlib takes it.
Dash = str | tuple[float, tuple[float, ...]]
_DASHES: tuple[Dash, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
# Stands for the page's text colour until the SVG is written; it is none of the colours above.
INK = "#010203"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "melmill",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
}
_LABEL_WIDTH = 26
_LINE_IN = 0.15
# More iterations than these have a logarithmic axis.
_LONG = 50
_LOG_TICKS = tuple(times * 10**power for power in range(6) for times in (1, 2, 5))


def line_style(nodes: Sequence[str], node: str) -> tuple[str, Dash]:
    """Return colour and dash pattern of a node by its place among `nodes`."""
    at = list(nodes).index(node)
    return COLOURS[at % len(COLOURS)], _DASHES[at // len(COLOURS) % len(_DASHES)]


def label(node: str, width: int = _LABEL_WIDTH) -> str:
    r"""Return a whole name in lines of at most `width`: short names might read the same.

    >>> label("admm[n_iter=100,rho=0.2]", 18)
    'admm[n_iter=100,\nrho=0.2]'
    """
    lines = [""]
    for piece in re.findall(rf"[^,\[]{{1,{width - 1}}}[,\[]?|[,\[]", node):
        if len(lines[-1]) + len(piece) <= width:
            lines[-1] += piece
        else:
            lines.append(piece)
    return "\n".join(lines)


def box_plot(table: Cube, metric: str, nodes: Sequence[str]) -> str:
    """Return a box plot over utterances, with a row for each of `nodes`.

    A box shows quartiles and median, whiskers the 5th and 95th percentile, a dot the mean. The row
    of a node without values is empty.
    """
    values = table.values[:, [table.nodes.index(node) for node in nodes], table.metrics.index(metric)]
    names = [label(node) for node in nodes]
    row_in = max(0.3, _LINE_IN * max(1 + name.count("\n") for name in names))
    with canvas(4.8, 0.75 + row_in * len(names)) as (figure, axis):
        for j, node in enumerate(nodes):
            y = values[:, j]
            if not np.isnan(y).all():
                _box(axis, y[~np.isnan(y)], j, line_style(nodes, node))
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        axis.set_xlabel(f"{metric_of(metric).label}, {metric_of(metric).better} is better", loc="right")
        return as_svg(figure)


def _box(axis: Axes, y: NDArray[np.float64], at: int, style: tuple[str, Dash]) -> None:
    low, first, middle, third, high = np.percentile(y, [5, 25, 50, 75, 95])
    colour, dash = style
    stats = {"med": middle, "q1": first, "q3": third, "whislo": low, "whishi": high, "mean": y.mean(), "fliers": []}
    axis.bxp(
        [stats],
        positions=[at],
        orientation="horizontal",
        widths=0.55,
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": f"{colour}55", "edgecolor": colour, "linestyle": dash},
        medianprops={"color": colour, "linewidth": 2.0},
        whiskerprops={"color": colour, "linestyle": dash},
        capprops={"color": colour},
        meanprops={"marker": "o", "markersize": 3.5, "markerfacecolor": INK, "markeredgecolor": INK},
    )


def convergence(curves: pd.DataFrame, nodes: Sequence[str]) -> str:
    """Return the mean SCM after each iteration of each node, in a band between quartiles.

    Parameters
    ----------
    curves : DataFrame
        What `statistics.convergence` returned; not empty.
    nodes : sequence of str
        All nodes of the report, whose order gives their colours. Curves of other nodes come last.
    """
    traced = list(dict.fromkeys(curves["node"]))
    order = [*nodes, *(node for node in traced if node not in nodes)]
    drawn = [node for node in order if node in traced]
    n_lines = sum(1.4 + label(node).count("\n") for node in drawn)
    with canvas(5.6, 3.1 + _LINE_IN * n_lines / 2) as (figure, axis):
        for node in drawn:
            curve = curves[curves["node"] == node]
            colour, dash = line_style(order, node)
            axis.fill_between(
                curve["iteration"],
                curve["first_quartile"],
                curve["third_quartile"],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            axis.plot(curve["iteration"], curve["mean"], color=colour, linestyle=dash, linewidth=1.6, label=label(node))
        if curves["iteration"].max() > _LONG:
            # Methods differ most in early iterations. The start, iteration 0, is not on this axis.
            axis.set_xscale("log")
            axis.set_xlim(1, curves["iteration"].max())
            axis.set_xticks([x for x in _LOG_TICKS if x <= curves["iteration"].max()])
            axis.xaxis.set_major_formatter("{x:g}")
            axis.set_xticks([], minor=True)
        axis.grid()
        axis.set_xlabel("iteration")
        axis.set_ylabel(f"{metric_of('scm_db').label}, lower is better")
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
        return as_svg(figure)


def training(curve: pd.DataFrame) -> str:
    """Return one loss of a training over its steps, with a line for each series.

    Parameters
    ----------
    curve : DataFrame
        Columns ``series, loss, step, value``, all of one loss.
    """
    series = list(dict.fromkeys(curve["series"]))
    with canvas(4.8, 2.4) as (figure, axis):
        for name in series:
            points = curve[curve["series"] == name]
            colour, dash = line_style(series, name)
            axis.plot(points["step"], points["value"], color=colour, linestyle=dash, linewidth=1.6, label=name)
        axis.grid()
        axis.set_xlabel("step")
        axis.set_ylabel(curve["loss"].iloc[0])
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
        return as_svg(figure)


@contextmanager
def canvas(width_in: float, height_in: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure with one plot in the page's style; global settings stay."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure, figure.add_subplot()


def as_svg(figure: Figure) -> str:
    """Return the `<svg>` element of a figure, in ``currentColor``, without ids of parts."""
    buffer = StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r"font-family: [^;\"]*;?", "", drawn)  # the page has its own
    # Two figures on a page would have the same ids.
    drawn = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", drawn)
    return re.sub(rf"((?:fill|stroke): ){INK}", r"\1currentColor", drawn)
