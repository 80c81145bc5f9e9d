"""Charts of series as SVG in the page's own colours, without a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from melmill.flows.runs.trends.series import Point, Series
from melmill.storage.runs import RunRecord

_WIDTH, _HEIGHT = 720, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 40
# Labels of runs below the axis, at most.
_DATES = 8
_DASHES = ("", "6 3", "2 2")


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Where runs and values are in a chart."""

    x: Callable[[str], float]
    y: Callable[[float], float]
    ticks: Sequence[float]


def chart(
    series: Sequence[Series], runs: Sequence[RunRecord], versions: Mapping[str, Sequence[str]], links: Mapping[str, str]
) -> Markup:
    """Return a chart of the series of one metric.

    Parameters
    ----------
    series : sequence of Series
        One for each scored node.
    runs : sequence of RunRecord
        All runs of the axis, the oldest first.
    versions : mapping of str to sequence of str
        By id of the run: what changed of the versions since the run before it on the axis.
    links : mapping of str to str
        By id of the run: where its points lead.
    """
    from melmill.stages.report.figures import COLOURS

    scales = _scales(series, runs)
    parts = [*_axes(scales, runs), *_version_marks(scales, runs, versions)]
    for at, one in enumerate(series):
        style = f'stroke="{COLOURS[at % len(COLOURS)]}"'
        dash = _DASHES[at // len(COLOURS) % len(_DASHES)]
        parts += _line(one.points, scales, style + (f' stroke-dasharray="{dash}"' if dash else ""))
        parts += [_mark(point, scales, COLOURS[at % len(COLOURS)], one.scored, links) for point in one.points]
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def key_mark(at: int) -> Markup:
    """Return the piece of a line that stands for the series at a place, for a legend."""
    from melmill.stages.report.figures import COLOURS

    dash = _DASHES[at // len(COLOURS) % len(_DASHES)]
    return Markup(
        '<svg class="key" viewBox="0 0 26 10" aria-hidden="true"><line x1="0" y1="5" x2="26" y2="5" '
        f'stroke="{COLOURS[at % len(COLOURS)]}" stroke-width="2.5" stroke-dasharray="{dash or "none"}"/></svg>'
    )


def _scales(series: Sequence[Series], runs: Sequence[RunRecord]) -> Scales:
    values = [
        value
        for one in series
        for point in one.points
        for value in (point.score.mean, point.score.low, point.score.high)
        if value is not None and math.isfinite(value)
    ]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    margin = 0.06 * (high - low)
    ticks = ticks_between(low - margin, high + margin)
    bottom, top = min(low - margin, ticks[0]), max(high + margin, ticks[-1])
    places = {run.run_id: at for at, run in enumerate(runs)}
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(runs))
    return Scales(
        x=lambda run_id: _LEFT + step * (places[run_id] + 0.5),
        y=lambda value: _HEIGHT - _BOTTOM - (value - bottom) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM),
        ticks=ticks,
    )


def ticks_between(low: float, high: float, n: int = 4) -> list[float]:
    """Return about `n` round numbers between two.

    >>> ticks_between(0.11, 0.42)
    [0.2, 0.3, 0.4]
    """
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough)
    # Ends that are ticks but for rounding count.
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    decimals = max(0, -math.floor(math.log10(step)))
    return [round(at * step, decimals) for at in range(first, last + 1)]


def _axes(scales: Scales, runs: Sequence[RunRecord]) -> list[Markup]:
    parts = []
    step = scales.ticks[1] - scales.ticks[0] if len(scales.ticks) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    for tick in scales.ticks:
        y = scales.y(tick)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, _WIDTH - _RIGHT, y, y)
        )
        parts.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                _LEFT - 8, y + 4, f"{tick:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
            )
        )
    every = max(1, math.ceil(len(runs) / _DATES))
    for run in runs[::-1][::every]:
        day, _, clock = run.started_at[:16].partition("T")
        x = scales.x(run.run_id)
        for text, y in ((day[2:], 22), (clock, 10)):
            parts.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(x, _HEIGHT - y + 2, text)
            )
    return parts


def _version_marks(scales: Scales, runs: Sequence[RunRecord], versions: Mapping[str, Sequence[str]]) -> list[Markup]:
    parts = []
    half = (scales.x(runs[1].run_id) - scales.x(runs[0].run_id)) / 2 if len(runs) > 1 else 0.0
    for run in runs:
        if versions.get(run.run_id):
            x = scales.x(run.run_id) - half
            line = Markup('<line class="version" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"><title>{3}</title></line>')
            parts.append(line.format(x, _TOP, _HEIGHT - _BOTTOM, ", ".join(versions[run.run_id])))
    return parts


def _line(points: Sequence[Point], scales: Scales, style: str) -> list[Markup]:
    places = " ".join(f"{scales.x(point.run.run_id):.1f},{scales.y(point.score.mean or 0.0):.1f}" for point in points)
    return [Markup(f'<polyline class="level" points="{places}" {style}/>')]


def _mark(point: Point, scales: Scales, colour: str, scored: str, links: Mapping[str, str]) -> Markup:
    """Return a point with its interval, and a ring where the level changes."""
    score, run = point.score, point.run
    x, y = scales.x(run.run_id), scales.y(score.mean or 0.0)
    said = f"{scored}: {score.mean:.5g}"
    bar = Markup("")
    if score.low is not None and score.high is not None:
        said += f" [{score.low:.5g}, {score.high:.5g}]"
        ends = scales.y(score.low), scales.y(score.high)
        bar = Markup(
            '<line x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}" stroke="{3}" stroke-width="1.2"/>'
        ).format(x, *ends, colour)
    said += f", n = {score.n}; run {run.run_id}{', ' + ', '.join(run.tags) if run.tags else ''}"
    ring = Markup("")
    if point.is_change:
        said += "; the level changes here"
        ring = Markup('<circle class="change" cx="{:.1f}" cy="{:.1f}" r="8"/>').format(x, y)
    fill = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}" fill="{}"/>').format(
        x, y, 2.2 if point.is_repeat else 3.6, colour
    )
    drawn = Markup("<g><title>{}</title>{}{}{}</g>").format(said, bar, ring, fill)
    link = links.get(run.run_id)
    return Markup('<a href="{}">{}</a>').format(link, drawn) if link else drawn
