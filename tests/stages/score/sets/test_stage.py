"""The stage `set_score`: embeddings, statuses, what is refused, and what tables make of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from melmill.stages.contract import Item, Outcome, Waveform
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.score.metric import metric
from melmill.stages.score.predictor import Predictor
from melmill.stages.score.sets.embeddings import MOST_PARTS, log_mel, thinned
from melmill.stages.score.sets.stage import SetScore
from melmill.stages.score.sets.values import as_failures, as_summary, embedded_set, set_values
from melmill.stages.score.stage import Score, score
from tests.stages.score.test_pairing import utterance

SR = 16000
PRODUCTS = {"from": Waveform(node="made", sr=SR), "against": Waveform(node="speech", sr=SR)}


def noise(seconds: float, seed: int = 0, sr: int = SR) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * sr))).astype(np.float32)


def item(name: str = "u0", **inputs: NDArray[Any]) -> Item:
    ports = {port.replace("from_", "from"): y for port, y in inputs.items()}
    return Item(utterance=utterance(f"{name}.wav"), inputs=ports, seed=0)


def outcome(one: Item, stage: SetScore | None = None, **products: Waveform) -> Outcome:
    made = {**PRODUCTS, **products}
    (found,) = (stage or SetScore()).process(
        [one], made, (stage or SetScore()).produces({p: [w] for p, w in made.items()})
    )
    return found


def test_log_mel_has_a_part_each_half_second() -> None:
    y = noise(3.0)
    parts = log_mel(y)
    assert parts.shape == (5, 80)
    assert log_mel(y[:8000]).shape == (1, 80)
    # Another level moves the means of all bands alike, and no deviation.
    louder = log_mel(2 * y)
    np.testing.assert_allclose(louder[:, :40] - parts[:, :40], np.log(2), atol=1e-4)
    np.testing.assert_allclose(louder[:, 40:], parts[:, 40:], atol=1e-4)


def test_long_recordings_keep_parts_at_even_steps() -> None:
    kept = thinned(np.arange(100, dtype=np.float32)[:, np.newaxis])
    assert len(kept) == MOST_PARTS
    assert (kept[0], kept[-1]) == (0, 99)
    assert set(np.diff(kept[:, 0])) <= {3, 4}


def test_both_sides_are_embedded() -> None:
    found = outcome(item(against=noise(1.5), from_=noise(1.0, seed=1)))
    assert found.row == {"status": "ok"}
    assert found.trace is not None
    assert found.trace["side"].tolist() == ["reference", "reference", "estimate"]
    np.testing.assert_array_equal(found.trace["e0"], [*log_mel(noise(1.5))[:, 0], log_mel(noise(1.0, seed=1))[0, 0]])


@pytest.mark.parametrize(
    ("inputs", "sr", "status"),
    [
        ({}, SR, ""),  # not of the sample
        ({"against": noise(1.0)}, SR, "missing_estimate"),
        ({"against": noise(1.0), "from_": np.zeros(SR, np.float32)}, SR, "silent_estimate"),
        ({"against": np.zeros(SR, np.float32), "from_": noise(1.0)}, SR, "silent_reference"),
        ({"against": noise(1.0), "from_": noise(0.1)}, SR, "too_short"),
        ({"against": noise(1.0), "from_": np.full(SR, np.nan, np.float32)}, SR, "non_finite"),
        ({"against": noise(1.0), "from_": noise(2.0)}, 8000, "unsupported_rate"),
    ],
)
def test_statuses(inputs: dict[str, Any], sr: int, status: str) -> None:
    made: dict[str, Any] = {"from": Waveform(node="made", sr=sr)}
    found = outcome(item(**inputs), **made)
    assert (found.row, found.trace) == ({"status": status}, None)


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    found = outcome(item(against=noise(1.0), from_=noise(1.0)), SetScore(embedding="speaker"))
    assert found.row == {"status": "not_installed"}
    assert SetScore(embedding="speaker").identity()["installed"] is False


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metrics": ("sc",)}, "metrics names 'sc', which has a value for each recording"),
        ({"embedding": "vggish"}, "embedding must be one of log_mel, speaker, got 'vggish'"),
        ({"utterances": 1}, "utterances must"),
        ({"preset": "hifigan"}, "preset has no use here"),
        ({"predictors": {"log_mel": Predictor(file="a", sr=SR)}}, "predictors calls a program 'log_mel', which is an"),
        (
            {"predictors": {"mine": Predictor(file="a", sr=SR)}},
            "predictors 'mine' has no use: name it as the embedding",
        ),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(message)):
        SetScore(**fields)


def test_a_set_needs_recordings() -> None:
    with pytest.raises(ContractError, match="name their node at 'against'"):
        SetScore().produces({"from": [PRODUCTS["from"]]})


def test_other_stages_refuse_its_metrics() -> None:
    with pytest.raises(ParameterError, match=re.escape("names 'fad', which has one value for a whole set")):
        Score(metrics=("fad",))
    with pytest.raises(ParameterError, match="score folders"):
        score(noise(1.0), noise(1.0), SR, ["kad"])


def tables(n: int, failed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [{"utterance_id": f"u{i}", "status": "ok"} for i in range(n)]
    rows += [{"utterance_id": f"lost{i}", "status": "silent_estimate"} for i in range(failed)]
    rows.append({"utterance_id": "other", "status": ""})
    rng = np.random.default_rng(n)
    trace = pd.DataFrame(
        [{"utterance_id": f"u{i}", "side": side} for i in range(n) for side in ("reference", "reference", "estimate")]
    )
    for k in range(3):
        trace[f"e{k}"] = rng.standard_normal(len(trace)) + (trace["side"] == "estimate" if n else 0)
    return pd.DataFrame(rows), trace


def test_values_have_counts_and_intervals() -> None:
    table, trace = tables(20, failed=2)
    one = embedded_set(table, trace, node="gla", embedding="log_mel", metrics=["fad", "kad"])
    assert (one.reference.n_recordings, len(one.reference.parts), len(one.estimate.parts)) == (20, 40, 20)
    values = set_values([one], seed=0).set_index("metric")
    assert values.index.tolist() == ["fad", "fad_inf", "kad"]  # the bias is said wherever FAD is
    assert set(values["status"]) == {"ok"}
    assert values["n"].tolist() == [20] * 3
    assert values["n_failed"].tolist() == [2] * 3
    low, value, high = (values[name].astype(float)["kad"] for name in ("ci_low", "value", "ci_high"))
    assert low < value < high
    whole = as_summary(set_values([one], seed=0))
    assert whole["metric"].tolist() == ["fad_log_mel", "fad_inf_log_mel", "kad_log_mel"]
    assert metric("fad_inf_log_mel").title == "FAD∞, log_mel"
    lost = as_failures([one], set_values([one], seed=0))
    assert lost[["metric", "status", "n"]].iloc[0].tolist() == ["fad_log_mel", "silent_estimate", 2]


@pytest.mark.parametrize("n", [0, 1])
def test_a_set_of_too_few_has_no_value(n: int) -> None:
    table, trace = tables(n)
    one = embedded_set(table, trace, node="gla", embedding="log_mel", metrics=["fad"])
    values = set_values([one], seed=0)
    assert values["status"].tolist() == ["too_few"] * 2
    assert values["value"].isna().all()
    assert as_summary(values)["n"].tolist() == [0, 0]
    assert set(as_failures([one], values)["status"]) == {"too_few"}
