"""Figures as SVG in the page's own text colour, with the same bytes every time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import escape
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
# Size of a box plot and of its rows, lines and letters, in points of the SVG.
_WIDTH_PT, _ROW_PT, _LINE_PT, _CHARACTER_PT = 346, 22, 10.5, 5
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

    It is written directly: a report has a plot for each metric, and matplotlib takes a second each.
    """
    values = table.values[:, [table.nodes.index(node) for node in nodes], table.metrics.index(metric)]
    names = [label(node).split("\n") for node in nodes]
    boxes = {j: _box(y[~np.isnan(y)]) for j, y in enumerate(values.T) if not np.isnan(y).all()}
    row = max(_ROW_PT, _LINE_PT * max(map(len, names)) + 4)
    left = 10 + _CHARACTER_PT * max(len(line) for lines in names for line in lines)
    right, bottom = _WIDTH_PT - 12, row * len(names)
    low, high = (
        min((min(box) for box in boxes.values()), default=0.0),
        max((max(box) for box in boxes.values()), default=1.0),
    )
    pad = 0.04 * (high - low) or 0.5

    def x(value: float) -> str:
        return f"{left + (right - left) * (value - low + pad) / (high - low + 2 * pad):.1f}"

    parts = []
    for tick in _ticks(low - pad, high + pad):
        parts.append(
            f'<path d="M{x(tick)} 0V{bottom}" stroke="currentColor" stroke-opacity="0.15" stroke-width="0.6"/>'
        )
        parts.append(
            f'<text x="{x(tick)}" y="{bottom + 12}" text-anchor="middle">{f"{tick:g}".replace("-", "−")}</text>'
        )
    parts.append(f'<path d="M{left} 0V{bottom}H{right}" fill="none" stroke="currentColor" stroke-width="0.6"/>')
    for j, (node, lines) in enumerate(zip(nodes, names, strict=True)):
        middle = row * (j + 0.5)
        first = middle + 3 - _LINE_PT * (len(lines) - 1) / 2
        for i, line in enumerate(lines):
            parts.append(f'<text x="{left - 5}" y="{first + _LINE_PT * i:.1f}" text-anchor="end">{escape(line)}</text>')
        if j in boxes:
            parts.append(_drawn(boxes[j], middle, x, line_style(nodes, node)))
    title = escape(f"{metric_of(metric).label}, {metric_of(metric).better} is better")
    parts.append(f'<text x="{right}" y="{bottom + 26}" text-anchor="end">{title}</text>')
    size = f"{_WIDTH_PT} {bottom + 30}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -2 {size}" fill="currentColor" font-size="9">'
        f"{''.join(parts)}</svg>"
    )


class _Box(NamedTuple):
    """Hold percentiles 5, 25, 50, 75 and 95 of values, and their mean."""

    low: float
    first: float
    median: float
    third: float
    high: float
    mean: float


def _box(y: NDArray[np.float64]) -> _Box:
    low, first, median, third, high = np.percentile(y, [5, 25, 50, 75, 95]).tolist()
    return _Box(low, first, median, third, high, float(y.mean()))


def _drawn(box: _Box, y: float, x: Callable[[float], str], style: tuple[str, Dash]) -> str:
    """Return whiskers, box, median and mean at the height `y`."""
    colour, dash = style
    dashes = "" if isinstance(dash, str) else f' stroke-dasharray="{" ".join(f"{1.2 * part:g}" for part in dash[1])}"'
    top, bottom, cap = y - _ROW_PT * 0.27, y + _ROW_PT * 0.27, _ROW_PT * 0.14
    return (
        f'<g stroke="{colour.lower()}" fill="none"><path d="M{x(box.low)} {y:.1f}H{x(box.first)}M{x(box.third)} {y:.1f}'
        f'H{x(box.high)}M{x(box.first)} {top:.1f}H{x(box.third)}V{bottom:.1f}H{x(box.first)}Z" fill="{colour.lower()}" '
        f'fill-opacity="0.33"{dashes}/><path d="M{x(box.low)} {y - cap:.1f}v{2 * cap:.1f}M{x(box.high)} {y - cap:.1f}'
        f'v{2 * cap:.1f}"/><path d="M{x(box.median)} {top:.1f}V{bottom:.1f}" stroke-width="2"/></g>'
        f'<circle cx="{x(box.mean)}" cy="{y:.1f}" r="1.9"/>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return five round numbers or so between two."""
    from matplotlib.ticker import MaxNLocator

    ticks = np.asarray(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    return [0.0 if tick == 0 else float(f"{tick:.6g}") for tick in ticks.tolist() if low <= tick <= high]


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
