"""The page of the error budget: numbers of a corpus, and demonstrations on one clip of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from numpy.typing import NDArray

from melmill.stages.numeric.presets import preset
from melmill.stages.numeric.resample import resample
from melmill.stages.report.budget import demonstrations as show
from melmill.stages.report.budget.losses import Loss, Scatter, losses, scatter
from melmill.stages.report.contract import ReportFiles
from melmill.stages.report.examples import (
    RANGE_DB,
    Clip,
    clip,
    difference_picture,
    mel_db,
    mel_picture,
    pick,
    picture,
    picture_spec,
)
from melmill.stages.report.figures import COLOURS
from melmill.stages.report.statistics import summary
from melmill.stages.report.tables import as_csv, number
from melmill.stages.report.views.templates import render
from melmill.stages.score.metric import Metric
from melmill.stages.score.metric import metric as metric_of
from melmill.stages.score.stage import score
from melmill.stages.score.trust.damages import DAMAGES

if TYPE_CHECKING:
    from melmill.stages.numeric.melspec import MelSpec
    from melmill.stages.report.contract import ReportData

_CLIP_S = 3.0
_MOST_POINTS = 600
_SIZE = (640, 400)
_LEFT, _BOTTOM = 46, 34


@dataclass(frozen=True, kw_only=True)
class Take:
    """Hold a clip of a demonstration: name, sound, mel, difference from the recording, and scores."""

    name: str
    audio: Clip
    mel: str
    difference: str
    scores: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold the settings of the page; see `melmill.stages.report.budget.stage.ErrorBudget`."""

    roles: Mapping[str, str]
    error: str
    quality: str
    preset: str
    title: str
    seed: int


def budget_files(stage: Settings, data: ReportData) -> ReportFiles:
    """Return the files of the report: the page, and the losses as CSV."""
    scores = data.scores
    found = losses(scores, stage.roles, stage.seed)
    quality = metric_of(stage.quality)
    dots = scatter(scores, metric_of(stage.error).column, quality.column, list(map(str, scores["node"].unique())))
    demonstrated = _demonstrations(stage, data, scores)
    columns = list(found[0].means)
    rows = [
        {"part": loss.part.role, "node": loss.node, "n": loss.n, "metric": name, "mean": loss.means[name],
         "loss": loss.losses[name][0], "ci_low": loss.losses[name][1], "ci_high": loss.losses[name][2]}
        for loss in found for name in columns
    ]  # fmt: skip
    base = summary(scores[scores["node"] == stage.roles["base"]], by=(), seed=stage.seed)
    page = render(
        "budget/budget.html.j2",
        stage=stage,
        metrics=[metric_of(name) for name in columns],
        base={row["metric"]: row["mean"] for row in base.to_dict("records")},
        losses=found,
        bars=Markup(bars(found, quality)),
        scatter=dots,
        plot=Markup(plot(dots, metric_of(stage.error), quality)),
        number=number,
        loss_text=loss_text,
        colours={node: COLOURS[at % len(COLOURS)] for at, node in enumerate(dots.points)},
        quality=quality,
        error=metric_of(stage.error),
        **demonstrated,
    )  # fmt: skip
    return ReportFiles(
        files={"index.html": page, "budget.csv": as_csv(pd.DataFrame(rows))},
        headline=_headline(found, columns),
    )


def _headline(found: Sequence[Loss], columns: Sequence[str]) -> str:
    """Return what the terminal shows: a row per part, its loss by each metric."""
    titles = [metric_of(name).label for name in columns]
    lines = [
        {"part": loss.part.title, **{t: loss_text(loss, metric_of(c)) for t, c in zip(titles, columns, strict=True)}}
        for loss in found
    ]
    return pd.DataFrame(lines).to_csv(index=False)


def loss_text(loss: Loss, metric: Metric) -> str:
    """Return a loss with half its interval; a dash without values."""
    mean, low, high = loss.losses[metric.column]
    if math.isnan(mean):
        return "–"
    half = "" if math.isnan(low) else f" ± {number((high - low) / 2, metric.decimals)}"
    return f"{number(mean, metric.decimals)}{half}"


def _demonstrations(stage: Settings, data: ReportData, scores: pd.DataFrame) -> dict[str, Any]:
    """Return what the page shows of one clip: the median recording by the quality."""
    column = metric_of(stage.quality).column
    only = scores[[*scores.columns[:5], column, f"status_{column}"]]
    chosen = pick(only, 1)
    example = data.example(chosen[0].utterance_id) if chosen else None
    if example is None:
        return {"clip": None}
    spec = replace(preset(stage.preset), log=None, floor=None) if preset(stage.preset).log else preset(stage.preset)
    y = resample(example.reference, example.sr, spec.sr)[: round(_CLIP_S * spec.sr)]
    y = np.ascontiguousarray(y)
    turned = show.phase_scrambled(y, spec, stage.seed)
    bank = show.bank_of_clip(y, spec)
    wrong = show.equally_wrong(y, spec, stage.seed)
    return {
        "clip": example.utterance_id,
        "spec": spec,
        "n_values": spec.n_mels * spec.n_frames(y.size),
        "n_samples": y.size,
        "recording": _take("the recording", y, y, spec),
        "scrambled": _take("another phase", turned, y, spec),
        "scrambled_db": show.mel_error_db(y, turned, spec),
        "bank": bank,
        "bank_picture": _bank_picture(bank.product),
        "shifts": show.shift_errors(y, spec),
        "hop": spec.hop_length,
        "wrong": [_take(DAMAGES[name].title.lower(), x, y, spec) for name, x in wrong.items()],
        "wrong_db": show.ERROR_DB,
    }


