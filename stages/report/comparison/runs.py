"""Two runs compared, utterance by utterance: what changed, where, and what can't be compared."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.errors import NotComparable
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.report.comparison.differences import (
    LEVEL,
    effect_size,
    holm_adjusted,
    p_values,
    smallest_detectable,
    worst_first,
)
from melmill.stages.report.comparison.evaluation import (
    SLICES,
    Evaluation,
    check_slices,
    chosen_nodes,
    nearest,
    scored_nodes,
)
from melmill.stages.report.statistics import ALL, DRAWS, OK, cube, generator, intervals, metric_columns, statuses
from melmill.stages.score.metric import METRICS, Metric, status_column
from melmill.stages.score.metric import metric as metric_of

WORST = 10
"""Utterances of one list of the worst."""

_NAMED = 5
_SHOWN = 40

TEST_COLUMNS = (
    *("metric", "node", "by", "slice", "n", "mean_a", "mean_b", "mean_difference", "ci_low", "ci_high"),
    *("wilcoxon_p", "wilcoxon_p_holm", "ttest_p", "effect_size", "smallest_detectable", "n_better", "n_worse"),
    *("outcome", "reason"),
)
WORST_COLUMNS = ("metric", "node", "utterance_id", "speaker_id", "subset", "value_a", "value_b", "difference")


@dataclass(frozen=True, kw_only=True)
class NodePair:
    """Name a scored node of each of two runs."""

    a: str
    b: str

    @property
    def name(self) -> str:
        """Its name in tables.

        >>> NodePair(a="gla", b="gla").name, NodePair(a="gla", b="admm").name
        ('gla', 'gla → admm')
        """
        return self.a if self.a == self.b else f"{self.a} → {self.b}"


@dataclass(frozen=True, kw_only=True)
class Side:
    """A scored node of one of two runs."""

    run: Evaluation
    node: str

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Rows of its scores, with the columns of metrics that were asked for."""
        rows = self.run.scores[self.run.scores["node"] == self.node]
        unasked = [name for name in metric_columns(rows) if rows[status_column(name)].isna().all()]
        return rows.drop(columns=[one for name in unasked for one in (name, status_column(name))])

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns of its metrics."""
        return metric_columns(self.rows)

    @cached_property
    def ids(self) -> list[str]:
        """Ids of its utterances, in the order of the rows."""
        return [str(one) for one in self.rows["utterance_id"]]

    def values(self, metrics: Sequence[Metric], ids: Sequence[str]) -> NDArray[np.float64]:
        """Return its scores of some utterances, ``(n_utterances, n_metrics)``; NaN without a value."""
        table = cube(self.rows)
        columns = [table.metrics.index(metric.column) for metric in metrics]
        return np.asarray(table.values[places(self.ids, ids)][:, 0][:, columns])

    def failed(self, metric: Metric, ids: Collection[str]) -> dict[str, int]:
        """Return how often a metric has no value among some utterances, by status."""
        found = statuses(self.rows[self.rows["utterance_id"].isin(ids)], metric.column)
        return {str(name): int(count) for name, count in found[found.notna() & (found != OK)].value_counts().items()}

    def check_scored(self, metric: Metric) -> None:
        """Raise NotComparable, with what to do, if it has no scores of a metric."""
        if metric.column not in self.columns:
            have = ", ".join(metric_of(name).name for name in self.columns)
            raise NotComparable(
                f"{metric.name} of {self.node!r} was not scored in {self.run.label} (scored: {have or 'nothing'}): "
                "add it to the metrics of its score node, or leave it out"
            )


def places(ids: Sequence[str], wanted: Sequence[str]) -> NDArray[np.intp]:
    """Return where some ids stand among others.

    >>> places(["a", "b", "c"], ["c", "a"]).tolist()
    [2, 0]
    """
    at = {one: place for place, one in enumerate(ids)}
    return np.array([at[one] for one in wanted], dtype=np.intp)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Hold the scores of two nodes over the utterances that both runs have.

    Parameters
    ----------
    nodes : NodePair
    utterances : DataFrame
        One row per utterance: its id, and the columns of `SLICES`.
    metrics : tuple of Metric
    a, b : ndarray of float64, shape (n_utterances, n_metrics)
        NaN where there is no value.
    notes : tuple of str
        What can't be compared, a line each.
    """

    nodes: NodePair
    utterances: pd.DataFrame
    metrics: tuple[Metric, ...]
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def differences(self) -> NDArray[np.float64]:
        """B minus A, ``(n_utterances, n_metrics)``."""
        return self.b - self.a

    def slices(self, by: Sequence[str]) -> Iterator[tuple[str, str, NDArray[np.intp]]]:
        """Yield all utterances, then each group: how it is made, its name, and its rows."""
        yield ALL, ALL, np.arange(len(self.utterances))
        for name in by:
            values = self.utterances[SLICES[name]].astype(str)
            for value in sorted(set(values)):
                yield name, value or "(none)", np.flatnonzero((values == value).to_numpy())


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold how run B differs from run A, utterance by utterance.

    Parameters
    ----------
    a, b : str
        What the runs are called.
    by : tuple of str
        How utterances were grouped.
    tests : DataFrame
        A row per scored node, metric and group; `by` and ``slice`` read ``all`` for all utterances.
        ``n`` utterances have a value in both, and ``mean_a`` and ``mean_b`` are over these.
        ``mean_difference`` is B minus A in the metric's unit, with its 95 % interval (percentile
        bootstrap over utterances). ``wilcoxon_p`` and ``ttest_p`` are two-sided. ``wilcoxon_p_holm``
        is corrected for all tests of the table. ``effect_size`` is the mean difference over the
        standard deviation of differences. ``smallest_detectable`` is the mean difference that a t
        test at 5 % finds with a power of 80 %. ``n_better`` and ``n_worse`` count utterances.
        ``outcome`` is ``better`` or ``worse`` where the corrected p is below 5 %, otherwise empty.
        A number that can't be computed is NaN, and ``reason`` says why.
    worse_slices : DataFrame
        Rows of `tests`: groups whose 95 % interval lies on the worse side, though that of all
        utterances does not. Empty without `by`.
    worst : DataFrame
        The ten utterances of each node and metric that lost most, the worst first: ``metric, node,
        utterance_id, speaker_id, subset, value_a, value_b, difference``.
    not_comparable : tuple of str
        What can't be compared, a line each.
    pairs : tuple of NodePair
    seed : int
        Of the bootstrap.
    """

    a: str
    b: str
    by: tuple[str, ...]
    tests: pd.DataFrame
    worse_slices: pd.DataFrame
    worst: pd.DataFrame
    not_comparable: tuple[str, ...] = ()
    pairs: tuple[NodePair, ...] = field(default_factory=tuple)
    seed: int = 0

    @property
    def overall(self) -> pd.DataFrame:
        """Rows of `tests` over all utterances."""
        return self.tests[self.tests["by"] == ALL]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON. A number that can't be computed is None."""
        return {
            "a": self.a,
            "b": self.b,
            "by": list(self.by),
            "seed": self.seed,
            "tests": plain_rows(self.tests),
            "worse_slices": plain_rows(self.worse_slices),
            "worst": plain_rows(self.worst),
            "not_comparable": list(self.not_comparable),
        }


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as plain values; None for NaN."""
    return [
        {str(name): None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]


def compare_runs(
    a: Evaluation,
    b: Evaluation,
    pairs: Sequence[NodePair],
    *,
    metrics: Sequence[str] | None = None,
    by: Sequence[str] = (),
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare nodes of two runs, utterance by utterance.

    Parameters
    ----------
    a, b : Evaluation
    pairs : sequence of NodePair
        What `node_pairs` returned.
    metrics : sequence of str or None
        Names of metrics. None: all that both runs have.
    by : sequence of str
        Names of `SLICES`: groups of utterances, each way of grouping for itself.
    draws, seed : int
        Of the bootstrap over utterances.

    Raises
    ------
    NotComparable
        A metric was not scored, or the runs have no utterance in common.
    ParameterError
        Utterances can't be grouped so.
    """
    check_slices(by)
    found = [paired_scores(Side(run=a, node=nodes.a), Side(run=b, node=nodes.b), metrics) for nodes in pairs]
    rows = [row for one in found for row in _tests(one, by, draws, seed)]
    tests = pd.DataFrame(rows, columns=[*TEST_COLUMNS, "is_worse"])
    tests["wilcoxon_p_holm"] = holm_adjusted(tests["wilcoxon_p"].to_numpy(dtype=np.float64))
    signs = np.array([metric_of(name).sign for name in tests["metric"]])
    better = signs * tests["mean_difference"].to_numpy(dtype=np.float64)
    significant = (tests["wilcoxon_p_holm"] < LEVEL).to_numpy()
    tests["outcome"] = np.where(significant & (better > 0), "better", np.where(significant & (better < 0), "worse", ""))
    lost = {(row["metric"], row["node"]) for row in tests[tests["by"] == ALL].to_dict("records") if row["is_worse"]}
    apart = [(row["metric"], row["node"]) not in lost for row in tests.to_dict("records")]
    is_worse = tests.pop("is_worse").to_numpy(dtype=bool)
    sliced = (tests["by"] != ALL).to_numpy()
    worst = [row for one in found for row in _worst(one)]
    return Comparison(
        a=a.label,
        b=b.label,
        by=tuple(by),
        tests=tests,
        worse_slices=tests[sliced & is_worse & np.array(apart, dtype=bool)].reset_index(drop=True),
        worst=pd.DataFrame(worst, columns=list(WORST_COLUMNS)),
        not_comparable=(*a.notes, *b.notes, *(note for one in found for note in one.notes)),
        pairs=tuple(pairs),
        seed=seed,
    )


