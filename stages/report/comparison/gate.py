"""Stage `gate`: judge the scores of a run by rules, against a baseline where they need one."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from melmill.stages.contract import Input, Kind, Product, Report, Scores
from melmill.stages.contract.products import declared
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.report.comparison.evaluation import RunAt, nearest
from melmill.stages.report.comparison.rules import Rule
from melmill.stages.report.contract import ReportData, ReportFiles

if TYPE_CHECKING:
    from melmill.stages.report.comparison.verdicts import Judgement


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Judge scores by rules. A rule that trips makes `melmill run` exit with 3.

    Parameters
    ----------
    rules : tuple of Rule
        What the run must hold.
    baseline : str or None
        Run that `not_worse_than` compares with: a tag or a run of the pipeline's store, or another
        store, each with ``:NODE`` to compare all nodes with that one. A new store may lack the tag
        in its first run: then these rules pass unjudged.
    """

    uses: ClassVar[str] = "gate"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.SCORES}), many=True)}

    rules: tuple[Rule, ...] = field(metadata={"example": "[{metric: estoi, at_least: 0.9}]"})
    baseline: str | None = None
    _against: RunAt | None = field(default=None, init=False)
    _unjudged: str = field(default="", init=False)

    def __post_init__(self) -> None:
        """Check that there are rules, and a baseline if one needs it."""
        if not self.rules:
            raise ParameterError("rules", "is empty: give at least one, such as {metric: estoi, at_least: 0.9}")
        for at, rule in enumerate(self.rules, start=1):
            if rule.needs_baseline and self.baseline is None:
                raise ParameterError(
                    "rules",
                    f"compares with a baseline in rule {at} ({rule.text}), and the node names none: add baseline",
                )
        if self.baseline == "":
            raise ParameterError("baseline", "must name a tag, a run or a store, or be left out, got ''")

    def identity(self) -> Mapping[str, Any]:
        """Return the rules, and which run the baseline is."""
        against = self._against
        return {
            "rules": [_given(rule) for rule in self.rules],
            "baseline": None if against is None else [against.run_id, against.node, list(map(list, against.products))],
        }

    def against(self, run: RunAt | None, why: str = "") -> Gate:
        """Return the gate that knows its baseline; see `BaselineStage`."""
        stage = copy(self)
        object.__setattr__(stage, "_against", run)
        object.__setattr__(stage, "_unjudged", why)
        return stage

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Check that rules are about nodes and metrics that are scored.

        Raises
        ------
        ContractError
            One is not.
        """
        scored: dict[str, set[str]] = {}
        for product in inputs.get("from", ()):
            if not isinstance(product, Scores):
                raise ContractError(f"gate takes scores, got {product.kind.value}; give it a score node")
            scored.setdefault(product.scored, set()).update(product.metrics)
        for at, rule in enumerate(self.rules, start=1):
            if rule.kind in ("quarantined_share", "throughput", "disk"):
                continue
            nodes = [node for node in scored if rule.node in (None, node, declared(node))]
            if not nodes:
                hint = nearest(str(rule.node), scored)
                raise ContractError(f"rule {at} ({rule.text}) is about {rule.node!r}, which is not scored{hint}")
            metric = rule.measured
            if metric is not None and not any(metric.column in scored[node] for node in nodes):
                have = ", ".join(sorted(set().union(*(scored[node] for node in nodes))))
                raise ContractError(
                    f"rule {at} ({rule.text}) is about {metric.name}, which is not scored (scored: {have}): add it to "
                    "the metrics of the score node"
                )
        return Report()

    def report(self, data: ReportData) -> ReportFiles:
        """Return the verdict as a page, as JSON and as JUnit's XML.

        Raises
        ------
        NotComparable
            The baseline measured otherwise, or has no utterance in common.
        """
        from melmill.stages.report.comparison import junit
        from melmill.stages.report.comparison.page import gate_page
        from melmill.stages.report.comparison.verdicts import Placed, judge

        against = self._against
        judgement = judge(
            data.evaluation(),
            [Placed(rule=rule, where=f"rule {at}") for at, rule in enumerate(self.rules, start=1)],
            None if against is None else data.evaluation(against),
            baseline_node=None if against is None else against.node,
            unjudged=self._unjudged,
        )
        return ReportFiles(
            files={
                "index.html": gate_page(judgement),
                # Whether it passed: what `melmill gate --json` prints.
                "verdict.json": (json.dumps(judgement.as_dict(), indent=1, ensure_ascii=False) + "\n").encode(),
                "junit.xml": junit.of_gate(judgement),
            },
            headline=headline(judgement),
        )


def _given(rule: Rule) -> dict[str, Any]:
    """Return the fields of a rule that are not their defaults, as plain values."""
    return {
        one.name: list(value) if isinstance(value, tuple) else value
        for one in dataclasses.fields(rule)
        if (value := getattr(rule, one.name)) != one.default
    }


def headline(judgement: Judgement) -> str:
    """Return what came of each rule as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("rule", "verdict", "found"))
    for number, placed in enumerate(judgement.rules, start=1):
        writer.writerow((placed.rule.text, judgement.state(number), judgement.found(number)))
    return text.getvalue()
