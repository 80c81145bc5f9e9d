"""What the error budget says of scores whose parts are known, and its demonstrations on a clip."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from melmill.stages.contract import Scores
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.presets import preset
from melmill.stages.report.budget.demonstrations import (
    ERROR_DB,
    bank_of_clip,
    equally_wrong,
    mel_error_db,
    shift_errors,
)
from melmill.stages.report.budget.losses import losses, scatter
from melmill.stages.report.budget.page import bars
from melmill.stages.report.budget.stage import ErrorBudget
from melmill.stages.score.metric import metric
from tests.stages.score.trust.test_damages import voice

PAPER = preset("paper")


def scores_of(levels: dict[str, float], n: int = 20) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    own = rng.standard_normal(n)
    parts = [
        pd.DataFrame(
            {
                "utterance_id": [f"u{i}" for i in range(n)], "subset": "", "speaker_id": "", "node": node,
                "duration_s": 2.0, "pesq_wb": level + 0.1 * own, "status_pesq_wb": "ok",
                "scm_db": -10 * level - own, "status_scm_db": "ok",
            }
        )
        for node, level in levels.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_losses_are_paired_and_turned_so_that_more_is_worse() -> None:
    scores = scores_of({"base": 4.6, "bank": 4.1, "floor": 4.0, "best": 3.6})
    found = {
        one.part.role: one
        for one in losses(scores, {"base": "base", "bank": "bank", "floor": "floor", "inverted": "best"})
    }
    assert list(found) == ["bank", "floor", "inverted"]
    # What a recording has of its own cancels: the interval is a point.
    assert found["bank"].losses["pesq_wb"] == pytest.approx((0.5, 0.5, 0.5))
    assert found["floor"].losses["scm_db"] == pytest.approx((1.0, 1.0, 1.0))
    assert found["inverted"].means["pesq_wb"] == pytest.approx(scores.loc[scores["node"] == "best", "pesq_wb"].mean())
    assert found["bank"].n == 20


def test_parts_without_nodes_and_recordings_without_values_are_left_out() -> None:
    scores = scores_of({"base": 4.6, "bank": 4.1})
    scores.loc[(scores["node"] == "bank") & (scores["utterance_id"] == "u3"), "status_pesq_wb"] = "too_short"
    (bank,) = losses(scores, {"base": "base", "bank": "bank", "vocoder": "voc"})
    assert bank.losses["pesq_wb"][0] == pytest.approx(0.5)


def test_the_scatter_tells_agreement_over_all_and_within() -> None:
    dots = scatter(scores_of({"a": 1.0, "b": 2.0}), "scm_db", "pesq_wb", ["a", "b"])
    assert {node: points.shape for node, points in dots.points.items()} == {"a": (20, 2), "b": (20, 2)}
    assert dots.within == pytest.approx(1.0)
    assert dots.over_all > 0.7


def test_what_the_stage_needs() -> None:
    def scored(*nodes: str) -> dict[str, list[Scores]]:
        return {"from": [Scores(metrics=("pesq_wb", "scm_db"), scored=node) for node in nodes]}

    ErrorBudget().produces(scored("base", "bank"))
    with pytest.raises(ParameterError, match="base must be a scored node, got 'base' \\(scored: bank\\)"):
        ErrorBudget().produces(scored("bank"))
    with pytest.raises(ContractError, match="none of its parts among the scored nodes \\(base\\)"):
        ErrorBudget().produces(scored("base"))
    with pytest.raises(ParameterError, match="error must be a metric of the scores, got 'mcd'"):
        ErrorBudget(error="mcd").produces(scored("base", "bank"))


def test_whole_hops_move_frames_and_nothing_else() -> None:
    errors = dict(shift_errors(voice(1.0), PAPER))
    hop = PAPER.hop_length
    assert errors[hop] < -100
    assert errors[2 * hop] < -100
    assert -100 < errors[1] < errors[hop // 4] < errors[hop // 2] < 0


def test_the_bank_keeps_as_much_as_its_rank() -> None:
    bank = bank_of_clip(voice(0.5), PAPER)
    assert np.trace(bank.product) == pytest.approx(bank.rank, rel=1e-6)
    np.testing.assert_allclose(bank.product @ bank.product, bank.product, atol=1e-8)
    assert bank.rank <= PAPER.n_mels < len(bank.product)


def test_clips_are_made_equally_wrong() -> None:
    y = voice(0.6)
    made = equally_wrong(y, PAPER)
    assert len(made) >= 3
    for name, x in made.items():
        assert mel_error_db(y, x, PAPER) == pytest.approx(ERROR_DB, abs=0.3), name


def test_a_clip_of_edges_alone_says_nothing_of_shifts() -> None:
    assert shift_errors(voice(0.05), PAPER) == []


def test_labels_stand_beyond_the_intervals() -> None:
    found = losses(
        scores_of({"base": 4.0, "bank": 3.9, "floor": 2.0}), {role: role for role in ("base", "bank", "floor")}
    )
    wide = replace(found[0], losses={**found[0].losses, "pesq_wb": (0.1, -0.4, 0.6)})
    drawn = bars([wide, found[1]], metric("pesq_wb"))
    ends = [float(x) for x in re.findall(r"H([\d.]+)", drawn)]
    labels = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="\d+">', drawn)]
    assert len(ends) == len(labels) == 2
    assert all(label > end for label, end in zip(labels, ends, strict=True))