def node_pairs(
    a: Evaluation, b: Evaluation, a_node: str | None, b_node: str | None, names: Sequence[str] = ()
) -> list[NodePair]:
    """Return which nodes of two runs are compared.

    Parameters
    ----------
    a, b : Evaluation
    a_node, b_node : str or None
        The node of each side. One alone stands for both.
    names : sequence of str
        Nodes that both runs have. Without any, and without sides: all scored nodes of both.

    Raises
    ------
    NotComparable
        A node was not scored, or the runs share none.
    """
    if a_node is not None or b_node is not None:
        if names:
            raise NotComparable(f"nodes are named twice, as {names[0]!r} and in an address: leave one out")
        left = chosen_nodes(a, a_node or str(b_node))
        right = chosen_nodes(b, b_node or str(a_node))
        if len(left) == len(right) == 1:
            return [NodePair(a=left[0], b=right[0])]
        same = [NodePair(a=node, b=node) for node in left if node in right]
        if not same:
            raise NotComparable(
                f"{a_node or b_node!r} means {', '.join(left)} in A, and {b_node or a_node!r} {', '.join(right)} in B: "
                "name one node of each"
            )
        return same
    right = scored_nodes(b)
    if not names:
        same = [NodePair(a=node, b=node) for node in scored_nodes(a) if node in right]
        if not same:
            have = ", ".join(scored_nodes(a)) or "none"
            raise NotComparable(
                f"no scored node has the same name in {a.label} ({have}) and in {b.label} "
                f"({', '.join(right) or 'none'}): name one of each, as in STORE:NODE",
            )
        return same
    chosen = [node for name in names for node in chosen_nodes(a, name)]
    for node in chosen:
        chosen_nodes(b, node)
    return [NodePair(a=node, b=node) for node in dict.fromkeys(chosen)]


