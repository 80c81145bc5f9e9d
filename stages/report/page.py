"""The report as one HTML file that loads nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from melmill.stages.report import figures
from melmill.stages.report.contract import Example, Tables
from melmill.stages.report.examples import DIFFERENCE_DB, RANGE_DB, shown
from melmill.stages.report.statistics import Cube, measured
from melmill.stages.report.sweeps import Arrangement, arrange
from melmill.stages.report.tables import Results
from melmill.stages.report.views import explorer, listeners, overview, page_tables, sets, sweep_figures, trusted
from melmill.stages.report.views.templates import render
from melmill.stages.score.metric import metric as metric_of

# Tables of groups with more cells than this are made by the page's script from their data.
_MOST_GROUP_CELLS = 4_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold the settings of the page: its title, baseline, groups, and the seed of its bootstrap."""

    title: str
    baseline: str | None
    by: Sequence[str]
    seed: int = 0


def page(tables: Tables, results: Results, examples: Sequence[Example], settings: Settings) -> bytes:
    """Return the page as UTF-8.

    Its script sorts and filters tables, and shows what data the page holds.
    """
    goodness: dict[str, float] = {}
    for metric in _of_recordings(results)[:1]:
        sign = metric_of(metric).sign
        rows = results.summary[(results.summary["level"] == "all") & (results.summary["metric"] == metric)]
        goodness = dict(zip(rows["node"], sign * rows["mean"].fillna(-sign * math.inf), strict=True))
    arrangement = arrange(tables.made, list(map(str, tables.scores["node"].unique())), goodness)
    table = results.cube
    rejected, quarantine = tables.quarantine, None
    if len(rejected):
        quarantine = {
            "n": len(rejected),
            "reasons": page_tables.quarantine_reasons(rejected),
            "rows": page_tables.quarantine(rejected),
        }
    return render(
        "page.html.j2",
        settings=settings,
        trends=tables.trends,
        facts=_facts(tables.scores),
        arrangement=arrangement,
        leaders=page_tables.best(results) if arrangement.is_crowded else (),
        headline=page_tables.headline(results, arrangement),
        folded=[(sweep, page_tables.of_map(results, sweep)) for sweep in page_tables.folded_maps(arrangement)],
        paired=None if results.paired is None else page_tables.paired(results.paired),
        ranks=overview.rank_matrix(results),
        heard=[listeners.shown(test, made) for test, made in results.heard],
        correlations=overview.correlation_matrix(results.correlations),
        sets=sets.grids(results.sets),
        trust=trusted.grids(results.trust),
        damages=trusted.shown_damages(results.trust),
        **_groups(results, settings.by, arrangement.shown),
        worst=_worst(table, arrangement.shown),
        examples=shown(examples, tables.scores, arrangement.shown),
        ranges={"mel": RANGE_DB, "difference": DIFFERENCE_DB},
        pair_notes=tables.pair_notes,
        failures=page_tables.failures(results.failures) if len(results.failures) else None,
        quarantine=quarantine,
        notes=tables.notes,
        throughput=page_tables.throughput(tables.throughput) if len(tables.throughput) else None,
        made=[(node, ", ".join(f"{name}: {value}" for name, value in node.parameters.items())) for node in tables.made],
        versions=tables.versions,
        metrics=[metric_of(name) for name in dict.fromkeys(results.summary["metric"])],
        **_figures(tables, table, results, arrangement, settings.seed),
    )


def _of_recordings(results: Results) -> list[str]:
    """Return the metrics that have a value for some recording."""
    return [name for name in measured(results.summary) if name in results.cube.metrics]


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


def _groups(results: Results, by: Sequence[str], nodes: Sequence[str]) -> dict[str, Any]:
    """Return the tables of groups, or the data of them where tables would be too large for a page."""
    n_cells = int(((results.summary["level"] != "all") & results.summary["node"].isin(nodes)).sum())
    if n_cells <= _MOST_GROUP_CELLS:
        return {"groups": page_tables.by_group(results, by, nodes), "slices": None}
    made = explorer.slices(results.summary, by, nodes)
    return {"groups": (), "slices": explorer.as_data(made), "slices_left_out": made["left_out"]}


def _worst(table: Cube, nodes: Sequence[str]) -> Markup | None:
    """Return the data of the worst utterances; None without any value."""
    made = explorer.worst(table, [node for node in nodes if node in table.nodes])
    return explorer.as_data(made) if made["metrics"] else None


def _figures(tables: Tables, table: Cube, results: Results, arrangement: Arrangement, seed: int) -> dict[str, Any]:
    boxes = [
        (title, [(one, Markup(figures.box_plot(table, one.column, arrangement.shown))) for one in members])
        for title, members in overview.grouped(_of_recordings(results))
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
