"""The report as one HTML file that loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from melmill.stages.report import figures, page_tables, sweep_figures
from melmill.stages.report.contract import Example, Tables
from melmill.stages.report.examples import DIFFERENCE_DB, RANGE_DB, shown
from melmill.stages.report.statistics import cube, measured
from melmill.stages.report.sweeps import Arrangement, arrange
from melmill.stages.report.tables import Results
from melmill.stages.score.metric import metric as metric_of


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold the settings of the page: its title, baseline, groups, and the seed of its bootstrap."""

    title: str
    baseline: str | None
    by: Sequence[str]
    seed: int = 0


def page(tables: Tables, results: Results, examples: Sequence[Example], settings: Settings) -> bytes:
    """Return the page as UTF-8.

    All text from the data is escaped. The page loads nothing, and its content security policy
    allows no script except the one that sorts its tables.
    """
    script = _resource("page.js")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    goodness: dict[str, float] = {}
    for metric in measured(results.summary)[:1]:
        sign = metric_of(metric).sign
        rows = results.summary[(results.summary["level"] == "all") & (results.summary["metric"] == metric)]
        goodness = dict(zip(rows["node"], sign * rows["mean"].fillna(-sign * math.inf), strict=True))
    arrangement = arrange(tables.made, list(map(str, tables.scores["node"].unique())), goodness)
    rejected, quarantine = tables.quarantine, None
    if len(rejected):
        quarantine = {
            "n": len(rejected),
            "reasons": page_tables.quarantine_reasons(rejected),
            "rows": page_tables.quarantine(rejected),
        }
    return (
        environment.get_template("page.html.j2")
        .render(
            settings=settings,
            facts=_facts(tables.scores),
            style=Markup(_resource("page.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            arrangement=arrangement,
            leaders=page_tables.best(results) if arrangement.is_crowded else (),
            headline=page_tables.headline(results, arrangement),
            folded=[(sweep, page_tables.of_map(results, sweep)) for sweep in page_tables.folded_maps(arrangement)],
            paired=None if results.paired is None else page_tables.paired(results.paired),
            groups=page_tables.by_group(results, settings.by, arrangement.shown),
            examples=shown(examples, tables.scores, arrangement.shown),
            ranges={"mel": RANGE_DB, "difference": DIFFERENCE_DB},
            failures=page_tables.failures(results.failures) if len(results.failures) else None,
            quarantine=quarantine,
            notes=tables.notes,
            throughput=page_tables.throughput(tables.throughput) if len(tables.throughput) else None,
            made=[
                (node, ", ".join(f"{name}: {value}" for name, value in node.parameters.items())) for node in tables.made
            ],
            versions=tables.versions,
            metrics=[metric_of(name) for name in dict.fromkeys(results.summary["metric"])],
            **_figures(tables, results, arrangement, settings.seed),
        )
        .encode()
    )


def _facts(scores: pd.DataFrame) -> list[tuple[str, str]]:
    one_each = scores.drop_duplicates("utterance_id")
    speakers, subsets = (sorted(set(map(str, one_each[name])) - {""}) for name in ("speaker_id", "subset"))
    facts = [
        ("utterances", f"{len(one_each):,}"),
        ("hours of audio", f"{one_each['duration_s'].sum() / 3600:.2f}"),
        ("speakers", f"{len(speakers):,}" if speakers else ""),
        ("subsets", ", ".join(subsets)),
        ("scored nodes", str(scores["node"].nunique())),
    ]
    return [(name, value) for name, value in facts if value]


def _figures(tables: Tables, results: Results, arrangement: Arrangement, seed: int) -> dict[str, Any]:
    table = cube(tables.scores)
    boxes = [
        (metric_of(name), Markup(figures.box_plot(table, name, arrangement.shown)))
        for name in measured(results.summary)
    ]
    curves = results.convergence[results.convergence["node"].isin(arrangement.curved())]
    return {
        "boxes": boxes,
        "convergence": Markup(figures.convergence(curves, arrangement.shown)) if len(curves) else None,
        "training": [
            (loss, Markup(figures.training(drawn))) for loss, drawn in tables.training.groupby("loss", sort=False)
        ],
        "panels": [
            *sweep_figures.lines(results.summary, arrangement),
            *sweep_figures.maps(tables.scores, results.summary, arrangement, seed),
        ],
    }


def _breakable(text: str) -> Markup:
    """Escape a name; a long one, as fan-out makes them, may break after brackets and commas."""
    if len(text) <= 12:
        return escape(text)
    return Markup("<wbr>").join(re.split(r"(?<=[\[,/])", text))


def _resource(name: str) -> str:
    return resources.files("melmill.stages.report").joinpath(name).read_text(encoding="utf-8")