def paired_scores(a: Side, b: Side, metrics: Sequence[str] | None = None) -> Paired:
    """Pair the scores of two nodes by utterance, and say what can't be compared.

    An utterance counts if both were scored against the same recording. A metric counts if both runs
    measured it in the same way.

    Raises
    ------
    NotComparable
        A metric was not scored, or there is no utterance in common.
    """
    nodes = NodePair(a=a.node, b=b.node)
    chosen, of_metrics = _metrics(a, b, metrics)
    common, of_utterances = _common(a, b, nodes)
    utterances = b.rows.iloc[places(b.ids, common)][["utterance_id", *SLICES.values()]]
    return Paired(
        nodes=nodes,
        utterances=utterances.reset_index(drop=True),
        metrics=tuple(chosen),
        a=a.values(chosen, common),
        b=b.values(chosen, common),
        notes=tuple(f"{nodes.name}: {note}" for note in (*of_utterances, *of_metrics, *_failed(a, b, common, chosen))),
    )


def _metrics(a: Side, b: Side, names: Sequence[str] | None) -> tuple[list[Metric], list[str]]:
    """Return the metrics that can be compared, and lines about those that can't."""
    if names is None:
        wanted = [metric_of(column) for column in dict.fromkeys((*a.columns, *b.columns))]
    else:
        wanted = list({known_metric(name).column: known_metric(name) for name in names}.values())
    chosen, notes = [], []
    for metric in wanted:
        if names is not None:
            a.check_scored(metric)
            b.check_scored(metric)
        if metric.column not in a.columns or metric.column not in b.columns:
            notes.append(f"{metric.name} was scored in {(a if metric.column in a.columns else b).run.label} alone")
        elif differing := how_measured_differently(a, b, metric):
            notes.append(f"{metric.name} is not compared: {differing}")
        else:
            chosen.append(metric)
    return chosen, notes


def how_measured_differently(a: Side, b: Side, metric: Metric) -> str:
    """Return what decides a metric's values and differs between two sides; empty for nothing."""
    left, right = (side.run.measured_how(side.node, metric) for side in (a, b))
    found = []
    for what in dict.fromkeys((*left, *right)):
        if left.get(what) != right.get(what):
            shown = [str(one.get(what)) for one in (left, right)]
            both = f" ({shown[0]} in A, {shown[1]} in B)" if max(map(len, shown)) <= _SHOWN else ""
            found.append(f"other {what}{both}")
    return ", ".join(found)


