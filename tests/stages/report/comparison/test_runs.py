"""Two runs compared: pairs, tests, groups, the worst utterances, and what can't be compared."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from melmill.stages.errors import NotComparable
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.report.comparison.differences import holm_adjusted
from melmill.stages.report.comparison.runs import Comparison, NodePair, compare_runs, node_pairs
from tests.stages.report.comparison.conftest import Numbers, numbers

RNG = np.random.default_rng(0)
GLA = [NodePair(a="gla", b="gla")]


def compared(a: Numbers, b: Numbers, by: tuple[str, ...] = (), metrics: list[str] | None = None) -> Comparison:
    return compare_runs(a, b, GLA, by=by, metrics=metrics)


def test_utterances_are_paired_by_id() -> None:
    estoi = RNG.uniform(0.5, 0.9, 30)
    d = RNG.normal(-0.05, 0.02, 30)
    a, b = numbers({"estoi": estoi}), numbers({"estoi": estoi + d})
    b.scores = b.scores.sample(frac=1, random_state=1)
    (row,) = compared(a, b).tests.to_dict("records")
    assert (row["metric"], row["node"], row["n"], row["outcome"]) == ("estoi", "gla", 30, "worse")
    assert row["mean_difference"] == pytest.approx(d.mean())
    assert row["mean_b"] - row["mean_a"] == pytest.approx(d.mean())
    assert row["wilcoxon_p"] == pytest.approx(stats.wilcoxon(d).pvalue)
    assert row["ttest_p"] == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert row["effect_size"] == pytest.approx(d.mean() / d.std(ddof=1))
    half = 1.96 * d.std(ddof=1) / math.sqrt(30)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((d.mean() - half, d.mean() + half), abs=0.003)


def test_the_direction_is_the_metrics_own() -> None:
    d = RNG.normal(0.5, 0.1, 20)
    base = RNG.uniform(3, 5, 20)
    columns = {"lsd_db": base + d, "estoi": base + d}
    rows = compared(numbers(dict.fromkeys(columns, base)), numbers(columns)).tests.set_index("metric")
    assert rows["outcome"].to_dict() == {"lsd_db": "worse", "estoi": "better"}
    assert rows["n_worse"].to_dict() == {"lsd_db": 20, "estoi": 0}


def test_all_tests_are_corrected_together() -> None:
    base = RNG.uniform(0.5, 0.9, 40)
    a = numbers({"estoi": base, "lsd_db": base})
    b = numbers({"estoi": base + RNG.normal(0.004, 0.01, 40), "lsd_db": base + RNG.normal(0, 0.01, 40)})
    tests = compared(a, b, by=("speaker",)).tests
    assert len(tests) == 2 * 3  # all utterances, and two speakers
    np.testing.assert_allclose(tests["wilcoxon_p_holm"], holm_adjusted(tests["wilcoxon_p"].to_numpy()))


def test_a_group_that_got_worse_is_named_though_the_mean_did_not() -> None:
    d = np.where(np.arange(40) % 2 == 0, -0.05, 0.06) + RNG.normal(0, 0.01, 40)
    base = RNG.uniform(0.5, 0.9, 40)
    found = compared(numbers({"estoi": base}), numbers({"estoi": base + d}), by=("speaker", "subset"))
    assert found.worse_slices[["metric", "by", "slice"]].to_numpy().tolist() == [["estoi", "speaker", "s0"]]
    # Where the mean got worse too, that says enough.
    worse = compared(numbers({"estoi": base}), numbers({"estoi": base - np.abs(d)}), by=("speaker",))
    assert worse.worse_slices.empty
    assert worse.overall["outcome"].tolist() == ["worse"]


def test_the_ten_worst_come_worst_first() -> None:
    d = np.linspace(-1, 3, 25)  # of LSD, of which less is better
    base = np.full(25, 4.0)
    worst = compared(numbers({"lsd_db": base}), numbers({"lsd_db": base + d})).worst
    assert worst["utterance_id"].tolist() == [f"u{i}" for i in range(24, 14, -1)]
    assert worst["difference"].to_numpy() == pytest.approx(d[:14:-1])
    assert compared(numbers({"lsd_db": base}), numbers({"lsd_db": base - 1})).worst.empty


def test_what_is_not_comparable_is_said() -> None:
    base = np.linspace(0.5, 0.9, 12)
    a = numbers({"estoi": base, "scm_db": base, "lsd_db": base}, label="old", how={"scm": {"version": 1}})
    b = numbers({"estoi": base, "scm_db": base, "si_sdr": base}, label="new", how={"scm": {"version": 2}})
    a.recordings = {f"u{i}": "x" for i in range(12)}
    b.recordings = {**a.recordings, "u3": "y"}
    a.scores = a.scores[a.scores["utterance_id"] != "u0"]
    b.scores.loc[5, "estoi"] = math.nan
    b.scores.loc[5, "status_estoi"] = "non_finite"
    found = compared(a, b)
    assert found.tests[["metric", "n"]].to_numpy().tolist() == [
        ["estoi", 9]
    ]  # of 12: one missing, one other, one failed
    assert list(found.not_comparable) == [
        "gla: 1 utterances are missing in old: u0",
        "gla: 1 utterances have other references, and are not compared: u3",
        "gla: scm is not compared: other version (1 in A, 2 in B)",
        "gla: lsd was scored in old alone",
        "gla: si_sdr was scored in new alone",
        "gla: estoi failed 0 in A and 1 in B, of 10 utterances (non finite): these are not compared",
    ]


def test_a_test_that_can_not_be_made_says_why() -> None:
    same = numbers({"estoi": [0.5, 0.6, 0.7]})
    (row,) = compared(same, same).as_dict()["tests"]
    assert (row["wilcoxon_p"], row["reason"], row["outcome"]) == (None, "all differences are zero", "")
    (row,) = compared(numbers({"estoi": [0.5]}), numbers({"estoi": [0.4]})).as_dict()["tests"]
    assert (row["n"], row["ci_low"], row["reason"]) == (1, None, "1 common utterances, a test needs 2")
    (row,) = compared(numbers({"estoi": [math.nan] * 2}), numbers({"estoi": [0.4] * 2})).as_dict()["tests"]
    assert (row["n"], row["mean_difference"]) == (0, None)
    json.dumps(compared(same, same).as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"utterance_id": ["x", "y"]}, r"old and new have no utterance of gla in common \(A has u0, u1; B has x, y\)"),
        ({}, r"no utterance of gla in common: all 2 of the same id were scored against other recordings \(u0, u1\)"),
    ],
)
def test_runs_without_a_common_utterance_are_refused(change: dict[str, list[str]], message: str) -> None:
    a, b = (
        numbers({"estoi": [0.5, 0.6]}, label=label, recordings={"u0": label, "u1": label}) for label in ("old", "new")
    )
    b.scores = b.scores.assign(**change)
    with pytest.raises(NotComparable, match=message):
        compared(a, b)


def test_names_that_are_not_there_are_refused() -> None:
    a = numbers({"estoi": [0.5, 0.6]}, label="old")
    with pytest.raises(NotComparable, match="there is no metric 'estoy'; did you mean 'estoi'"):
        compared(a, a, metrics=["estoy"])
    with pytest.raises(NotComparable, match="'kad' has one value for a whole set"):
        compared(a, a, metrics=["kad"])
    with pytest.raises(NotComparable, match=r"pesq_wb of 'gla' was not scored in old \(scored: estoi\): add it"):
        compared(a, a, metrics=["pesq_wb"])
    with pytest.raises(ParameterError, match="by can't group by 'speeker'; did you mean 'speaker'"):
        compared(a, a, by=("speeker",))


def nodes(*names: str, label: str = "run") -> Numbers:
    made = numbers({"estoi": [0.5]}, label=label)
    made.scores = made.scores.loc[[0] * len(names)].assign(node=list(names))
    return made


def test_which_nodes_are_compared() -> None:
    a, b = nodes("gla", "admm"), nodes("admm", "raar[n_iter=1]", "raar[n_iter=2]")
    assert node_pairs(a, b, None, None) == [NodePair(a="admm", b="admm")]
    assert node_pairs(a, b, "gla", "admm") == [NodePair(a="gla", b="admm")]
    assert node_pairs(b, b, "raar", None) == [NodePair(a=name, b=name) for name in ("raar[n_iter=1]", "raar[n_iter=2]")]
    assert node_pairs(a, b, None, None, ["admm"]) == [NodePair(a="admm", b="admm")]
    b.score_nodes = {"scores": ["admm"]}
    assert node_pairs(b, b, None, None, ["scores"]) == [NodePair(a="admm", b="admm")]


@pytest.mark.parametrize(
    ("a_node", "b_node", "names", "message"),
    [
        ("glo", None, [], "old has no scores of 'glo'; did you mean 'gla'"),
        (None, None, ["gla"], r"new has no scores of 'gla' \(there are: admm, raar\)"),
        ("gla", "admm", ["gla"], "named twice"),
        (
            None,
            None,
            [],
            r"no scored node has the same name in old \(gla\) and in new \(admm, raar\): name one of each",
        ),
    ],
)
def test_nodes_that_can_not_be_compared(a_node: str, b_node: str, names: list[str], message: str) -> None:
    with pytest.raises(NotComparable, match=message):
        node_pairs(nodes("gla", label="old"), nodes("admm", "raar", label="new"), a_node, b_node, names)
