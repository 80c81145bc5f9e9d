"""Figures as SVG that takes the page's own text colour, the same bytes every time.

- Mel spectrograms as small PNG pictures: one pixel a frame and band, the page draws the axes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.report.cube import Cube
from melmill.stages.report.sound import data_uri
from melmill.stages.score.registry import metric as described

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The vibrant scheme of Paul Tol's "Colour Schemes" (SRON/EPS/TN/09-002, 2021), safe for colour-blind readers, without
# its grey: every colour stands out from white and from near-black. The seventh node on repeats them dashed.
COLOURS = ("#0077BB", "#EE7733", "#009988", "#EE3377", "#33BBEE", "#CC3311")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
# Stands for the page's text colour until the SVG is written; no colour above.
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
# More iterations than this are drawn over a logarithmic axis.
_LONG = 50
_LOG_TICKS = tuple(times * 10**power for power in range(6) for times in (1, 2, 5))


def look(nodes: Sequence[str], node: str) -> tuple[str, Any]:
    """Return the colour and the dash pattern of a node, by its place among `nodes`: the same in every figure."""
    at = list(nodes).index(node)
    return COLOURS[at % len(COLOURS)], _DASHES[at // len(COLOURS) % len(_DASHES)]


def label(node: str, width: int = _LABEL_WIDTH) -> str:
    r"""Return a name in lines of at most `width`, whole: shortened fan-out names might read the same.

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
    """Return a box per node over utterances: quartiles, median, whiskers to the 5th and 95th percentile, mean as a dot.

    Only `nodes` are drawn; those without a value have an empty row.
    """
    values = table.values[:, [table.nodes.index(node) for node in nodes], table.metrics.index(metric)]
    names = [label(node) for node in nodes]
    row_in = max(0.3, _LINE_IN * max(1 + name.count("\n") for name in names))
    with canvas(4.8, 0.75 + row_in * len(names)) as (figure, axis):
        for j, node in enumerate(nodes):
            y = values[:, j]
            if not np.isnan(y).all():
                _box(axis, y[~np.isnan(y)], j, look(nodes, node))
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        axis.set_xlabel(f"{described(metric).label}, {described(metric).better} is better", loc="right")
        return as_svg(figure)


def _box(axis: Axes, y: NDArray[np.float64], at: int, style: tuple[str, Any]) -> None:
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
    """Return the mean SCM per iteration of each node, in a band from the first to the third quartile of utterances.

    Parameters
    ----------
    curves : DataFrame
        What `statistics.convergence` returned; not empty.
    nodes : sequence of str
        All the report's nodes in order, which their colours follow; curves of others are drawn after them.
    """
    traced = list(dict.fromkeys(curves["node"]))
    order = [*nodes, *(node for node in traced if node not in nodes)]
    drawn = [node for node in order if node in traced]
    n_lines = sum(1.4 + label(node).count("\n") for node in drawn)
    with canvas(5.6, 3.1 + _LINE_IN * n_lines / 2) as (figure, axis):
        for node in drawn:
            curve = curves[curves["node"] == node]
            colour, dash = look(order, node)
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
            # What tells methods apart happens early; the start, iteration 0, has no place on this axis.
            axis.set_xscale("log")
            axis.set_xlim(1, curves["iteration"].max())
            axis.set_xticks([x for x in _LOG_TICKS if x <= curves["iteration"].max()])
            axis.xaxis.set_major_formatter("{x:g}")
            axis.set_xticks([], minor=True)
        axis.grid()
        axis.set_xlabel("iteration")
        axis.set_ylabel(f"{described('scm_db').label}, lower is better")
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
        return as_svg(figure)


def training(curve: pd.DataFrame) -> str:
    """Return one loss of a training over its steps, a line per series.

    Parameters
    ----------
    curve : DataFrame
        Columns ``series, loss, step, value``, of one loss.
    """
    series = list(dict.fromkeys(curve["series"]))
    with canvas(4.8, 2.4) as (figure, axis):
        for name in series:
            points = curve[curve["series"] == name]
            colour, dash = look(series, name)
            axis.plot(points["step"], points["value"], color=colour, linestyle=dash, linewidth=1.6, label=name)
        axis.grid()
        axis.set_xlabel("step")
        axis.set_ylabel(f"{curve['loss'].iloc[0]} loss")
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
        return as_svg(figure)


