"""Pages, Markdown and JUnit's XML of comparisons and verdicts."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import numpy as np

from melmill.stages.report.comparison import junit
from melmill.stages.report.comparison.page import comparison_markdown, comparison_page, gate_page, worst_first_heard
from melmill.stages.report.comparison.rules import Rule
from melmill.stages.report.comparison.runs import Comparison, NodePair, compare_runs
from melmill.stages.report.comparison.verdicts import Placed, judge
from melmill.stages.report.contract import Example
from tests.stages.report.comparison.conftest import numbers

ODD = "<b>&\x1b|"


def compared() -> Comparison:
    base = np.linspace(0.5, 0.9, 20)
    d = np.where(np.arange(20) % 2 == 0, -0.05, 0.06) + np.linspace(0, 0.01, 20)
    a, b = (numbers({"estoi": estoi}, label=ODD) for estoi in (base, base + d))
    for run in (a, b):
        run.scores["speaker_id"] = run.scores["speaker_id"].replace("s0", ODD)
    return compare_runs(a, b, [NodePair(a="gla", b="gla")], by=("speaker",))


def test_junit_has_a_case_for_each_test() -> None:
    found = compared()
    suite = ET.fromstring(junit.of_comparison(found))
    cases = list(suite.iter("testcase"))
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["3", "1", "0", "0"]
    assert [case.get("name") for case in cases if case.find("failure") is not None] == [
        "estoi [speaker <b>&\ufffd|]"  # XML can't hold the escape
    ]
    assert {case.get("classname") for case in cases} == {"gla"}


def test_junit_of_a_gate_names_what_tripped_and_what_was_not_judged() -> None:
    rules = [
        Placed(rule=Rule(metric="estoi", at_least=0.9), where="gate.yaml:2"),
        Placed(rule=Rule(metric="estoi", not_worse_than=0.1), where="gate.yaml:3"),
        Placed(rule=Rule(failed_share=0.5), where="gate.yaml:4"),
    ]
    run = numbers({"estoi": [0.5, math.nan]})
    cases = list(ET.fromstring(junit.of_gate(judge(run, rules, unjudged="no baseline"))).iter("testcase"))
    shown = [(case.get("classname"), case.get("name"), [child.tag for child in case]) for case in cases]
    assert shown == [
        ("gate.yaml:2", "estoi: at least 0.9 [gla]", ["failure"]),
        ("gate.yaml:3", "estoi: not worse than 0.1 [gla]", ["skipped"]),
        ("gate.yaml:4", "failed: at most 0.5 of scores [gla]", ["system-out"]),
    ]
    failure = cases[0].find("failure")
    assert failure is not None
    assert failure.get("message") == "0.5000 (n = 1)"
    page = gate_page(judge(run, rules, unjudged="no baseline")).decode()
    assert "Gate tripped" in page
    assert "unjudged" in page


def test_the_page_escapes_and_plays() -> None:
    found = compared()
    y = np.zeros(8000, np.float32)
    example = Example(
        utterance_id=str(found.worst["utterance_id"].iloc[0]), text=ODD, why="gla: worst", sr=16000, reference=y,
        reconstructions={"A: gla": y, "B: gla": y}, rates={"A: gla": 16000, "B: gla": 16000},
    )  # fmt: skip
    page = comparison_page(found, [("gla", example)]).decode()
    assert "<b>" not in page
    assert page.count("<audio ") == 3
    assert page.count('href="#listen-1"') == 1
    assert 'id="listen-1"' in page
    assert "got worse by their 95 % interval" in page
    assert "http" not in page.replace("http-equiv", "")


def test_markdown_links_to_what_the_page_plays() -> None:
    found = compared()
    (_, first), (_, second) = ((node, name) for node, name, _ in worst_first_heard(found)[:2])
    y = np.zeros(8000, np.float32)
    # The worst one can't be played.
    example = Example(
        utterance_id=second, text="", why="", sr=16000,
        reference=y, reconstructions={"A: gla": y}, rates={"A: gla": 16000},
    )  # fmt: skip
    page = comparison_page(found, [("gla", example)]).decode()
    assert re.findall(r'id="(listen-\d+)"', page) == ["listen-2"]
    links = dict(re.findall(r"\[(.*?)\]\(page.html#(listen-\d+)\)", comparison_markdown(found, "page.html")))
    assert (links[first], links[second]) == ("listen-1", "listen-2")


def test_markdown_means_itself() -> None:
    text = comparison_markdown(compared(), "page.html")
    assert text.startswith(r"# \<b\>&")
    assert r"speaker \<b\>&" in text
    rows = [line for line in text.splitlines() if line.startswith("| ESTOI ")]
    assert len(rows) == 1
    assert rows[0].count(" | ") == 12  # metric, node, and eleven more
    assert "(page.html#listen-1)" in text
