"""Rules of a filter: what they measure, and what they drop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.prepare.filter import Filter, KeepRule, allowed
from melmill.stages.prepare.measures import MEASURES, Heard, value_of
from tests.stages.prepare.test_activity import SR, item, pcm, planted, prepared, tone


def heard(y: np.ndarray[Any, Any], text: str = "") -> Heard:
    return Heard(item(y, SR, text).utterance, y.astype(np.float32), SR)


def test_levels_are_measured() -> None:
    y = np.sin(2 * np.pi * 997 * np.arange(SR) / SR).astype(np.float32) * 0.5
    assert value_of("duration_s", heard(y)) == 1.0
    assert value_of("peak_db", heard(y)) == pytest.approx(-6.02, abs=0.01)
    assert value_of("rms_db", heard(y)) == pytest.approx(-9.03, abs=0.01)
    assert value_of("loudness_lufs", heard(y)) == pytest.approx(-9.03, abs=0.2)


@pytest.mark.parametrize("snr_db", [10.0, 20.0, 35.0])
def test_the_snr_is_that_of_the_noise_that_was_added(snr_db: float) -> None:
    clean = planted([(0.3, 1.0), (0.4, 1.0), (0.3, 0.0)], 0.0)
    level = np.sqrt(np.mean(clean**2)) * 10 ** (-snr_db / 20)
    noisy = clean + level * np.random.default_rng(2).standard_normal(clean.size)
    assert value_of("snr_db", heard(noisy)) == pytest.approx(snr_db, abs=1.5)


def test_silence_counts_as_the_best_snr() -> None:
    assert value_of("snr_db", heard(planted([(0.5, 0.5)], 0.0))) == 100.0


def test_flat_tops_count_as_clipped_at_any_level() -> None:
    y = tone(0.5, level=0.4)
    clipped = np.clip(y, -0.3, 0.3)
    at_top = float(np.mean(np.abs(clipped) >= 0.3))
    assert value_of("clipped_share", heard(y)) == 0.0
    assert value_of("clipped_share", heard(clipped)) == pytest.approx(at_top, rel=0.1)
    assert value_of("clipped_share", heard(0.5 * clipped)) == pytest.approx(at_top, rel=0.1)


def test_the_text_is_counted() -> None:
    one = heard(tone(2.0), "It's 5 o'clock, Ä!")
    assert value_of("n_words", one) == 4
    assert value_of("n_characters", one) == 11
    assert value_of("characters_per_s", one) == 5.5
    assert value_of("text", one) == "It's 5 o'clock, Ä!"


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_has_a_value_of_any_recording(name: str) -> None:
    for y in (np.zeros(0), np.zeros(100), tone(0.2)):
        value = value_of(name, heard(y))
        assert isinstance(value, str) == MEASURES[name].is_text


@pytest.mark.parametrize(
    ("rule", "reason", "detail"),
    [
        ({"measure": "duration_s", "at_least": 2}, "duration_s at least 2", "1"),
        ({"measure": "duration_s", "at_most": 0.5}, "duration_s at most 0.5", "1"),
        ({"measure": "rms_db", "at_most": -40}, "rms_db at most -40", ""),
        ({"measure": "text", "characters": "a-z "}, "text of 'a-z '", "has '!é'"),
        ({"measure": "text", "matches": "^x"}, "text matches '^x'", "'ab é!'"),
        ({"measure": "text", "not_matches": "[!?]"}, "text does not match '[!?]'", "has '!'"),
        ({"measure": "speaker_id", "among": ["a", "b"]}, "speaker_id among a, b", "'s'"),
        ({"measure": "speaker_id", "not_among": ["s"]}, "speaker_id not among s", "'s'"),
        ({"measure": "duration_s", "at_least": 2, "name": "too short"}, "too short", "1"),
    ],
)
def test_a_drop_names_its_rule_and_what_was_found(rule: dict[str, Any], reason: str, detail: str) -> None:
    lists: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in rule.items()}
    stage = Filter(rules=(KeepRule(measure="duration_s", at_least=0.1), KeepRule(**lists)))
    outcome = prepared(stage, pcm(tone(1.0)), text="ab é!")
    (span,) = outcome.spans or ()
    assert (span.array, span.reason) == (None, reason)
    assert detail in span.detail
    assert outcome.row is not None
    assert outcome.row["kept"] is False


def test_what_keeps_all_rules_is_kept_as_it_is() -> None:
    y = pcm(tone(1.0))
    rules = (KeepRule(measure="duration_s", at_least=0.5, at_most=2), KeepRule(measure="text", characters="a-z '"))
    (span,) = prepared(Filter(rules=rules), y, text="it's").spans or ()
    assert span.array is not None
    np.testing.assert_array_equal(span.array, y)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"measure": "duration"}, "nobody measures that; did you mean 'duration_s'"),
        ({"measure": "duration_s"}, "duration_s has no limit: add at_least or at_most"),
        ({"measure": "text", "at_least": 1}, "at_least has no use with text, which is a text"),
        ({"measure": "duration_s", "among": ("a",)}, "among has no use with duration_s, which is a number"),
        ({"measure": "duration_s", "at_least": 3, "at_most": 1}, "at_least must not pass at_most, got 3 and 1"),
        ({"measure": "text", "matches": "("}, "matches must be a regular expression"),
        ({"measure": "duration_s", "at_least": float("nan")}, "at_least must be finite"),
    ],
)
def test_bad_rules_are_refused_in_one_line(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        KeepRule(**fields)


def test_a_filter_needs_rules_and_ranges_that_are_some() -> None:
    with pytest.raises(ParameterError, match="rules must have at least one rule"):
        Filter(rules=())
    with pytest.raises(ParameterError, match="the range z-a, which ends before it begins"):
        Filter(rules=(KeepRule(measure="text", characters="z-a"),))
    assert allowed("-a-c") == {"-", "a", "b", "c"}
