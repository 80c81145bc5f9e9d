"""Facts about recordings, and what is found by them: faults that are planted, and none where there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from melmill.stages.contract.products import Mel, Waveform
from melmill.stages.extract.lint.card import CorpusCard
from melmill.stages.extract.lint.facts import bandwidth, clipped_runs, facts, hum, levels
from melmill.stages.extract.lint.findings import KINDS, Rules, findings, letters
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.presets import preset
from melmill.stages.numeric.resample import resample

SR = 16000


def speech_like(seed: int = 0, duration_s: float = 3.0, sr: int = SR) -> NDArray[np.float32]:
    """Return syllables of harmonics and hiss with pauses, over a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * sr)) / sr
    points = max(4, int(duration_s * 8))
    loud = np.interp(t, np.linspace(0, duration_s, points), np.maximum(rng.uniform(-0.5, 1, points), 0))
    loud *= (t > 0.15) & (t < duration_s - 0.25)
    f0 = np.interp(t, np.linspace(0, duration_s, points), rng.uniform(90, 250, points))
    phase = 2 * np.pi * np.cumsum(f0) / sr
    y = sum(np.sin(k * phase) / k for k in range(1, 12)) * 0.1 * loud
    hiss = rng.normal(0, 0.03, t.size) * np.roll(loud, sr // 10)
    return np.asarray(y + hiss + rng.normal(0, 3e-4, t.size), dtype=np.float32)


def planted(kind: str) -> NDArray[np.float32]:
    """Return a recording with a fault."""
    y, t = speech_like(), np.arange(3 * SR) / SR
    if kind == "clipped":
        return np.clip(y, -0.3 * np.abs(y).max(), 0.3 * np.abs(y).max())
    if kind == "band_limited":
        return resample(resample(y, SR, 8000), 8000, SR)[: y.size]
    if kind == "hum":
        return np.asarray(y + sum(4e-3 / k * np.sin(2 * np.pi * 50 * k * t) for k in range(1, 5)), dtype=np.float32)
    if kind == "noisy":
        return np.asarray(y + np.random.default_rng(1).normal(0, 0.05, y.size), dtype=np.float32)
    if kind == "silent":
        return np.concatenate([y[: SR // 2], np.random.default_rng(1).normal(0, 1e-4, 5 * SR)]).astype(np.float32)
    if kind == "offset":
        return y + np.float32(0.05)
    assert kind == "level"
    return y * np.float32(0.05)


def table(recordings: dict[str, NDArray[Any]], texts: dict[str, str] | None = None) -> pd.DataFrame:
    """Return what `inspect` and the catalogue say of recordings."""
    rows = [
        {
            "utterance_id": name,
            "speaker_id": "",
            "text": (texts or {}).get(name, ""),
            "duration_s": y.size / SR,
            "rate_hz": SR,
            **facts(y, SR),
        }
        for name, y in recordings.items()
    ]
    return pd.DataFrame(rows)


NOBODY = pd.DataFrame(columns=["utterance_id", "reason"])


@pytest.fixture(scope="module")
def clean() -> pd.DataFrame:
    return table({f"c{i}": speech_like(i) for i in range(9)})


def test_what_is_clean_is_not_accused(clean: pd.DataFrame) -> None:
    assert findings(clean, NOBODY, Rules()).empty


@pytest.mark.parametrize("kind", ["clipped", "band_limited", "hum", "noisy", "silent", "offset", "level"])
def test_a_planted_fault_is_found(clean: pd.DataFrame, kind: str) -> None:
    found = findings(pd.concat([clean, table({"bad": planted(kind)})], ignore_index=True), NOBODY, Rules())
    assert ("bad", kind) in set(zip(found["utterance_id"], found["kind"], strict=True))
    assert set(found["utterance_id"]) == {"bad"}


def test_texts_that_fit_other_audio_are_found() -> None:
    recordings = {f"u{i}": speech_like(i, 1.0 + 0.4 * i) for i in range(12)}
    texts = {name: "abcde " * round(2.6 * facts(y, SR)["active_s"]) for name, y in recordings.items()}  # type: ignore[operator]
    assert findings(table(recordings, texts), NOBODY, Rules()).empty
    texts["u1"], texts["u11"] = texts["u11"], texts["u1"]
    found = findings(table(recordings, texts), NOBODY, Rules())
    assert set(zip(found["utterance_id"], found["kind"], strict=True)) == {("u1", "text"), ("u11", "text")}
    assert "letters/s of speech" in found["detail"][0]
    del texts["u5"]
    assert ("u5", "no_text") in set(
        findings(table(recordings, texts), NOBODY, Rules())[["utterance_id", "kind"]].itertuples(index=False, name=None)
    )


def test_a_file_that_was_refused_is_a_finding(clean: pd.DataFrame) -> None:
    refused = pd.DataFrame({"utterance_id": ["c3"], "reason": ["not audio"]})
    found = findings(clean, refused, Rules())
    assert found.to_dict("records") == [
        {"utterance_id": "c3", "kind": "unreadable", "severity": 1.0, "detail": "not audio"}
    ]
    assert set(found["kind"]) <= set(KINDS)


def test_levels_are_those_of_the_signal() -> None:
    t = np.arange(SR) / SR
    x = np.concatenate([np.zeros(SR), 0.5 * np.sin(2 * np.pi * 440 * t), np.zeros(SR // 2)])
    found = levels(x, SR)
    assert found.level_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.05)
    assert (found.noise_db is None) or found.noise_db == pytest.approx(found.level_db, abs=0.1)
    assert (found.lead_s, found.active_s, found.tail_s) == pytest.approx((1.0, 1.0, 0.5), abs=0.021)


def test_the_edge_of_a_band_is_found() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * SR)
    edge_hz, cliff_db = bandwidth(np.asarray(resample(resample(noise, SR, 8000), 8000, SR), dtype=np.float64), SR)
    assert edge_hz == pytest.approx(3700, abs=400)
    assert cliff_db is not None
    assert cliff_db > 40
    whole = bandwidth(noise, SR)
    assert whole[1] is not None
    assert whole[1] < 5
    assert bandwidth(noise[:500], SR) == (None, None)


@pytest.mark.parametrize("hz", [50, 60])
def test_hum_is_measured(hz: int) -> None:
    t = np.arange(4 * SR) / SR
    y = speech_like(3, 4.0) + 0.01 * np.sin(2 * np.pi * hz * t)
    found = hum(y, SR)
    assert found is not None
    assert (found.hz, found.stands_out) == (hz, True)
    assert found.level_db == pytest.approx(20 * np.log10(0.01 / np.sqrt(2)), abs=1.5)
    assert hum(y[:SR], SR) is None


def test_tones_are_not_clipped() -> None:
    for hz in (50.0, 200.0, 997.0):
        y = 0.9 * np.sin(2 * np.pi * hz * np.arange(SR) / SR)
        assert clipped_runs(np.rint(y * 32768) / 32768) == 0
        assert clipped_runs(np.clip(y, -0.5, 0.5)) > 50


def test_letters_are_counted() -> None:
    assert (letters("Don't panic, 42!"), letters("日本 語"), letters("")) == (11, 3, 0)


# Fields of the card, and what is said of them.
@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"players": -1}, "players"),
        ({"rate_factor": 1.0}, "rate_factor"),
        ({"active_share": 2.0}, "active_share"),
        ({"clipped_runs": 0}, "clipped_runs"),
    ],
)
def test_bad_rules_are_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ParameterError, match=problem):
        CorpusCard(**fields)


def test_a_card_takes_inspections() -> None:
    with pytest.raises(ContractError, match="corpus_card takes inspections, got mel"):
        CorpusCard().produces({"from": [Mel(spec=preset("paper"))]})
    with pytest.raises(ContractError, match="got waveform"):
        CorpusCard().produces({"from": [Waveform(sr=SR)]})
