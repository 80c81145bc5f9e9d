"""JUnit's XML, which build servers show: a test case for each check."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from melmill.stages.report.comparison.runs import Comparison
from melmill.stages.report.comparison.verdicts import Judgement
from melmill.stages.report.statistics import ALL
from melmill.stages.report.tables import number, p_value
from melmill.stages.score.metric import metric as metric_of

# What XML 1.0 can't hold.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One test case.

    Parameters
    ----------
    group, name : str
        Class and name of the test.
    failure : str
        Why it failed. Empty: it did not.
    kind : str
        Kind of the failure.
    skipped : str
        Why it was not run. Empty: it was.
    output : str
        What it says where it passed.
    """

    group: str
    name: str
    failure: str = ""
    kind: str = ""
    skipped: str = ""
    output: str = ""


def of_gate(judgement: Judgement) -> bytes:
    """Return the checks of a gate as JUnit's XML; a check that tripped is a failure."""
    cases = []
    for number_, placed in enumerate(judgement.rules, start=1):
        for check in judgement.of(number_):
            name = placed.rule.text + (f" [{check.name}]" if check.name else "")
            tripped, unjudged = check.state == "tripped", check.state == "unjudged"
            cases.append(
                Case(
                    group=placed.where,
                    name=name,
                    failure=check.says if tripped else "",
                    kind=placed.rule.kind,
                    skipped=check.says if unjudged else "",
                    output="" if tripped or unjudged else f"{check.state}: {check.says}",
                )
            )
    return _xml("melmill gate", judgement.run, cases)


def of_comparison(comparison: Comparison) -> bytes:
    """Return the tests of a comparison as JUnit's XML.

    A metric that got worse is a failure: by all tests together, or in a group by its own interval.
    """
    worse = {_place(row) for row in comparison.worse_slices.to_dict("records")}
    cases = []
    for row in comparison.tests.to_dict("records"):
        metric = metric_of(row["metric"])
        group = "" if row["by"] == ALL else f" [{row['by']} {row['slice']}]"
        says = (
            f"{number(row['mean_difference'], metric.decimals + 1)} {metric.unit}".rstrip()
            + f" [{number(row['ci_low'], metric.decimals + 1)}, {number(row['ci_high'], metric.decimals + 1)}]"
            + f", p = {p_value(row['wilcoxon_p_holm'])}, n = {row['n']:,}"
        )
        failed = row["outcome"] == "worse" or _place(row) in worse
        cases.append(
            Case(
                group=str(row["node"]),
                name=f"{metric.name}{group}",
                failure=f"worse: {says}" if failed else "",
                kind="worse",
                skipped=str(row["reason"]) if row["n"] == 0 else "",
                output="" if failed or row["n"] == 0 else f"{row['outcome'] or 'no difference shown'}: {says}",
            )
        )
    return _xml("melmill compare", f"{comparison.a} and {comparison.b}", cases)


def _place(row: Mapping[Hashable, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("metric", "node", "by", "slice"))


def _xml(program: str, name: str, cases: Iterable[Case]) -> bytes:
    listed = list(cases)
    counts = {
        "tests": str(len(listed)),
        "failures": str(sum(bool(case.failure) for case in listed)),
        "errors": "0",
        "skipped": str(sum(bool(case.skipped) and not case.failure for case in listed)),
    }
    root = ET.Element("testsuites", {"name": program, **counts})
    suite = ET.SubElement(root, "testsuite", {"name": _clean(name), **counts})
    for case in listed:
        made = ET.SubElement(suite, "testcase", {"classname": _clean(case.group), "name": _clean(case.name)})
        if case.failure:
            failure = ET.SubElement(made, "failure", {"message": _clean(case.failure), "type": case.kind})
            failure.text = _clean(f"{case.name}: {case.failure}")
        elif case.skipped:
            ET.SubElement(made, "skipped", {"message": _clean(case.skipped)})
        elif case.output:
            ET.SubElement(made, "system-out").text = _clean(case.output)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
