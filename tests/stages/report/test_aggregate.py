"""Stage `aggregate`: its parameters, its contract and its files."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import pytest

from melmill.stages.contract import Mel, Report, Scores, Stage
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.registry import stage_class
from melmill.stages.report.contract import Tables
from melmill.stages.report.stage import Aggregate

GLA = Scores(metrics=("estoi",), scored="gla")
ADMM = Scores(metrics=("estoi",), scored="admm")


def scores_of(status: str = "ok") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "utterance_id": ["a", "b", "c"] * 2,
            "subset": "dev-clean",
            "speaker_id": ["1", "1", "2"] * 2,
            "node": ["gla"] * 3 + ["admm"] * 3,
            "duration_s": 2.0,
            "estoi": [0.5, 0.5, 0.5, 0.75, 0.75, 0.75],
            "status_estoi": "ok",
            "pesq_wb": [np.nan if status != "ok" else 2.0] * 6,
            "status_pesq_wb": status,
        }
    )


def test_aggregate_is_a_registered_stage() -> None:
    assert stage_class("aggregate") is Aggregate
    assert isinstance(Aggregate(), Stage)
    assert Aggregate(baseline="gla").identity() == {
        "baseline": "gla",
        "by": ["subset", "speaker"],
        "examples": 2,
        "title": None,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"by": ("chapter",)}, "by must hold only subset and speaker, got 'chapter'"),
        ({"by": ("subset", "subset")}, "by must name each group once"),
        ({"examples": -1}, "examples must not be negative, got -1"),
        ({"seed": -1}, "seed must not be negative, got -1"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Aggregate(**parameters)


def test_it_makes_a_report_of_scores() -> None:
    assert Aggregate(baseline="gla").produces({"from": [GLA, ADMM]}) == Report()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "needs at least one score node"),
        ({"from": [Mel(spec=MelSpec())]}, "takes scores, got mel"),
    ],
)
def test_it_takes_scores_alone(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Aggregate().produces(inputs)


def test_an_unscored_baseline_is_refused_with_the_scored_nodes() -> None:
    message = r"baseline must be a scored node, got 'glaa' \(scored: admm, gla\)"
    with pytest.raises(ParameterError, match=message) as caught:
        Aggregate(baseline="glaa").produces({"from": [GLA, ADMM]})
    assert caught.value.field == "baseline"
    with pytest.raises(ParameterError, match=message):
        Aggregate(baseline="glaa").render(Tables(scores=scores_of()))


def test_headline_is_a_row_a_node_and_a_column_a_metric() -> None:
    table = Aggregate().headline(scores_of("not_installed"))
    assert table.index.tolist() == ["gla", "admm"]
    assert table.columns.tolist() == ["ESTOI", "PESQ wide band [MOS-LQO]"]
    assert [table.at["admm", name] for name in table.columns] == ["0.750 ± 0.000", "not installed"]


def test_headline_counts_failures() -> None:
    scores = scores_of()
    scores.at[0, "pesq_wb"] = np.nan
    scores.at[0, "status_pesq_wb"] = "timeout"
    assert Aggregate().headline(scores).loc["gla", "PESQ wide band [MOS-LQO]"] == "2.00 ± 0.00 (1 failed)"


def test_render_gives_every_table_as_csv_and_parquet() -> None:
    files = Aggregate(baseline="gla").render(Tables(scores=scores_of()))
    names = [
        "convergence",
        "correlations",
        "failures",
        "paired",
        "quarantine",
        "ranks",
        "scores",
        "summary",
        "throughput",
    ]
    assert sorted(files) == sorted(["index.html", *(f"{name}.{kind}" for name in names for kind in ("csv", "parquet"))])
    for name in names:
        from_csv = pd.read_csv(BytesIO(files[f"{name}.csv"]))
        from_parquet = pd.read_parquet(BytesIO(files[f"{name}.parquet"]))
        assert from_csv.columns.tolist() == from_parquet.columns.tolist()
        assert len(from_csv) == len(from_parquet)
    paired = pd.read_parquet(BytesIO(files["paired.parquet"]))
    assert paired.set_index("metric").loc["estoi", "mean_difference"] == 0.25


def test_without_a_baseline_there_is_no_paired_table() -> None:
    assert not any(name.startswith("paired") for name in Aggregate().render(Tables(scores=scores_of())))
