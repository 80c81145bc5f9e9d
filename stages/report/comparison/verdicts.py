"""What a run comes to by the rules of a gate, with errors controlled over all rules and groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from melmill.stages.contract.products import declared
from melmill.stages.errors import NotComparable
from melmill.stages.report.comparison.differences import Decision, Inferiority, decide, inferiority
from melmill.stages.report.comparison.evaluation import SLICES, Evaluation, chosen_nodes, nearest, scored_nodes
from melmill.stages.report.comparison.rules import Rule, shown_bytes
from melmill.stages.report.comparison.runs import Paired, Side, how_measured_differently, paired_scores
from melmill.stages.report.statistics import ALL, OK, metric_columns, statuses
from melmill.stages.report.tables import number
from melmill.stages.score.metric import Metric
from melmill.stages.score.metric import metric as metric_of

State = Literal["passed", "tripped", "unsure", "unjudged"]
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A rule and where it stands: ``gate.yaml:3``, or its number."""

    rule: Rule
    where: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """Hold what one rule says of one node and one group of utterances.

    Parameters
    ----------
    rule : int
        Number of the rule, from 1.
    node, group : str
        Group of utterances, such as ``speaker 84``; ``all`` for all of them.
    state : {"passed", "tripped", "unsure", "unjudged"}
        ``unsure`` passes: the scores show neither a degradation nor that it is within the margin.
        ``unjudged`` passes too: there is no baseline yet.
    value : float
        What is limited: a mean, a share, a speed, bytes, or the mean difference from the baseline
        (positive is a larger value of the metric). NaN without any.
    n : int
        Scores, pairs of scores or utterances that it is of.
    says : str
        The value and its comparison with the limit, in a few words.
    bound : float
        Of `not_worse_than`: the end of the one-sided 95 % interval of the difference on its worse
        side. Otherwise NaN.
    p, p_holm : float
        Of `not_worse_than`: the one-sided p of "not worse at all", and that corrected for all such
        checks of the gate. Otherwise NaN.
    power : float
        Of `not_worse_than`: the chance that a degradation of the margin's size would have tripped.
    """

    rule: int
    node: str
    group: str
    state: State
    value: float
    n: int
    says: str
    bound: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    power: float = math.nan

    @property
    def name(self) -> str:
        """Node and group: ``admm, speaker 84``."""
        return ", ".join(part for part in (self.node, "" if self.group == ALL else self.group) if part)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; None for NaN."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Hold what a run comes to by the rules of a gate.

    Parameters
    ----------
    run : str
        What the run is called.
    baseline : str or None
        What it was compared with.
    rules : tuple of Placed
    checks : tuple of Check
        In the order of the rules.
    notes : tuple of str
        What a person should know of the comparison, a line each.
    """

    run: str
    baseline: str | None
    rules: tuple[Placed, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no rule tripped."""
        return all(check.state != "tripped" for check in self.checks)

    def of(self, number: int) -> list[Check]:
        """Return the checks of a rule, by its number from 1."""
        return [check for check in self.checks if check.rule == number]

    def state(self, number: int) -> State:
        """Return the state of a rule: the worst of its checks."""
        states = {check.state for check in self.of(number)}
        order: tuple[State, ...] = ("tripped", "unsure", "unjudged")
        return next((state for state in order if state in states), "passed")

    @property
    def tripped(self) -> list[str]:
        """One line for each rule that tripped."""
        return [self.line(number) for number in self.numbers if self.state(number) == "tripped"]

    @property
    def unsure(self) -> list[str]:
        """One line for each rule that passed without proof, or was not judged."""
        return [self.line(number) for number in self.numbers if self.state(number) in ("unsure", "unjudged")]

    @property
    def numbers(self) -> range:
        """Numbers of the rules."""
        return range(1, len(self.rules) + 1)

    def found(self, number: int) -> str:
        """Return what was found of a rule: its checks in the rule's own state, the worst first."""
        found = [check for check in self.of(number) if check.state == self.state(number)]
        found.sort(key=lambda check: (check.p_holm, check.p) if not math.isnan(check.p) else (2.0, 0.0))
        shown = "; ".join(f"{check.name}: {check.says}" if check.name else check.says for check in found[:_NAMED])
        return f"{shown}; and {len(found) - _NAMED:,} more" if len(found) > _NAMED else shown

    def line(self, number: int) -> str:
        """Return what came of a rule, in one line."""
        placed = self.rules[number - 1]
        return f"{placed.where}: {placed.rule.text}: {self.state(number)}: {self.found(number)}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "run": self.run,
            "baseline": self.baseline,
            "passed": self.passed,
            "tripped": self.tripped,
            "unsure": self.unsure,
            "rules": [
                {
                    "rule": number,
                    "where": placed.where,
                    "text": placed.rule.text,
                    "state": self.state(number),
                    "limit": placed.rule.limit,
                    "checks": [check.as_dict() for check in self.of(number)],
                }
                for number, placed in enumerate(self.rules, start=1)
            ],
            "notes": list(self.notes),
        }


