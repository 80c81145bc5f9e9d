"""Loudness and true peaks are those that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.mels.loudness import integrated_loudness
from melmill.stages.prepare.loudness import Loudness, measured
from melmill.stages.prepare.true_peak import envelope, limited, true_peak
from tests.stages.prepare.test_activity import SR, pcm, planted, prepared, tone


@pytest.fixture(scope="module")
def speech() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return sound with pauses, peaks 15 dB above its loudness, and noise."""
    y = planted([(0.5, 0.8), (0.4, 1.3), (0.6, 0.0)], 1e-4) * 0.2
    y[10_000:40_000:4_000] += 0.5
    return y.astype(np.float32)


@pytest.mark.parametrize("lufs", [-36.0, -23.0, -16.0])
def test_recordings_reach_the_loudness(speech: np.ndarray[tuple[int], np.dtype[np.float32]], lufs: float) -> None:
    outcome = prepared(Loudness(lufs=lufs, true_peak_db=0.0, peaks="limit"), speech)
    (span,) = outcome.spans or ()
    assert span.array is not None
    assert integrated_loudness(span.array, SR) == pytest.approx(lufs, abs=0.1)
    assert outcome.row is not None
    assert outcome.row["lufs"] == pytest.approx(lufs, abs=0.1)


@pytest.mark.parametrize("peaks", ["lower", "limit"])
def test_no_true_peak_passes_the_limit(speech: np.ndarray[tuple[int], np.dtype[np.float32]], peaks: str) -> None:
    outcome = prepared(Loudness(lufs=-14.0, true_peak_db=-3.0, peaks=peaks), pcm(speech))  # type: ignore[arg-type]
    (span,) = outcome.spans or ()
    assert span.array is not None
    assert 20 * np.log10(true_peak(span.array / 32768.0)) <= -3.0 + 0.01
    assert outcome.row is not None
    low, high = (-40, -14.5) if peaks == "lower" else (-14.2, -13.8)
    assert low < float(outcome.row["lufs"] or 0) < high


def test_peaks_past_the_limit_are_dropped_if_asked(speech: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    (span,) = prepared(Loudness(lufs=-10.0, peaks="drop"), speech).spans or ()
    assert (span.array, span.reason) == (None, "true peak past the limit")
    assert "dB past -1 dBTP" in span.detail


def test_silence_and_what_needs_too_much_gain_are_dropped() -> None:
    (silent,) = prepared(Loudness(), np.zeros(SR, np.int16)).spans or ()
    (soft,) = prepared(Loudness(max_gain_db=10), pcm(tone(1.0, level=0.01))).spans or ()
    assert (silent.reason, soft.reason) == ("no loudness", "needs too much gain")


def test_a_recording_shorter_than_a_block_has_a_loudness() -> None:
    assert np.isfinite(measured(tone(0.1), SR))


def test_a_true_peak_lies_between_samples() -> None:
    # A sine at a quarter of the rate, sampled 45 degrees from its peaks: they are 3.01 dB above the samples.
    y = np.sin(np.pi / 2 * np.arange(400) + np.pi / 4)
    assert 20 * np.log10(envelope(y)[50:-50].max() / np.abs(y).max()) == pytest.approx(3.01, abs=0.1)


def test_a_limiter_leaves_alone_what_is_below() -> None:
    y = tone(0.5, level=0.1)
    np.testing.assert_array_equal(limited(y, SR, 0.9), y)
    y[4000] = 0.9
    made = limited(y, SR, 0.5)
    assert true_peak(made) <= 0.5 + 1e-9
    np.testing.assert_array_equal(made[:3500], y[:3500])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lufs": 3.0}, "lufs must be"),
        ({"true_peak_db": 1.0}, "true_peak_db must be"),
        ({"peaks": "clip"}, "peaks must"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        Loudness(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("sr", [16000, 44100, 48000])
def test_the_loudness_is_that_of_pyloudnorm(speech: np.ndarray[tuple[int], np.dtype[np.float32]], sr: int) -> None:
    judge = pytest.importorskip("pyloudnorm", reason="pyloudnorm judges the loudness: pip install pyloudnorm")
    y = planted([(0.5, 0.8), (0.4, 1.3), (0.6, 0.0)], 1e-4, sr) * 0.2
    (span,) = prepared(Loudness(lufs=-23.0), y.astype(np.float32), sr).spans or ()
    assert span.array is not None
    # Its filters are those of the standard at 48 kHz, remade at other rates in another way.
    assert judge.Meter(sr).integrated_loudness(span.array.astype(np.float64)) == pytest.approx(-23.0, abs=0.1)