def known_metric(name: str) -> Metric:
    """Return a metric by its name or column; raise NotComparable with the nearest."""
    try:
        known = metric_of(name)
    except ParameterError as error:
        raise NotComparable(f"there is no metric {name!r}{nearest(name, METRICS)}") from error
    if known.needs == "set":
        raise NotComparable(f"{name!r} has one value for a whole set, and runs are compared recording by recording")
    return known


def _common(a: Side, b: Side, nodes: NodePair) -> tuple[list[str], list[str]]:
    """Return the utterances that can be compared, and lines about those that can't."""
    notes = []
    for side, other in ((a, b), (b, a)):
        present = set(side.ids)
        if missing := [one for one in other.ids if one not in present]:
            notes.append(f"{len(missing):,} utterances are missing in {side.run.label}: {some(missing)}")
    in_a = set(a.ids)
    common = [one for one in b.ids if one in in_a]
    none = f"{a.run.label} and {b.run.label} have no utterance of {nodes.name} in common"
    if not common:
        raise NotComparable(f"{none} (A has {some(a.ids) or 'none'}; B has {some(b.ids) or 'none'})")
    first, second = a.run.references(a.node), b.run.references(b.node)
    other_ones = [one for one in common if first.get(one, "") != second.get(one, "")]
    if len(other_ones) == len(common):
        raise NotComparable(
            f"{none}: all {len(common):,} of the same id were scored against other recordings ({some(other_ones)})"
        )
    if other_ones:
        notes.append(f"{len(other_ones):,} utterances have other references, and are not compared: {some(other_ones)}")
        left_out = set(other_ones)
        common = [one for one in common if one not in left_out]
    return common, notes


def some(names: Sequence[str]) -> str:
    """Return the first of some names, in one line.

    >>> some(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"


def _failed(a: Side, b: Side, common: Sequence[str], metrics: Sequence[Metric]) -> Iterator[str]:
    """Yield a line on each metric with scores that failed: where, how many, and why."""
    for metric in metrics:
        why = [side.failed(metric, common) for side in (a, b)]
        if any(why):
            counts = " and ".join(f"{sum(one.values()):,} in {name}" for one, name in zip(why, "AB", strict=True))
            kinds = ", ".join(sorted({status.replace("_", " ") for one in why for status in one}))
            yield f"{metric.name} failed {counts}, of {len(common):,} utterances ({kinds}): these are not compared"


def _tests(one: Paired, by: Sequence[str], draws: int, seed: int) -> Iterator[dict[str, Any]]:
    differences = one.differences
    for how, name, rows in one.slices(by):
        part = differences[rows]
        low, high = intervals(part, generator(seed, "runs", one.nodes.name, how, name), draws)
        for k, metric in enumerate(one.metrics):
            both = ~np.isnan(part[:, k])
            d = part[both, k]
            wilcoxon_p, ttest_p, reason = p_values(d)
            yield {
                "metric": metric.column,
                "node": one.nodes.name,
                "by": how,
                "slice": name,
                "n": len(d),
                "mean_a": float(one.a[rows][both, k].mean()) if len(d) else math.nan,
                "mean_b": float(one.b[rows][both, k].mean()) if len(d) else math.nan,
                "mean_difference": float(d.mean()) if len(d) else math.nan,
                "ci_low": float(low[k]),
                "ci_high": float(high[k]),
                "wilcoxon_p": wilcoxon_p,
                "ttest_p": ttest_p,
                "effect_size": effect_size(d),
                "smallest_detectable": smallest_detectable(d),
                "n_better": int((metric.sign * d > 0).sum()),
                "n_worse": int((metric.sign * d < 0).sum()),
                "reason": reason,
                "is_worse": bool(high[k] < 0 if metric.sign > 0 else low[k] > 0),
            }


def _worst(one: Paired) -> Iterator[dict[str, Any]]:
    for k, metric in enumerate(one.metrics):
        for row in worst_first(metric.sign * one.differences[:, k], WORST):
            named = one.utterances.iloc[row]
            yield {
                "metric": metric.column,
                "node": one.nodes.name,
                "utterance_id": str(named["utterance_id"]),
                "speaker_id": str(named["speaker_id"]),
                "subset": str(named["subset"]),
                "value_a": float(one.a[row, k]),
                "value_b": float(one.b[row, k]),
                "difference": float(one.b[row, k] - one.a[row, k]),
            }