def judge(
    run: Evaluation,
    rules: Sequence[Placed],
    baseline: Evaluation | None = None,
    *,
    baseline_node: str | None = None,
    unjudged: str = "",
) -> Judgement:
    """Judge a run by the rules of a gate.

    Means, shares, speeds and sizes are facts of the run, and are compared with their limits as they
    are. A `not_worse_than` is a test: it trips where the mean is worse than the baseline's by a
    one-sided paired t test, and its one-sided 95 % interval reaches beyond the margin. The p-values
    of all such checks, over rules, nodes and groups, are corrected by Holm's method at 5 %. So a
    gate trips falsely in at most 5 % of evaluations without a change.

    Parameters
    ----------
    run : Evaluation
    rules : sequence of Placed
    baseline : Evaluation or None
        What `not_worse_than` compares with.
    baseline_node : str or None
        Scored node of the baseline that stands for all nodes of the run. None: that of the same name.
    unjudged : str
        Why there is no baseline yet, and rules that need it pass. Empty: they need one.

    Raises
    ------
    NotComparable
        A rule is about a node or a metric that was not scored, or needs a baseline. Or the baseline
        measured otherwise, or has no utterance in common.

    References
    ----------
    Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    if not rules:
        raise NotComparable("a gate without rules judges nothing: give it at least one")
    judge_ = _Judge(run, baseline, baseline_node, unjudged)
    checks = []
    for at, placed in enumerate(rules, start=1):
        try:
            made = list(judge_.checks(at, placed.rule))
        except NotComparable as error:
            raise NotComparable(f"{placed.where}: {error}") from error
        if not made:
            raise NotComparable(f"{placed.where}: {placed.rule.text}: {run.label} has nothing that it is about")
        checks += made
    return Judgement(
        run=run.label,
        baseline=None if baseline is None else baseline.label,
        rules=tuple(rules),
        checks=tuple(_decided(checks, judge_.found, rules)),
        notes=tuple(dict.fromkeys((*run.notes, *(() if baseline is None else baseline.notes), *judge_.notes))),
    )


def _decided(checks: Sequence[Check], found: Sequence[Inferiority], rules: Sequence[Placed]) -> Iterator[Check]:
    """Yield the checks, with those against the baseline decided together."""
    tested = [check for check in checks if rules[check.rule - 1].rule.needs_baseline and check.state != "unjudged"]
    decisions = iter(zip(found, decide(found, [rules[check.rule - 1].rule.limit for check in tested]), strict=True))
    for check in checks:
        rule = rules[check.rule - 1].rule
        if not rule.needs_baseline or check.state == "unjudged":
            yield check
            continue
        one, decision = next(decisions)
        state: State = decision.finding
        if state == "unsure" and rule.unsure == "trip":
            state = "tripped"
        says = _says(one, metric_of(str(rule.metric)), rule.limit, decision)
        yield replace(check, state=state, p_holm=decision.p_holm, power=decision.power, says=says)


def _says(one: Inferiority, metric: Metric, margin: float, decision: Decision) -> str:
    if one.n == 0:
        return "no utterance has a value here and in the baseline"
    digits = metric.decimals + 1
    difference = number(metric.sign * one.mean, digits)
    if one.n == 1:
        return f"{difference} from the baseline on one utterance, which shows nothing"
    bound = number(metric.sign * one.low, digits)
    text = f"{difference} from the baseline, at 95 % no worse than {bound} (n = {one.n:,})"
    if decision.finding == "unsure":
        worse = "less" if metric.sign > 0 else "more"
        text += f"; {margin:g} {worse} would trip with a chance of {decision.power:.0%}"
    return text


class _Judge:
    """Make the checks of rules, and keep the differences of those against the baseline."""

    def __init__(self, run: Evaluation, baseline: Evaluation | None, baseline_node: str | None, unjudged: str) -> None:
        self._run = run
        self._baseline = baseline
        self._baseline_node = baseline_node
        self._unjudged = unjudged
        self._sides: dict[tuple[int, str], Side] = {}
        self._paired: dict[tuple[str, str], Paired] = {}
        self.found: list[Inferiority] = []
        self.notes: list[str] = []

    def checks(self, at: int, rule: Rule) -> Iterator[Check]:
        """Yield the checks of a rule, number `at`; raise NotComparable."""
        if rule.kind in ("at_least", "at_most"):
            yield from self._absolute(at, rule)
        elif rule.kind == "not_worse_than":
            yield from self._relative(at, rule)
        elif rule.kind == "failed_share":
            yield from self._failed(at, rule)
        elif rule.kind == "quarantined_share":
            yield from self._quarantined(at, rule)
        elif rule.kind == "throughput":
            yield from self._throughput(at, rule)
        else:
            yield from self._disk(at, rule)

    def _nodes(self, rule: Rule) -> list[str]:
        if rule.node is None:
            nodes = scored_nodes(self._run)
            if not nodes:
                raise NotComparable(f"{self._run.label} has no scores: run its score nodes first")
            return nodes
        return chosen_nodes(self._run, rule.node)

    def _side(self, run: Evaluation, node: str) -> Side:
        return self._sides.setdefault((id(run), node), Side(run=run, node=node))

    def _sides_of(self, rule: Rule) -> list[Side]:
        """Return the nodes that a rule is about: all that it names, or those with its metric."""
        sides = [self._side(self._run, node) for node in self._nodes(rule)]
        metric = rule.measured
        if metric is None:
            return sides
        scored = [side for side in sides if metric.column in side.columns]
        if not scored or rule.node is not None:
            for side in sides:
                side.check_scored(metric)
        return scored

    def _absolute(self, at: int, rule: Rule) -> Iterator[Check]:
        metric = metric_of(str(rule.metric))
        for side in self._sides_of(rule):
            for group, rows in _groups(side.rows, rule.by):
                counted = (statuses(rows, metric.column) == OK).to_numpy(dtype=bool, na_value=False)
                values = rows[metric.column].to_numpy(dtype=np.float64)[counted]
                mean = float(values.mean()) if len(values) else math.nan
                holds = mean >= rule.limit if rule.kind == "at_least" else mean <= rule.limit
                says = (
                    f"{number(mean, metric.decimals + 1)} (n = {len(values):,})" if len(values) else "no value at all"
                )
                yield _check(at, side.node, group, holds, mean, len(values), says)

    def _relative(self, at: int, rule: Rule) -> Iterator[Check]:
        metric = metric_of(str(rule.metric))
        sides = self._sides_of(rule)
        if self._baseline is None:
            if not self._unjudged:
                raise NotComparable("not_worse_than needs a baseline: name a tag, a run or a store")
            for side in sides:
                yield Check(
                    rule=at, node=side.node, group=ALL, state="unjudged", value=math.nan, n=0, says=self._unjudged
                )
            return
        for side in sides:
            paired = self._pair(side, self._baseline, metric)
            for how, name, rows in paired.slices(rule.by):
                if rule.by and how == ALL:
                    continue
                d = paired.differences[rows, 0]
                one = inferiority(metric.sign * d[~np.isnan(d)])
                self.found.append(one)
                yield Check(
                    rule=at,
                    node=side.node,
                    group=ALL if how == ALL else f"{how} {name}",
                    state="unsure",
                    value=metric.sign * one.mean,
                    n=one.n,
                    says="",
                    bound=metric.sign * one.low,
                    p=one.p,
                )

    def _pair(self, side: Side, baseline: Evaluation, metric: Metric) -> Paired:
        """Return the scores of a node beside those of the baseline, by one metric."""
        if (side.node, metric.column) in self._paired:
            return self._paired[side.node, metric.column]
        nodes = chosen_nodes(baseline, self._baseline_node or side.node)
        if len(nodes) > 1 or (self._baseline_node is None and nodes[0] != side.node):
            raise NotComparable(
                f"{baseline.label} has no scores of {side.node!r}, but of {', '.join(nodes)}: name the node of the "
                "baseline, as in TAG:NODE"
            )
        (node,) = nodes
        other = self._side(baseline, node)
        other.check_scored(metric)
        if differing := how_measured_differently(other, side, metric):
            raise NotComparable(
                f"{metric.name} of {side.node!r} was measured otherwise in the baseline {baseline.label}: {differing}; "
                "score the baseline anew, or take another"
            )
        paired = paired_scores(other, side, [metric.column])
        self.notes += paired.notes
        self._paired[side.node, metric.column] = paired
        return paired

    def _failed(self, at: int, rule: Rule) -> Iterator[Check]:
        for side in self._sides_of(rule):
            columns = side.columns if rule.measured is None else (rule.measured.column,)
            for group, rows in _groups(side.rows, rule.by):
                found = Counter(str(one) for name in columns for one in statuses(rows, name).dropna())
                total = found.total()
                failed = total - found[OK]
                share = failed / total if total else math.nan
                whys = ", ".join(sorted(name.replace("_", " ") for name in found if name != OK))
                says = f"{failed:,} of {total:,} scores have no value{f' ({whys})' if whys else ''}"
                yield _check(at, side.node, group, share <= rule.limit, share, total, says)

    def _quarantined(self, at: int, rule: Rule) -> Iterator[Check]:
        found = self._run.quarantined
        names = _nodes_called(rule.node, list(found), self._run.label)
        lost = frozenset[str]().union(*(found[name] for name in names))
        total = self._run.n_utterances
        share = len(lost) / total if total else 0.0
        says = f"{len(lost):,} of {total:,} utterances are in quarantine"
        yield _check(at, rule.node or "", ALL, share <= rule.limit, share, total, says)

    def _throughput(self, at: int, rule: Rule) -> Iterator[Check]:
        rows = self._run.throughput
        rows = rows[rows["compute_s"] > 0]
        for name in _nodes_called(rule.node, [str(node) for node in rows["node"]], self._run.label):
            row = rows[rows["node"] == name].iloc[0]
            speed = float(row["audio_s"] / row["compute_s"])
            says = f"{speed:.3g} x real time"
            yield _check(at, name, ALL, speed >= rule.limit, speed, int(row["utterances"]), says)

    def _disk(self, at: int, rule: Rule) -> Iterator[Check]:
        sizes = self._run.disk_bytes
        total = sum(sizes[name] for name in _nodes_called(rule.node, list(sizes), self._run.label))
        yield _check(at, rule.node or "", ALL, total <= rule.limit, float(total), 0, shown_bytes(total))


def _check(at: int, node: str, group: str, holds: bool, value: float, n: int, says: str) -> Check:
    return Check(rule=at, node=node, group=group, state="passed" if holds else "tripped", value=value, n=n, says=says)


def _nodes_called(name: str | None, known: Sequence[str], label: str) -> list[str]:
    """Return the nodes of a name, or those declared by it; all without a name."""
    if name is None:
        return list(known)
    found = [node for node in known if node == name] or [node for node in known if declared(node) == name]
    if not found:
        raise NotComparable(f"{label} has no node {name!r}{nearest(name, known)}")
    return found


def _groups(rows: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield all rows, or else each group of them, with its name."""
    if not by:
        yield ALL, rows
    for name in by:
        for value, part in rows.groupby(rows[SLICES[name]].astype(str), sort=True):
            yield f"{name} {value or '(none)'}", part


def scored_metrics(run: Evaluation) -> dict[str, list[str]]:
    """Return the names of the metrics of each scored node."""
    return {
        node: [metric_of(name).name for name in metric_columns(Side(run=run, node=node).rows)]
        for node in scored_nodes(run)
    }
