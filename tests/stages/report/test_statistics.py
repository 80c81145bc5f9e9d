"""Means, intervals, failures and paired tests of scores."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from melmill.stages.numeric.errors import ParameterError, StageError
from melmill.stages.report.comparison.differences import holm_adjusted
from melmill.stages.report.comparison.paired import paired
from melmill.stages.report.statistics import (
    MOST_DRAWN,
    convergence,
    cube,
    failures,
    generator,
    groups,
    intervals,
    pooled,
    statuses,
    summary,
)


def table(metric: str = "estoi", speakers: Sequence[str] | None = None, **nodes: Sequence[float | str]) -> pd.DataFrame:
    """Make scores of one metric: a word instead of a value is its status."""
    rows: list[dict[str, Any]] = []
    for node, values in nodes.items():
        for i, value in enumerate(values):
            speaker = "s" if speakers is None else speakers[i]
            row = {"utterance_id": f"u{i}", "subset": "dev", "speaker_id": speaker, "node": node, "duration_s": 1.0}
            ok = not isinstance(value, str)
            rows.append({**row, metric: value if ok else np.nan, f"status_{metric}": "ok" if ok else value})
    return pd.DataFrame(rows)


def naive_interval(y: NDArray[np.float64], rng: np.random.Generator, draws: int) -> tuple[float, float]:
    means = []
    for _ in range(draws):
        drawn = y[rng.integers(0, len(y), size=len(y), dtype=np.int32)]
        means.append(np.nanmean(drawn))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def the(frame: pd.DataFrame, **where: str) -> dict[str, Any]:
    for column, value in where.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1
    return {str(name): value for name, value in frame.iloc[0].items()}


def test_summary_gives_the_moments_of_what_worked() -> None:
    row = the(summary(table(a=[0.1, 0.2, 0.6, "timeout"])), level="all")
    assert (row["n"], row["n_failed"]) == (3, 1)
    assert row["mean"] == pytest.approx(0.3)
    assert row["median"] == pytest.approx(0.2)
    assert row["std"] == pytest.approx(np.sqrt((0.04 + 0.01 + 0.09) / 2))


def test_intervals_are_those_of_a_loop_over_draws() -> None:
    y = np.random.default_rng(1).normal(size=40)
    low, high = intervals(y[:, None], generator(0, "all"), draws=500)
    assert (low[0], high[0]) == pytest.approx(naive_interval(y, generator(0, "all"), 500), rel=1e-12)


def test_intervals_with_missing_values_are_those_of_a_loop_over_draws() -> None:
    y = np.random.default_rng(1).normal(size=(40, 2))
    y[::3, 1] = np.nan
    low, high = intervals(y, generator(0, "all"), draws=500)
    assert (low[1], high[1]) == pytest.approx(naive_interval(y[:, 1], generator(0, "all"), 500), rel=1e-12)


def test_intervals_do_not_depend_on_how_draws_are_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.random.default_rng(1).normal(size=(50, 3))
    whole = intervals(y, generator(0, "all"))
    monkeypatch.setattr("melmill.stages.report.statistics._CELLS", 700)
    np.testing.assert_allclose(intervals(y, generator(0, "all")), whole, rtol=1e-12)


def test_interval_of_many_normal_values_is_the_textbook_one() -> None:
    y = np.random.default_rng(2).normal(3.0, 0.5, size=2000)
    low, high = intervals(y[:, None], generator(0, "all"))
    half = 1.96 * y.std(ddof=1) / np.sqrt(len(y))
    assert low[0] == pytest.approx(y.mean() - half, abs=0.1 * half)
    assert high[0] == pytest.approx(y.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize(
    ("values", "interval"),
    [
        ([0.75], None),  # one utterance says nothing of its spread
        ([0.75, "timeout", "timeout"], None),  # nor does one that worked among failures
        ([0.75, 0.75, 0.75], (0.75, 0.75)),  # constant, exactly
        ([0.75, 0.75, "timeout"], (0.75, 0.75)),  # draws without a value are left out
    ],
)
def test_intervals_of_few_values(values: Sequence[float | str], interval: tuple[float, float] | None) -> None:
    row = the(summary(table(a=values)), level="all")
    assert row["mean"] == 0.75
    if interval is None:
        assert np.isnan([row["ci_low"], row["ci_high"], row["std"]]).all()
    else:
        assert (row["ci_low"], row["ci_high"]) == interval


def test_summary_of_a_metric_that_never_worked_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = the(summary(table(a=["not_installed"] * 3)), level="all")
    assert (row["n"], row["n_failed"]) == (0, 3)
    assert np.isnan([row["mean"], row["ci_low"], row["median"], row["std"], row["mean_common"]]).all()


def test_summary_leaves_out_metrics_that_a_node_was_not_asked_for() -> None:
    scores = pd.concat([table("estoi", a=[0.5]), table("stoi", b=[0.6])], ignore_index=True)
    found = summary(scores, by=())
    assert list(zip(found["metric"], found["node"], strict=True)) == [("estoi", "a"), ("stoi", "b")]


def test_ok_without_a_finite_value_is_a_failure() -> None:
    scores = table(a=[0.5, float("nan"), float("inf")])
    assert statuses(scores, "estoi").tolist() == ["ok", "non_finite", "non_finite"]
    assert the(summary(scores, by=()))["mean"] == 0.5
    assert failures(scores).to_dict("records") == [{"metric": "estoi", "node": "a", "status": "non_finite", "n": 2}]


def test_a_value_with_a_failed_status_is_not_averaged() -> None:
    scores = table(a=[0.5, "timeout"])
    scores["estoi"] = [0.5, 99.0]
    assert the(summary(scores, by=()))["mean"] == 0.5


def test_means_over_common_utterances_are_flagged_where_nodes_failed_differently() -> None:
    found = summary(table(a=[1.0, 2.0, 6.0], b=[1.0, 2.0, "timeout"], c=["timeout"] * 3), by=())
    assert found["uneven"].all()
    assert found["n_common"].tolist() == [2, 2, 2]
    np.testing.assert_array_equal(found["mean_common"], [1.5, 1.5, np.nan])
    assert found["mean"].tolist()[:2] == [3.0, 1.5]


def test_same_failures_are_not_uneven() -> None:
    assert not summary(table(a=[1.0, "timeout"], b=[2.0, "timeout"]))["uneven"].any()


def test_groups_nest_outer_first() -> None:
    scores = table(speakers=["7", "7", "8"], a=[1.0, 2.0, 6.0])
    found = [
        (g.level, g.subset, g.speaker_id, g.rows.tolist())
        for g in groups(cube(scores).utterances, ("subset", "speaker"))
    ]
    assert found == [
        ("all", "all", "all", [0, 1, 2]),
        ("subset", "dev", "all", [0, 1, 2]),
        ("speaker", "dev", "7", [0, 1]),
        ("speaker", "dev", "8", [2]),
    ]
    assert summary(scores, by=("speaker",))["mean"].tolist() == [3.0, 1.5, 6.0]


def test_summary_is_the_same_every_time_and_follows_the_seed() -> None:
    scores = table(a=np.random.default_rng(0).normal(size=30).tolist())
    pd.testing.assert_frame_equal(summary(scores), summary(scores))
    assert summary(scores)["ci_low"][0] != summary(scores, seed=1)["ci_low"][0]


def test_an_utterance_scored_twice_is_an_error() -> None:
    scores = pd.concat([table(a=[0.5]), table(a=[0.6])])
    with pytest.raises(StageError, match="'u0' has several rows for node 'a'"):
        summary(scores)


def test_failures_count_by_metric_node_and_status() -> None:
    found = failures(table(a=["timeout", 0.5, "timeout"], b=["crashed", 0.5, 0.5]))
    assert found["status"].tolist() == ["timeout", "crashed"]
    assert found["n"].tolist() == [2, 1]
    assert failures(table(a=[0.5])).columns.tolist() == ["metric", "node", "status", "n"]


def test_paired_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=60), rng.normal(0.2, 1.0, size=60)
    row = the(paired(table(a=a.tolist(), b=b.tolist()), "a"))
    assert row["n"] == 60
    assert row["mean_difference"] == pytest.approx((b - a).mean())
    assert row["wilcoxon_p"] == pytest.approx(stats.wilcoxon(b, a).pvalue)
    assert row["ttest_p"] == pytest.approx(stats.ttest_rel(b, a).pvalue)
    assert (row["n_better"], row["n_worse"]) == ((b > a).sum(), (b < a).sum())
    assert row["ci_low"] < row["mean_difference"] < row["ci_high"]


def test_paired_counts_better_by_the_metrics_own_sense() -> None:
    row = the(paired(table("scm_db", a=[-20.0, -20.0, -20.0], b=[-30.0, -25.0, -10.0]), "a"))
    assert (row["n_better"], row["n_worse"]) == (2, 1)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], "all differences are zero"),
        ([0.5, "timeout"], [0.6, 0.7], "1 common utterances, a test needs 2"),
        (["timeout", 0.5], [0.6, "timeout"], "0 common utterances, a test needs 2"),
        ([0.5, 0.5, 0.5], [1.0, 1.0, 1.0], "all differences are equal: no t test"),
    ],
)
def test_paired_says_why_there_is_no_p(a: Sequence[float | str], b: Sequence[float | str], reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = the(paired(table(a=a, b=b), "a"))
    assert row["reason"] == reason
    assert np.isnan(row["ttest_p"])


def test_paired_leaks_no_warning_for_ties_among_few() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = the(paired(table(a=[0.0] * 5, b=[0.0, 1.0, 1.0, -1.0, 2.0]), "a"))
    assert 0 < row["wilcoxon_p"] <= 1


def test_paired_needs_a_scored_baseline() -> None:
    with pytest.raises(ParameterError, match=r"baseline must be a scored node, got 'x' \(scored: a, b\)"):
        paired(table(a=[0.5], b=[0.5]), "x")


def test_holm_adjusts_step_down() -> None:
    # By hand: 0.01 * 3, 0.02 * 2, and 0.03 * 1 raised to its predecessor.
    np.testing.assert_allclose(holm_adjusted(np.array([0.03, 0.01, 0.02])), [0.04, 0.03, 0.04])
    assert holm_adjusted(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_convergence_is_over_the_finite_values_of_an_iteration() -> None:
    traces = pd.DataFrame(
        {
            "utterance_id": list("abcd") * 2,
            "node": ["z"] * 4 + ["a"] * 4,
            "iteration": [0, 0, 0, 0, 0, 1, 1, 1],
            "scm_db": [-1.0, -2.0, -3.0, -10.0, -5.0, -6.0, np.nan, -np.inf],
        }
    )
    assert convergence(traces).to_dict("list") == {
        "node": ["z", "a", "a"],
        "iteration": [0, 0, 1],
        "n": [4, 1, 1],
        "mean": [-4.0, -5.0, -6.0],
        "first_quartile": [-4.75, -5.0, -6.0],
        "third_quartile": [-1.75, -5.0, -6.0],
    }


def test_large_tables_have_a_row_for_each_group() -> None:
    n = 5_000
    rng = np.random.default_rng(0)
    parts = []
    for node in "abcde":
        ids = np.arange(n)
        frame = pd.DataFrame(
            {
                "utterance_id": ids,
                "subset": "dev",
                "speaker_id": (ids % 250).astype(str),
                "node": node,
                "duration_s": 1.0,
            }
        )
        parts.append(frame.assign(estoi=rng.normal(size=n), status_estoi="ok"))
    found = summary(pd.concat(parts, ignore_index=True), draws=1000)
    assert len(found) == 5 * (1 + 1 + 250)
    half = (found["ci_high"] - found["ci_low"])[0] / 2
    assert half == pytest.approx(1.96 / np.sqrt(n), rel=0.1)


def test_many_rows_are_drawn_in_groups_with_the_same_interval() -> None:
    """The interval of a mean of n values of standard deviation 1 is 1.96 / sqrt(n) either way."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((MOST_DRAWN + 1000, 3))
    values[::7, 1] = np.nan
    low, high = intervals(values, np.random.default_rng(1), draws=2000)
    n = (~np.isnan(values)).sum(axis=0)
    np.testing.assert_allclose((high - low) / 2, 1.96 / np.sqrt(n), rtol=0.08)
    np.testing.assert_allclose((high + low) / 2, np.nanmean(values, axis=0), atol=0.1 / np.sqrt(len(values)))
    constant = np.full((MOST_DRAWN + 1, 1), 0.1)
    low, high = intervals(constant, np.random.default_rng(1), draws=10)
    assert (low[0], high[0]) == (0.1, 0.1)


