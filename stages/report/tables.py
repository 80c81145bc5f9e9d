"""The report's numbers: all statistics of a run as files, as text, and as a short table."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from melmill.stages.report.comparison.paired import paired
from melmill.stages.report.contract import HeardTest, Tables
from melmill.stages.report.ranking import correlations, ranks, standings
from melmill.stages.report.statistics import Cube, convergence, cube, failures, pooled, summary
from melmill.stages.score.listeners.analysis import Outcome, outcome
from melmill.stages.score.metric import POOLED, status_column
from melmill.stages.score.metric import metric as metric_of
from melmill.stages.score.sets.values import EmbeddedSet, as_failures, as_summary, set_values


@dataclass(frozen=True, kw_only=True)
class Results:
    """Hold the tables of `statistics`, `comparison` and `ranking`, and what listeners said.

    `cube` holds the scores. `paired` is None without a baseline, and `trust`, what `judged` says of
    each node that was damaged, without such nodes. `sets` has the values of whole sets, None without.
    """

    cube: Cube
    summary: pd.DataFrame
    failures: pd.DataFrame
    paired: pd.DataFrame | None
    ranks: pd.DataFrame
    correlations: pd.DataFrame
    convergence: pd.DataFrame
    heard: Sequence[tuple[HeardTest, Outcome]] = ()
    trust: pd.DataFrame | None = None
    sets: pd.DataFrame | None = None

    @cached_property
    def leaders(self) -> Mapping[str, Sequence[str]]:
        """For each metric the best node, then those that can't be told from it."""
        found: dict[str, list[str]] = {}
        for row in self.ranks[self.ranks["is_best"] | self.ranks["is_tied"]].to_dict("records"):
            found.setdefault(row["metric"], []).append(row["node"])
        return found


def results(tables: Tables, *, by: Sequence[str], baseline: str | None, seed: int) -> Results:
    """Compute every table of statistics that a report shows."""
    scores = tables.scores
    table = cube(scores)  # of a large corpus this takes a while
    values = set_values(tables.sets, seed)
    whole, failed = _summarised(table, scores, tables.sets, values, by=by, seed=seed)
    return Results(
        cube=table,
        summary=whole,
        failures=failed,
        paired=None if baseline is None else paired(table, baseline, seed=seed),
        ranks=ranks(standings(table, seed=seed)),
        correlations=correlations(table),
        convergence=convergence(tables.traces),
        heard=[(one, outcome(one.test, one.ratings, scores, seed=seed)) for one in tables.listening],
        trust=None if tables.trust is None else judged_by_node(tables.trust),
        sets=values if len(values) else None,
    )