@contextmanager
def canvas(width_in: float, height_in: float) -> Iterator[tuple[Figure, Axes]]:
    """Give a figure with one plot, in the page's style; nothing global is changed."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure, figure.add_subplot()


def as_svg(figure: Figure) -> str:
    """Return the `<svg>` element alone, inked in ``currentColor``, without the ids that only debugging needs."""
    buffer = StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r"font-family: [^;\"]*;?", "", drawn)  # the page's own
    # Two figures on a page would share them.
    drawn = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", drawn)
    return re.sub(rf"((?:fill|stroke): ){INK}", r"\1currentColor", drawn)


RANGE_DB = 80.0
DIFFERENCE_DB = 20.0
_MEL_MAP, _DIFFERENCE_MAP = "magma", "RdBu_r"
_TICKS_HZ = (500, 1000, 2000, 4000, 8000, 16000)


@dataclass(frozen=True, kw_only=True)
class PictureAxes:
    """Say what the pictures of one example span: seconds across, and ``(label, share of the height)`` up."""

    duration_s: float
    ticks: tuple[tuple[str, float], ...]


def picture_spec(sr: int) -> MelSpec:
    """Return the analysis behind the pictures: 80 bands up to ``sr / 2``, about 64 ms windows and 16 ms hops, dB."""
    n_fft = 2 ** round(np.log2(0.064 * sr))
    return MelSpec(sr=sr, n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4, log="db", floor=1e-5)


def axes(spec: MelSpec, n_samples: int) -> PictureAxes:
    """Return the axes of pictures made by `spec` of `n_samples`."""
    from melmill.stages.numeric.filterbank import hz_to_mel

    top = hz_to_mel(spec.top_hz, htk=spec.htk)
    heights = [(f"{hz / 1000:g} kHz", hz_to_mel(hz, htk=spec.htk) / top) for hz in _TICKS_HZ if hz <= spec.top_hz]
    ticks = tuple((label, round(share, 4)) for label, share in heights)
    return PictureAxes(duration_s=n_samples / spec.sr, ticks=ticks)


def mel_db(y: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float64]:
    """Return the mel spectrogram ``(n_mels, n_frames)`` of a waveform in dB; what isn't finite counts as silence."""
    from melmill.stages.numeric.mel import mel_spectrogram

    return np.asarray(mel_spectrogram(np.nan_to_num(y, posinf=0.0, neginf=0.0), spec), dtype=np.float64)


def mel_picture(M: NDArray[np.float64], top_db: float) -> str:
    """Return the picture of a mel ``(n_mels, n_frames)`` in dB, from 80 dB below `top_db` (dark) to it (bright)."""
    return _png((M - top_db + RANGE_DB) / RANGE_DB, _MEL_MAP)


def difference_picture(M_hat: NDArray[np.float64], M: NDArray[np.float64]) -> str:
    """Return the picture of two mels' difference, from -20 dB (blue: too weak) to 20 dB (red: too strong)."""
    n_frames = min(M_hat.shape[1], M.shape[1])
    return _png((M_hat[:, :n_frames] - M[:, :n_frames]) / (2 * DIFFERENCE_DB) + 0.5, _DIFFERENCE_MAP)


def _png(shares: NDArray[np.float64], colour_map: str) -> str:
    """Write values in [0, 1], clipped, as a PNG with a palette, low bands at the bottom."""
    from PIL import Image

    levels = np.rint(np.clip(shares[::-1], 0.0, 1.0) * 255).astype(np.uint8)
    image = Image.fromarray(levels, mode="L")
    image.putpalette(_palette(colour_map))
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return data_uri("image/png", buffer.getvalue())


@cache
def _palette(colour_map: str) -> bytes:
    from matplotlib import colormaps

    return np.asarray(colormaps[colour_map](np.arange(256), bytes=True))[:, :3].astype(np.uint8).tobytes()
