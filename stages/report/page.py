"""The report as one HTML file that needs nothing but itself."""

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

from melmill.stages.contract import Example, Provenance
from melmill.stages.report import figures, sweep_views, views
from melmill.stages.report.cube import cube
from melmill.stages.report.examples import shown
from melmill.stages.report.figures import DIFFERENCE_DB, RANGE_DB
from melmill.stages.report.inputs import Tables
from melmill.stages.report.statistics import measured
from melmill.stages.report.sweeps import Arrangement, arrange
from melmill.stages.report.tables import Results
from melmill.stages.score.registry import Metric
from melmill.stages.score.registry import metric as described


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold what the page is told besides its data."""

    title: str
    baseline: str | None
    by: Sequence[str]
    seed: int = 0


def page(tables: Tables, found: Results, examples: Sequence[Example], settings: Settings) -> bytes:
    """Return the page, UTF-8.

    All text from the data is escaped, nothing is loaded from elsewhere, and the page's own content security policy
    allows no script but the one that sorts tables.
    """
    script = _resource("page.js")
    arrangement = _arrangement(tables, found)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            settings=settings,
            facts=_facts(tables.scores),
            style=Markup(_resource("page.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            arrangement=arrangement,
            leaders=views.best(found) if arrangement.is_crowded else (),
            headline=views.headline(found, arrangement),
            folded=[(sweep, views.of_map(found, sweep)) for sweep in views.folded_maps(arrangement)],
            paired=None if found.paired is None else views.paired(found.paired),
            groups=views.by_group(found, settings.by, arrangement.shown),
            examples=shown(examples, tables.scores, arrangement.shown),
            ranges={"mel": RANGE_DB, "difference": DIFFERENCE_DB},
            failures=views.failures(found.failures) if len(found.failures) else None,
            quarantine=_quarantine(tables.quarantine),
            throughput=views.throughput(tables.throughput) if len(tables.throughput) else None,
            made=[(node, _parameters(node)) for node in tables.made],
            versions=tables.versions,
            metrics=_metrics(found.summary),
            **_figures(tables, found, arrangement, settings.seed),
        )
        .encode()
    )


def _arrangement(tables: Tables, found: Results) -> Arrangement:
    goodness: dict[str, float] = {}
    for metric in measured(found.summary)[:1]:
        sign = 1 if described(metric).better == "higher" else -1
        rows = found.summary[(found.summary["level"] == "all") & (found.summary["metric"] == metric)]
        goodness = dict(zip(rows["node"], sign * rows["mean"].fillna(-sign * math.inf), strict=True))
    return arrange(tables.made, list(map(str, tables.scores["node"].unique())), goodness)


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


def _figures(tables: Tables, found: Results, arrangement: Arrangement, seed: int) -> dict[str, Any]:
    table = cube(tables.scores)
    boxes = [
        (described(name), Markup(figures.box_plot(table, name, arrangement.shown))) for name in measured(found.summary)
    ]
    curves = found.convergence[found.convergence["node"].isin(arrangement.curved())]
    return {
        "boxes": boxes,
        "convergence": Markup(figures.convergence(curves, arrangement.shown)) if len(curves) else None,
        "training": [
            (loss, Markup(figures.training(drawn))) for loss, drawn in tables.training.groupby("loss", sort=False)
        ],
        "panels": [
            *sweep_views.lines(found.summary, arrangement),
            *sweep_views.maps(tables.scores, found.summary, arrangement, seed),
        ],
    }


def _quarantine(ledger: pd.DataFrame) -> dict[str, Any] | None:
    if ledger.empty:
        return None
    return {"n": len(ledger), "reasons": views.quarantine_reasons(ledger), "rows": views.quarantine(ledger)}


def _parameters(node: Provenance) -> str:
    return ", ".join(f"{name}: {value}" for name, value in node.parameters.items())


def _metrics(summary: pd.DataFrame) -> list[Metric]:
    return [described(name) for name in dict.fromkeys(summary["metric"])]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Markup:
    """Escape a name and let a long one break after its brackets and commas, as fan-out names may."""
    if len(text) <= 12:
        return escape(text)
    return Markup("<wbr>").join(re.split(r"(?<=[\[,/])", text))


def _resource(name: str) -> str:
    return resources.files("melmill.stages.report").joinpath(name).read_text(encoding="utf-8")