def summarised(
    scores: pd.DataFrame, sets: Sequence[EmbeddedSet], *, by: Sequence[str], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the summary of scores and of whole sets, and what has no value; see `statistics`.

    Pooled values and those of sets are rows of the summary too, as metrics of their own.
    """
    return _summarised(cube(scores), scores, sets, set_values(sets, seed), by=by, seed=seed)


def _summarised(
    table: Cube,
    scores: pd.DataFrame,
    sets: Sequence[EmbeddedSet],
    values: pd.DataFrame,
    *,
    by: Sequence[str],
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    parts = [summary(table, by=by, seed=seed), pooled(table, by=by, seed=seed)]
    failed = [failures(scores)]
    if len(values):
        parts.append(as_summary(values))
        failed.append(as_failures(sets, values))
    whole, lost = _below_one_another(parts), _below_one_another(failed)
    if len(parts[1]):
        # A pooled value follows the mean of its metric.
        names = dict.fromkeys(whole["metric"].str.removesuffix(POOLED))
        place = {name: at for at, base in enumerate(names) for name in (base, f"{base}{POOLED}")}
        whole = whole.sort_values("metric", key=lambda column: column.map(place), kind="stable", ignore_index=True)
    return whole, lost


def _below_one_another(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return tables as one; the first alone where the others have no rows."""
    first, *others = tables
    filled = [table for table in others if len(table)]
    return pd.concat([first, *filled] if len(first) else filled, ignore_index=True) if filled else first


def judged_by_node(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what `judged` says of the recordings of each node, with a column ``node`` first."""
    from melmill.stages.score.trust.judgement import judged

    parts = []
    for node, of_it in rows.groupby("node", sort=False):
        # A metric that another node was judged by has no status here. One that failed everywhere has.
        names = [str(name) for name in of_it]
        unasked = [name for name in names if status_column(name) in names and of_it[status_column(name)].isna().all()]
        made = judged(of_it.drop(columns=[*unasked, *map(status_column, unasked)]))
        made.insert(0, "node", node)
        parts.append(made)
    return pd.concat(parts, ignore_index=True)


def files(tables: Tables, results: Results) -> dict[str, bytes]:
    """Return each table, given or computed, as ``<name>.csv`` and ``<name>.parquet``."""
    frames = {
        "scores": tables.scores,
        "summary": results.summary,
        "failures": results.failures,
        "paired": results.paired,
        "ranks": results.ranks,
        "correlations": results.correlations,
        "convergence": results.convergence,
        "quarantine": tables.quarantine,
        "throughput": tables.throughput,
        "pairs": tables.pairs,
        **_heard(results),
        "trust": results.trust,
        "damaged": tables.trust,
        "sets": results.sets,
    }
    written: dict[str, bytes] = {}
    for name, frame in frames.items():
        if frame is not None:
            written[f"{name}.csv"] = as_csv(frame)
            written[f"{name}.parquet"] = frame.to_parquet(index=False)
    return written


def _heard(results: Results) -> dict[str, pd.DataFrame]:
    """Return what listeners said of each system, and how far metrics agree; nothing without tests."""
    if not results.heard:
        return {}
    systems = [made.systems.assign(test=test.test_id, measure=test.test.measure) for test, made in results.heard]
    agreement = [made.agreement.assign(test=test.test_id) for test, made in results.heard]
    return {
        "listening": pd.concat(systems, ignore_index=True),
        "listening_agreement": pd.concat(agreement, ignore_index=True),
    }


def as_csv(frame: pd.DataFrame) -> bytes:
    """Return a table as CSV, without a copy of it as text."""
    buffer = io.BytesIO()
    frame.to_csv(buffer, index=False)
    return buffer.getvalue()


def headline(summary: pd.DataFrame, failures: pd.DataFrame) -> pd.DataFrame:
    """Return the means as text, ``mean ± half the 95 % interval``: nodes down, metrics across.

    Parameters
    ----------
    summary, failures : DataFrame
        What the functions of these names in `statistics` returned.
    """
    whole = summary[summary["level"] == "all"]
    cells = []
    for row in whole.to_dict("records"):
        text = plus_minus(row["mean"], row["ci_low"], row["ci_high"], metric_of(row["metric"]).decimals)
        if row["n"] == 0:
            text = why_none(failures, row["metric"], row["node"])
        elif row["n_failed"]:
            text += f" ({row['n_failed']} failed)"
        cells.append(text)
    wide = whole.assign(cell=cells, title=[metric_of(name).label for name in whole["metric"]])
    table = wide.pivot(index="node", columns="title", values="cell").fillna("")
    return table.reindex(index=whole["node"].unique(), columns=wide["title"].unique()).rename_axis(columns=None)


def number(value: float, digits: int) -> str:
    """Return `value` with `digits` decimals; a dash for NaN.

    >>> number(-0.001, 2), number(float("nan"), 2)
    ('0.00', '–')
    """
    return "–" if math.isnan(value) else f"{value:z.{digits}f}"


def plus_minus(mean: float, low: float, high: float, digits: int) -> str:
    """Return a mean and half its interval; the mean alone without an interval.

    >>> plus_minus(3.214, 3.19, 3.25, 2)
    '3.21 ± 0.03'
    """
    if math.isnan(mean) or math.isnan(low):
        return number(mean, digits)
    return f"{number(mean, digits)} ± {number((high - low) / 2, digits)}"


def p_value(p: float) -> str:
    """Return a p-value with three decimals, or that it is smaller.

    >>> p_value(0.0312), p_value(3e-9)
    ('0.031', '< 0.001')
    """
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def status(name: str) -> str:
    """Return the name of a status as plain words.

    >>> status("not_installed")
    'not installed'
    """
    return name.replace("_", " ")


def why_none(failed: pd.DataFrame, metric: str, node: str) -> str:
    """Return the statuses of a metric without values for a node, the most frequent first."""
    here = failed[(failed["metric"] == metric) & (failed["node"] == node)]
    return ", ".join(status(name) for name in here.sort_values("n", ascending=False, kind="stable")["status"])
