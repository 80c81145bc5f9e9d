"""Statistics of listeners, against closed forms and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from melmill.stages.report.views.listeners import tables
from melmill.stages.score.listeners.analysis import as_plain, binomial_p, outcome, spearman
from melmill.stages.score.listeners.answers import screening
from melmill.stages.score.listeners.kinds import KINDS, REFERENCE

METRICS = ("scm_db", "pesq_wb")


def mushra(of: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """Return the ratings that listeners gave to systems, utterance by utterance."""
    rows = [
        {"listener": listener, "trial": f"{at + 1:04d}", "utterance_id": f"u{at}", "system": system, "other": "",
         "value": float(value)}
        for listener, systems in of.items() for system, values in systems.items() for at, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_who_does_not_find_the_reference_in_more_than_15_percent_is_rejected() -> None:
    # Of 20 trials: 3 low ones are 15 %, which is allowed, and 4 are 20 %. A rating of 90 is not low.
    def rated(n_low: int) -> dict[str, list[float]]:
        return {REFERENCE: [89.0] * n_low + [90.0] * (20 - n_low)}

    table = screening(mushra({"a": rated(3), "b": rated(4), "c": rated(0)})).set_index("listener")
    assert table["n_low"].to_dict() == {"a": 3, "b": 4, "c": 0}
    assert table["is_rejected"].to_dict() == {"a": False, "b": True, "c": False}


def test_rejected_listeners_are_in_no_mean() -> None:
    ratings = mushra({"a": {REFERENCE: [100, 100], "x": [40, 60]}, "b": {REFERENCE: [10, 100], "x": [0, 0]}})
    made = outcome(KINDS["mushra"], ratings)
    assert made.rejected == ["b"]
    assert made.systems.set_index("system")["mean"].to_dict() == {REFERENCE: 100, "x": 50}
    assert made.systems["ci_low"].isna().all()
    assert as_plain(made)["systems"][1] == {
        "system": "x", "n_listeners": 1, "n_ratings": 2, "mean": 50.0, "ci_low": None, "ci_high": None,
    }  # fmt: skip


def test_if_all_listeners_are_rejected_there_is_no_number() -> None:
    made = outcome(KINDS["mushra"], mushra({"a": {REFERENCE: [10], "x": [90]}}))
    assert len(made.systems) == 0
    assert made.says[0].startswith("1 of 1 listeners")
    assert made.says[-1] == "So there is no number."
    assert tables(made) == []


def test_a_listener_counts_once_however_much_he_answered() -> None:
    ratings = mushra({"a": {"x": [0.0]}, "b": {"x": [100.0] * 9}})
    assert outcome(KINDS["mushra"], ratings).systems.loc[0, "mean"] == 50


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Percentile intervals over 25 normal listeners contain the true mean in about 95 of 100 cases."""
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        said = {f"l{i}": {"x": [value]} for i, value in enumerate(60 + 10 * rng.standard_normal(25))}
        row = outcome(KINDS["mushra"], mushra(said)).systems.iloc[0]
        hits += row["ci_low"] <= 60 <= row["ci_high"]
    assert 176 <= hits <= 199  # 0.93 on average, by four standard deviations


@pytest.mark.parametrize(("correct", "n"), [(5, 10), (9, 10), (0, 7), (16, 16)])
def test_the_binomial_p_is_the_tail(correct: int, n: int) -> None:
    expected = sum(math.comb(n, k) for k in range(correct, n + 1)) / 2**n
    assert binomial_p(correct, n) == pytest.approx(expected)


def paired(answers: list[tuple[str, str, str, float]]) -> pd.DataFrame:
    """Return ratings of ``(listener, system, other, value of system)``, with the other side's row."""
    rows = []
    for at, (listener, one, other, value) in enumerate(answers):
        about = {"listener": listener, "trial": f"{at:04d}", "utterance_id": f"u{at}"}
        rows += [
            {**about, "system": one, "other": other, "value": value},
            {**about, "system": other, "other": one, "value": -value},
        ]
    return pd.DataFrame(rows)


def test_pairs_are_told_from_the_side_of_the_first_system() -> None:
    made = outcome(KINDS["cmos"], paired([("a", "x", "y", 2), ("a", "y", "x", -1), ("b", "x", "y", 1)]))
    (pair,) = made.pairs.to_dict("records")
    # a says 2 and 1, b says 1: the mean of 1.5 and 1.
    assert (pair["system"], pair["other"], pair["n_trials"], pair["mean"]) == ("x", "y", 3, 1.25)
    assert made.systems.set_index("system")["mean"].to_dict() == {"x": 1.25, "y": -1.25}
    assert math.isnan(pair["p"])


def scores(values: dict[str, list[float]], metric: str) -> pd.DataFrame:
    rows = [
        {"utterance_id": f"u{at}", "subset": "", "speaker_id": "", "node": node, metric: value,
         f"status_{metric}": "ok"}
        for node, given in values.items() for at, value in enumerate(given)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("metric", "sign"), [("pesq_wb", 1), ("scm_db", -1)])
def test_agreement_is_one_whichever_direction_is_better(metric: str, sign: int) -> None:
    heard = {"x": [10.0, 20, 30], "y": [40.0, 50, 60], "z": [70.0, 80, 90]}
    made = outcome(
        KINDS["mushra"],
        mushra({"a": heard, "b": {name: [one + 1 for one in values] for name, values in heard.items()}}),
        scores({name: [sign * one for one in values] for name, values in heard.items()}, metric),
    )
    (row,) = made.agreement.to_dict("records")
    assert (row["over_systems"], row["over_stimuli"], row["n_systems"], row["n_stimuli"]) == (1, 1, 3, 9)
    assert (row["ci_low"], row["ci_high"]) == (1, 1)


def test_told_apart_means_worse_in_abx() -> None:
    answers = [("a", "ref", name, value) for name, value in (("x", 1.0), ("y", 1.0), ("z", 0.0)) for _ in range(2)]
    ratings = paired(answers)
    ratings["value"] = ratings["value"].abs()
    quality = {"x": [1.0] * 6, "y": [1.5] * 6, "z": [4.0] * 6}
    (row,) = outcome(KINDS["abx"], ratings, scores(quality, "pesq_wb")).agreement.to_dict("records")
    assert row["over_systems"] > 0.8


def test_spearman_is_scipys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, size=(2, 40)).astype(float)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert math.isnan(spearman(np.ones(5), y[:5]))
    assert math.isnan(spearman(x[:2], y[:2]))
