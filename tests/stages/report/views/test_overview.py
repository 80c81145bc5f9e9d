"""The matrices at the top of a page: ranks by all metrics, and which metrics agree."""

from __future__ import annotations

import numpy as np

from melmill.stages.report.contract import Tables
from melmill.stages.report.tables import Results, results
from melmill.stages.report.views.overview import correlation_matrix, grouped, rank_matrix
from tests.stages.report.test_ranking import both
from tests.stages.report.test_statistics import table


def made() -> Results:
    y = np.random.default_rng(0).normal(size=40)
    jitter = np.tile([0.1, -0.1], 20)
    estoi = table(worst=(y - 1).tolist(), even=(y - 0.01 + jitter).tolist(), best=y.tolist())
    scm = table("scm_db", worst=(5 - y).tolist(), even=(2 - y).tolist(), best=(3 - y).tolist())
    return results(Tables(scores=both(estoi, scm)), by=(), baseline=None, seed=0)


def test_ranks_are_ranges_and_the_best_node_comes_first() -> None:
    matrix = rank_matrix(made())
    assert matrix is not None
    assert [(name, [cell.text for cell in cells]) for name, cells in matrix.rows] == [
        ("even", ["1–2", "1", "1.2"]),
        ("best", ["1–2", "2", "1.8"]),
        ("worst", ["3", "3", "3.0"]),
    ]
    assert [cell.shade for cell in matrix.rows[2][1]] == ["good0", "good0", ""]
    assert matrix.rows[0][1][1].shade == "good5"
    assert "over 40 utterances that all have" in matrix.rows[0][1][0].hint
    assert matrix.columns == ["ESTOI ↑", "SCM ↓"]


def test_one_node_has_no_ranks_and_one_metric_agrees_with_nothing() -> None:
    alone = results(Tables(scores=table(only=[0.5, 0.6])), by=(), baseline=None, seed=0)
    assert rank_matrix(alone) is None
    assert correlation_matrix(alone.correlations) is None


def test_agreement_is_below_and_above_the_diagonal() -> None:
    matrix = correlation_matrix(made().correlations)
    assert matrix is not None
    (_, first), (_, second) = matrix.rows
    # SCM falls where ESTOI rises, so they agree on utterances; on nodes they agree but for a swap.
    assert (second[0].text, second[0].shade) == ("1.00", "good5")
    assert (first[1].text, first[1].shade) == (".50", "good2")
    assert first[0].text == second[1].text == "·"
    assert first[1].hint == "ESTOI and SCM, over 3 nodes: 0.500"


def test_metrics_are_grouped_in_the_order_of_the_page() -> None:
    groups = grouped(["scm_db", "estoi", "scm_db"])
    assert [(title, [one.name for one in members]) for title, members in groups] == [("Signal", ["scm", "estoi"])]
