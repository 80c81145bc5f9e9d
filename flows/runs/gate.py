"""Judge a run by a file of rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from melmill.flows.pipeline.convert import build, unknown
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.located import Located, parse
from melmill.flows.runs.addresses import ResolvedRun, parse_address
from melmill.flows.runs.baseline import find_baseline, label, resolved
from melmill.flows.runs.evaluation import StoredEvaluation, check_same_project
from melmill.stages.report.comparison.rules import Rule

if TYPE_CHECKING:
    from melmill.stages.report.comparison.verdicts import Judgement, Placed


def read_rules(path: Path) -> list[Placed]:
    """Return the rules in a file, each with its line.

    Raises
    ------
    PipelineError
        The file can't be read, or a rule is wrong. The message has ``file:line`` and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise PipelineError(f"rules {str(path)!r} can't be read: {reason}") from error
    return parse_rules(text, str(path))


def parse_rules(text: str, name: str) -> list[Placed]:
    """Return the rules in a text, as `read_rules` does; `name` stands before line numbers."""
    from melmill.stages.report.comparison.verdicts import Placed

    document = parse(text, name)
    if not isinstance(document.value, dict):
        raise PipelineError(
            f"a file of rules must be a mapping with the field rules, got {document.shown()}", document.where
        )
    for field, value in document.items():
        if field != "rules":
            raise PipelineError(unknown("field", field, ["rules"], "a file of rules"), value.where)
    rules = document.value.get("rules", Located(None, document.where))
    if not isinstance(rules.value, list) or not rules.value:
        raise PipelineError(
            f"rules must be a list such as [{{metric: estoi, at_least: 0.9}}], got {rules.shown()}", rules.where
        )
    return [Placed(rule=_rule(entry, at), where=entry.where) for at, entry in enumerate(rules.value, start=1)]


def _rule(entry: Located, at: int) -> Rule:
    if not isinstance(entry.value, dict):
        raise PipelineError(
            f"rule {at} must be a mapping such as {{metric: estoi, at_least: 0.9}}, got {entry.shown()}", entry.where
        )
    return build(Rule, entry.value, f"rule {at}", entry.where)


def gate_store(
    run: str, rules: Sequence[Placed], baseline: str | None = None, *, other_project: bool = False
) -> tuple[Judgement, ResolvedRun]:
    """Judge a run by rules; return the verdict and the run.

    Parameters
    ----------
    run : str
        Address of the run.
    rules : sequence of Placed
    baseline : str or None
        What `not_worse_than` compares with: a tag or a run of the same store, or an address.
    other_project : bool
        Whether the baseline may be of another project.

    Raises
    ------
    StoreError
        There is no such store, run or tag. The message names the nearest.
    ParameterError
        The baseline is a run of another project.
    NotComparable
        A rule is about something that was not scored, or the baseline can't be compared with.
    """
    from melmill.stages.report.comparison.verdicts import judge

    judged, node = resolved(run)
    found = None if baseline is None else find_baseline(baseline, judged.location.url)
    if found is not None and not other_project:
        check_same_project(judged, found[0], names=("the one to judge", "baseline"))
    placed = list(rules)
    if node is not None:
        # An address with a node is about that one alone.
        placed = [replace(one, rule=replace(one.rule, node=one.rule.node or node)) for one in placed]
    judgement = judge(
        StoredEvaluation.of_run(judged, label(parse_address(run))),
        placed,
        None if found is None else StoredEvaluation.of_run(found[0], str(baseline)),
        baseline_node=None if found is None else found[1],
    )
    return judgement, judged
