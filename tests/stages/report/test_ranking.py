"""Orders of nodes by each metric, ties, and how far metrics agree."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from melmill.stages.report.ranking import correlations, leaders, ranks, standings
from tests.stages.report.test_statistics import table, the


def test_leaders_name_the_best_and_who_is_not_told_apart() -> None:
    y = np.random.default_rng(0).normal(size=50)
    jitter = np.tile([0.1, -0.1], 25)
    scores = table(worse=(y - 1).tolist(), even=(y - 0.001 + jitter).tolist(), best=y.tolist(), none=["timeout"] * 50)
    assert leaders(scores) == {"estoi": ("best", "even")}


def test_leaders_need_two_nodes_with_values() -> None:
    assert leaders(table(a=[0.5, 0.6], b=["timeout", "timeout"])) == {}
    assert leaders(table(a=[0.5, "timeout"], b=["timeout", 0.6])) == {}


@pytest.mark.parametrize("holed", [False, True])
def test_ranks_are_ranges_where_nodes_cant_be_told_apart(holed: bool) -> None:
    y = np.random.default_rng(1).normal(size=60)
    jitter = np.tile([0.1, -0.1], 30)
    columns: dict[str, list[float | str]] = {
        "last": (y - 2).tolist(),
        "third": (y - 0.0201 - jitter).tolist(),
        "first": (y + 1).tolist(),
        "second": (y - 0.01).tolist(),
    }
    if holed:
        columns["third"][0] = "timeout"
    found = ranks(standings(table("estoi", None, **columns)))
    assert found["node"].tolist() == ["first", "second", "third", "last"]
    assert found["rank"].tolist() == [1, 2, 3, 4]
    assert list(zip(found["rank_low"], found["rank_high"], strict=True)) == [(1, 1), (2, 3), (2, 3), (4, 4)]
    assert found["is_best"].tolist() == [True, False, False, False]
    assert not found["is_tied"].any()
    assert set(found["n_common"]) == {59 if holed else 60}


def test_lower_is_better_where_the_metric_says_so() -> None:
    found = ranks(standings(table("scm_db", loud=[-20.0, -21.0, -19.0], quiet=[-30.0, -31.0, -29.0])))
    assert found["node"].tolist() == ["quiet", "loud"]
    assert found["rank_low"].tolist() == [1, 2]


def test_intervals_of_shared_draws_are_those_of_the_differences() -> None:
    """Two nodes are told apart by the interval of their paired difference, whatever their spread."""
    y = np.random.default_rng(2).normal(size=400)
    shift = 0.02 + 0.05 * np.random.default_rng(3).normal(size=400)
    (one,) = standings(table(a=y.tolist(), b=(y + shift).tolist()))
    low, high = stats.bootstrap((shift,), np.mean, random_state=0, method="percentile").confidence_interval
    assert low > 0
    assert one.nodes == ("b", "a")
    assert one.beats.tolist() == [[False, True], [False, False]]
    assert high < 0.05


def both(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    return first.merge(second.drop(columns=["subset", "speaker_id", "duration_s"]), on=["utterance_id", "node"])


def test_correlations_are_spearmans_and_turned_to_the_better_side() -> None:
    rng = np.random.default_rng(4)
    x = {node: rng.normal(size=40) for node in "abcd"}
    z = {node: -(x[node] + 0.5 * rng.normal(size=40)) + i for i, node in enumerate("abcd")}
    estoi = table(**{node: y.tolist() for node, y in x.items()})
    scm = table("scm_db", **{node: ["timeout", *y[1:].tolist()] for node, y in z.items()})
    row = the(correlations(both(estoi, scm)))
    assert (row["metric"], row["other"], row["n_nodes"]) == ("estoi", "scm_db", 4)
    # The ranks of ESTOI count the utterance too that the other metric lacks.
    expected = np.mean(
        [-np.corrcoef(stats.rankdata(x[node])[1:], stats.rankdata(z[node][1:]))[0, 1] for node in "abcd"]
    )
    assert row["over_utterances"] == pytest.approx(expected)
    means = [x[node].mean() for node in "abcd"], [z[node][1:].mean() for node in "abcd"]
    assert row["over_nodes"] == pytest.approx(-stats.spearmanr(*means).statistic)


def test_correlations_that_mean_nothing_are_not_given() -> None:
    row = the(correlations(both(table(a=[0.5, 0.6, 0.7], b=[0.1] * 3), table("scm_db", a=[1.0] * 3, b=[2.0] * 3))))
    assert np.isnan(row["over_utterances"])
    assert np.isnan(row["over_nodes"])
    assert row["n_nodes"] == 2
