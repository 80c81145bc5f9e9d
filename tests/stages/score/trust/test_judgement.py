"""What is said of a metric, on metrics whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from melmill.stages.score.trust.damages import DAMAGES
from melmill.stages.score.trust.judgement import FEWEST, cell, judged, overall
from melmill.stages.score.trust.measuring import ROUNDED, UNDAMAGED, rounded

Answer = Callable[[str, int, np.random.Generator], float]


def rows_of(answer: Answer, column: str = "pesq_wb", n: int = 10) -> pd.DataFrame:
    """Rows of a metric that answers by damage and place of the step; 0 is the recording itself."""
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        rows.append((f"u{i}", UNDAMAGED, 0.0, answer(UNDAMAGED, 0, rng)))
        for name, damage in DAMAGES.items():
            rows += [(f"u{i}", name, step, answer(name, at, rng)) for at, step in enumerate(damage.steps, start=1)]
    frame = pd.DataFrame(rows, columns=["utterance_id", "damage", "step", column])
    frame[f"status_{column}"] = np.where(frame[column].isna(), "error", "ok")
    return frame


def perfect(damage: str, at: int, rng: np.random.Generator) -> float:
    heard = damage != UNDAMAGED and DAMAGES[damage].expected == "worse"
    return 4.0 - 0.5 * at * heard + 0.001 * rng.random()


def of(table: pd.DataFrame, damage: str) -> dict[str, object]:
    (row,) = table[table["damage"] == damage].to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_a_perfect_metric_is_right_everywhere_and_moved_by_nothing() -> None:
    table = judged(rows_of(perfect))
    assert list(table["damage"]) == list(DAMAGES)
    heard = table[table["expected"] == "worse"]
    assert set(heard["verdict"]) == {"right"}
    assert heard["correlation"].to_numpy() == pytest.approx(1.0)
    assert [DAMAGES[name].steps[0] for name in heard["damage"]] == heard["smallest"].tolist()
    assert (heard["n_told"] == heard["n_steps"]).all()
    assert set(table.loc[table["expected"] == "same", "verdict"]) == {"same"}
    (whole,) = overall(table).to_dict("records")
    assert (whole["n_right"], whole["n_damages"]) == (7, 7)
    assert (whole["told"], whole["n_unmoved"], whole["moved_by"]) == (1.0, 3, "")


def test_directions_follow_the_metric() -> None:
    table = judged(rows_of(lambda *given: -perfect(*given), column="mcd_db"))
    assert set(table.loc[table["expected"] == "worse", "verdict"]) == {"right"}
    turned = judged(rows_of(lambda *given: -perfect(*given)))
    assert set(turned.loc[turned["expected"] == "worse", "verdict"]) == {"wrong"}
    assert cell(of(turned, "noise")) == "wrong way"


def test_a_metric_that_hears_nothing_is_deaf() -> None:
    table = judged(rows_of(lambda damage, at, rng: 3.0 + rng.standard_normal()))
    noise = of(table, "noise")
    assert noise["verdict"] == "deaf"
    assert cell(noise) == "deaf"
    assert abs(float(str(noise["correlation"]))) < 0.5


def test_the_smallest_step_is_where_all_that_follow_are_told() -> None:
    def answer(damage: str, at: int, rng: np.random.Generator) -> float:
        return 4.0 - (1.0 if at >= 3 else 0.0)

    noise = of(judged(rows_of(answer)), "noise")
    assert noise["smallest"] == DAMAGES["noise"].steps[2]
    assert noise["n_told"] == 1
    assert "from 30 dB" in cell(noise)


def test_an_inaudible_change_is_said_in_noise_that_costs_as_much() -> None:
    def answer(damage: str, at: int, rng: np.random.Generator) -> float:
        if damage == "noise":
            return 4.0 - 0.1 * 2.0**at + 0.001 * rng.random()
        return 4.0 - (0.4 if damage == "shift" else 0.0) + 0.001 * rng.random()

    table = judged(rows_of(answer))
    shift = of(table, "shift")
    assert shift["verdict"] == "moves"
    # 0.4 is what the second step of noise, 40 dB, costs.
    assert shift["as_noise"] == pytest.approx(40.0, abs=0.2)
    assert cell(shift) == "as noise at 40 dB"
    assert overall(table)["moved_by"].tolist() == ["shift"]


def test_a_change_below_the_last_digit_is_none() -> None:
    def answer(damage: str, at: int, rng: np.random.Generator) -> float:
        return 4.0 - (1e-9 * at if damage == "gain" else 0.0)

    assert of(judged(rows_of(answer)), "gain")["verdict"] == "same"


def test_a_change_below_that_of_rounding_is_none() -> None:
    def answer(damage: str, at: int, rng: np.random.Generator) -> float:
        return 200.0 - {"gain": 48.0, "shift": 190.0}.get(damage, 0.0) + 0.001 * rng.random()

    rows = rows_of(answer, column="si_sdr_db")
    assert of(judged(rows), "gain")["verdict"] == "moves"
    bits = rows[rows["damage"] == UNDAMAGED].assign(damage=ROUNDED, si_sdr_db=66.0)
    table = judged(pd.concat([rows, bits], ignore_index=True))
    assert of(table, "gain")["verdict"] == "same"
    assert of(table, "shift")["verdict"] == "moves"
    assert ROUNDED not in set(table["damage"])


def test_rounding_has_the_error_of_16_bits() -> None:
    y = np.linspace(-0.5, 0.5, 16_000, dtype=np.float32)
    error = 2.0**15 * (rounded(y, 3).astype(np.float64) - y)
    assert np.abs(error).max() < 0.51
    assert float(np.std(error)) == pytest.approx(12**-0.5, rel=0.02)


def test_too_few_values_are_no_verdict() -> None:
    table = judged(rows_of(lambda damage, at, rng: math.nan))
    assert set(table["verdict"]) == {"no value"}
    assert set(table["n"]) == {0}
    assert overall(table).empty
    assert set(judged(rows_of(perfect, n=FEWEST - 1))["verdict"]) == {"no value"}


def test_recordings_without_some_value_do_not_count() -> None:
    rows = rows_of(perfect)
    rows.loc[(rows["utterance_id"] == "u3") & (rows["damage"] == "buzz") & (rows["step"] == 20.0), "pesq_wb"] = np.nan
    table = judged(rows)
    assert of(table, "buzz")["n"] == 9
    assert of(table, "noise")["n"] == 10