def _take(name: str, x: NDArray[np.float32], y: NDArray[np.float32], spec: MelSpec) -> Take:
    pictured = picture_spec(spec.sr)
    M, M_hat = mel_db(y, pictured), mel_db(x, pictured)
    top = float(M.max())
    measured = score(y, x, spec.sr, ("pesq_wb", "estoi", "scm", "sc"), spec=spec)
    return Take(
        name=name,
        audio=clip(x, spec.sr),
        mel=mel_picture(M_hat, top),
        difference="" if x is y else difference_picture(M_hat, M),
        scores=[(metric_of(n).title, number(m.value, metric_of(n).decimals)) for n, m in measured.items()],
    )


def _bank_picture(product: NDArray[np.float64]) -> str:
    """Return ``E⁺E`` as a picture: dark is 0 and bright the largest value."""
    size = np.abs(product)
    shares = 20 * np.log10(np.maximum(size / size.max(), 1e-6)) / RANGE_DB + 1.0
    return picture(shares, "magma")


def bars(found: Sequence[Loss], quality: Metric) -> str:
    """Return the losses by one metric as bars, SVG."""
    shown = [loss for loss in found if not math.isnan(loss.losses[quality.column][0])]
    if not shown:
        return ""
    ends = [value for loss in shown for value in loss.losses[quality.column] if not math.isnan(value)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    scale = 340.0 / ((high - low) or 1.0)
    zero = 262 - low * scale
    parts = []
    for at, loss in enumerate(shown):
        mean, *interval = loss.losses[quality.column]
        top, left, right = 26 * at, 262 + (min(0.0, mean) - low) * scale, 262 + (max(0.0, mean) - low) * scale
        parts.append(f'<text x="254" y="{top + 16}" text-anchor="end">{escape(loss.part.title)}</text>')
        parts.append(
            f'<rect x="{left:.1f}" y="{top + 4}" width="{right - left:.1f}" height="16" '
            f'fill="{COLOURS[0 if mean >= 0 else 2]}"/>'
        )
        end = max(right, zero)
        if not any(map(math.isnan, interval)):
            a, b = (262 + (value - low) * scale for value in interval)
            parts.append(f'<path d="M{a:.1f} {top + 12}H{b:.1f}" stroke="currentColor" stroke-width="1.5"/>')
            end = max(end, b)
        parts.append(f'<text x="{end + 6:.1f}" y="{top + 16}">{loss_text(loss, quality)}</text>')
    parts.append(f'<path d="M{zero:.1f} 0V{26 * len(shown)}" stroke="currentColor" stroke-width="0.8"/>')
    return f'<svg viewBox="0 0 720 {26 * len(shown)}" font-size="13" fill="currentColor">{"".join(parts)}</svg>'


def plot(dots: Scatter, error: Metric, quality: Metric) -> str:
    """Return quality against error, a dot per recording and node, SVG."""
    every = [both for both in dots.points.values() if len(both)]
    if not every:
        return ""
    width, height = _SIZE
    whole = np.concatenate(every)
    low, high = whole.min(axis=0), whole.max(axis=0)
    span = np.where(high > low, high - low, 1.0)

    def at(point: NDArray[np.float64]) -> tuple[float, float]:
        share = (point - low) / span
        return _LEFT + share[0] * (width - _LEFT - 10), (height - _BOTTOM) - share[1] * (height - _BOTTOM - 10)

    def marks() -> Iterator[str]:
        for share in (0.0, 0.5, 1.0):
            x, y = at(low + share * span)
            x_value, y_value = low + share * span
            yield f'<text x="{x:.1f}" y="{height - _BOTTOM + 16}" text-anchor="middle">{x_value:.3g}</text>'
            yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{y_value:.3g}</text>'
        for k, (node, both) in enumerate(dots.points.items()):
            step = -(-len(both) // max(1, _MOST_POINTS // len(dots.points)))
            for point in both[::step]:
                x, y = at(point)
                yield (
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[k % len(COLOURS)]}" '
                    f'fill-opacity="0.65"><title>{escape(node)}</title></circle>'
                )
        yield f'<path d="M{_LEFT} 0V{height - _BOTTOM}H{width}" fill="none" stroke="currentColor" stroke-width="0.8"/>'
        yield f'<text x="{width / 2}" y="{height - 4}" text-anchor="middle">{escape(error.label)}</text>'
        yield f'<text x="4" y="10">{escape(quality.label)}</text>'

    return f'<svg viewBox="0 0 {width} {height}" font-size="12" fill="currentColor">{"".join(marks())}</svg>'