def test_a_pooled_value_counts_all_frames_together() -> None:
    scores = table("vuv_f1", a=[1.0, 0.5, "no_content", 0.8], b=[0.9, 0.7, 0.6, 0.9])
    # Voiced frames of both signals: an F1 is twice the frames voiced in both over them.
    scores["weight_vuv_f1"] = [10.0, 90.0, 0.0, 20.0, 10.0, 90.0, 40.0, 20.0]
    whole = the(pooled(scores, by=()), node="a")
    assert whole["metric"] == "vuv_f1_pooled"
    assert whole["mean"] == pytest.approx((10 * 1.0 + 90 * 0.5 + 20 * 0.8) / 120)
    assert (whole["n"], whole["n_failed"], whole["uneven"], whole["n_common"]) == (3, 1, True, 3)
    assert whole["ci_low"] < whole["mean"] < whole["ci_high"]
    assert np.isnan(whole["median"])
    other = the(pooled(scores, by=()), node="b")
    assert other["mean"] == pytest.approx((9 + 63 + 24 + 18) / 160)
    assert other["mean_common"] == pytest.approx((9 + 63 + 18) / 120)
    assert pooled(table(a=[0.1, 0.2])).empty


def test_an_equal_weight_gives_the_mean_and_its_interval() -> None:
    y = np.random.default_rng(0).normal(size=40)
    scores = table("wer", a=list(y)).assign(weight_wer=7.0)
    row, mean = the(pooled(scores, by=(), draws=4000)), the(summary(scores, by=(), draws=4000))
    assert row["mean"] == pytest.approx(mean["mean"])
    for end in ("ci_low", "ci_high"):
        assert row[end] == pytest.approx(mean[end], abs=0.03)
    assert np.isnan(the(pooled(table("wer", a=[0.5]).assign(weight_wer=1.0), by=()))["ci_low"])
