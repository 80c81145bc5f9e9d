"""Tables of means as Markdown and LaTeX."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from melmill.stages.report.ranking import ranks, standings
from melmill.stages.report.statistics import failures, summary
from melmill.stages.report.typeset import MeansTable, latex, latex_escaped, markdown, means_table
from melmill.stages.score.metric import METRICS
from tests.stages.report.test_ranking import both
from tests.stages.report.test_statistics import table


def made(scores: pd.DataFrame) -> MeansTable:
    return means_table(summary(scores, by=()), ranks(standings(scores)), failures(scores))


def scores() -> pd.DataFrame:
    y = np.random.default_rng(0).normal(0.5, 0.1, size=40)
    jitter = np.tile([0.05, -0.05], 20)
    estoi = table(best_1=y.tolist(), even=(y - 0.001 + jitter).tolist(), worse=["timeout", *(y[1:] - 0.3).tolist()])
    scm = table("scm_db", best_1=(-20 * y).tolist(), even=(-10 * y).tolist(), worse=["not_installed"] * 40)
    return both(estoi, scm)


def test_markdown_tells_the_best_ties_and_failures() -> None:
    head, line, *rows = markdown(made(scores())).splitlines()
    assert head == r"| system | ESTOI ↑ | SCM \[dB\] ↓ |"
    assert line == "|---|---:|---:|"
    assert re.fullmatch(r"\| best\\_1 \| \*\*0\.\d{3} ± 0\.\d{3}\*\* \| \*\*-\d+\.\d\d ± \d\.\d\d\*\* \|", rows[0])
    assert re.fullmatch(r"\| even \| 0\.\d{3} ± 0\.\d{3} † \| -\d\.\d\d ± \d\.\d\d \|", rows[1])
    assert re.fullmatch(r"\| worse \| 0\.\d{3} ± 0\.\d{3} \(1 failed\) \| – \(not installed\) \|", rows[2])
    assert "Means over 40 utterances" in rows[4]
    assert "†: can't be told from the best" in rows[4]
    assert "Failed measurements are in no mean" in rows[4]
    assert "not over the same: ESTOI." in rows[4]


def test_latex_is_well_formed_and_says_the_same() -> None:
    text = latex(made(scores()))
    assert text.isascii()
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    rows = re.findall(r"^    (?!\\)(.*) \\\\$", text, flags=re.MULTILINE)
    assert len(rows) == 4
    assert {row.count("&") for row in rows} == {2}
    assert r"\begin{tabular}{lrr}" in text
    assert re.match(r"best\\_1 & \$\\mathbf\{0\.\d{3} \\pm 0\.\d{3}\}\$ & \$\\mathbf\{-", rows[1])
    assert re.search(r"0\.\d{3} \\pm 0\.\d{3}\$\$\^\{\\dagger\}\$", rows[2])
    assert rows[3].endswith("(1 failed) & -- (not installed)")
    assert rows[0].endswith(r"SCM [dB] $\downarrow$")


def test_metrics_are_the_rows_where_they_are_many() -> None:
    y = np.random.default_rng(5).normal(size=5)
    names = [one.column for one in METRICS.values()][:7]
    wide = table(names[0], a=y.tolist(), b=(y + 1).tolist())
    for name in names[1:]:
        wide = both(wide, table(name, a=y.tolist(), b=(y + 1).tolist()))
    head, _, *rows = markdown(made(wide)).splitlines()
    assert head == "| metric | a | b |"
    assert len(rows) == 7 + 2
    assert r"\begin{tabular}{lrr}" in latex(made(wide))


def test_one_system_has_no_best_and_one_utterance_no_interval() -> None:
    text = markdown(made(table(only=[0.5])))
    assert "| only | 0.500 |" in text
    assert "Bold" not in text
    assert "**" not in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b", r"a\_b"),
        ("50 % & $x$ #1", r"50 \% \& \$x\$ \#1"),
        ("{x}^~\\", r"\{x\}\textasciicircum{}\textasciitilde{}\textbackslash{}"),
        ("admm[n_iter=10]", r"admm[n\_iter=10]"),
        ("1 ± 2 – 3 × 4", r"1 $\pm$ 2 -- 3 $\times$ 4"),
    ],
)
def test_names_can_hold_what_latex_takes_for_commands(text: str, escaped: str) -> None:
    assert latex_escaped(text) == escaped
