"""Damages: each does what it says, ever more from step to step, and keeps length and rate."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.presets import preset
from melmill.stages.score.trust.damages import DAMAGES, damaged, steps_at

SR = 16000


def voice(seconds: float = 0.6, sr: int = SR) -> NDArray[np.float32]:
    """Harmonics of 150 Hz that fade in and out, with a little noise."""
    t = np.arange(int(seconds * sr)) / sr
    tones = sum(np.sin(2 * np.pi * 150 * k * t + k) / k for k in range(1, 40) if 150 * k < 0.45 * sr)
    noise = 0.01 * np.random.default_rng(0).standard_normal(t.size)
    return np.asarray(0.1 * np.sin(np.pi * t / t[-1]) * tones + noise * 0.1, dtype=np.float32)


def done(name: str, step: float, y: NDArray[np.float32], sr: int = SR) -> NDArray[np.float32]:
    spec = preset("paper")
    return damaged(y, sr, DAMAGES[name], step, spec, seed=3)


def error(y: NDArray[np.float32], y_hat: NDArray[np.float32]) -> float:
    return float(np.sum((y.astype(np.float64) - y_hat) ** 2) / np.sum(y.astype(np.float64) ** 2))


@pytest.mark.parametrize("name", sorted(set(DAMAGES) - {"phase", "polarity"}))
def test_every_step_does_more_than_the_one_before(name: str) -> None:
    y = voice()
    errors = [error(y, done(name, step, y)) for step in DAMAGES[name].steps]
    assert errors[0] > 0
    # A delay wraps around a period of the voice: how far it is from the recording says nothing.
    assert name == "shift" or errors == sorted(errors)


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_the_same_seed_gives_the_same_signal_of_the_same_length(name: str) -> None:
    y, step = voice(0.5), DAMAGES[name].steps[0]
    made = done(name, step, y)
    assert made.dtype == np.float32
    assert made.shape == y.shape
    assert np.isfinite(made).all()
    np.testing.assert_array_equal(made, done(name, step, y))


@pytest.mark.parametrize("name", ["noise", "buzz"])
@pytest.mark.parametrize("snr_db", [40.0, 0.0])
def test_ratios_are_as_said(name: str, snr_db: float) -> None:
    y = voice()
    assert -10 * np.log10(error(y, done(name, snr_db, y))) == pytest.approx(snr_db, abs=0.05)


def test_clipping_holds_the_share_of_samples_at_the_limit() -> None:
    y = np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    made = done("clip", 5.0, y)
    assert np.mean(np.abs(made) == np.abs(made).max()) == pytest.approx(0.05, abs=0.001)


def test_the_low_pass_takes_what_lies_above() -> None:
    t = np.arange(SR) / SR
    low, high = (np.sin(2 * np.pi * hz * t).astype(np.float32) for hz in (1000, 5000))
    middle = slice(SR // 4, 3 * SR // 4)
    np.testing.assert_allclose(done("lowpass", 3.0, low + high)[middle], low[middle], atol=1e-3)


def test_a_quantiser_of_many_levels_gives_the_signal_back() -> None:
    y = voice()
    assert error(y, done("codec", 1e6, y)) < 1e-10


def test_smearing_keeps_the_energy_of_a_steady_sound() -> None:
    y = np.random.default_rng(0).standard_normal(SR).astype(np.float32)
    assert np.std(done("smear", 120.0, y)) == pytest.approx(np.std(y), rel=0.1)


def test_what_is_not_heard_is_exact() -> None:
    y = voice()
    np.testing.assert_array_equal(done("shift", 10.0, y)[160:], y[:-160])
    np.testing.assert_allclose(done("gain", -6.0, y), y * np.float32(10**-0.3), rtol=1e-6)
    np.testing.assert_array_equal(done("polarity", 1.0, y), -y)


def test_low_rates_leave_out_filters_that_they_can_not_have() -> None:
    assert steps_at(DAMAGES["lowpass"], 16000) == (7.0, 6.0, 4.0, 3.0, 2.0, 1.0)
    assert steps_at(DAMAGES["lowpass"], 8000) == (3.0, 2.0, 1.0)
    assert steps_at(DAMAGES["noise"], 8000) == DAMAGES["noise"].steps
