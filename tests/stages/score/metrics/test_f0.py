"""Pitch metrics: closed forms, voices whose pitch is known, and what has no pitch."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.metric import metric
from melmill.stages.score.metrics.f0 import voicing_f1
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

SR = 16000
NAMES = ("log_f0_rmse", "f0_cents", "f0_corr", "f0_vuv_f1")


def voice(f0: NDArray[np.float64]) -> NDArray[np.float32]:
    """Ten harmonics of a pitch, one value a sample; 0 is silence."""
    phase = 2 * np.pi * np.cumsum(f0) / SR
    tone = sum(np.sin(k * phase) / k for k in range(1, 11))
    hiss = 1e-3 * np.random.default_rng(0).standard_normal(f0.size)
    return np.asarray(0.1 * tone * (f0 > 0) + hiss, dtype=np.float32)


def measure(name: str, reference: NDArray[np.float32], estimate: NDArray[np.float32], sr: int = SR) -> Measured:
    pytest.importorskip("pyworld")
    pair = Pair(reference=reference, reference_sr=sr, estimate=estimate, estimate_sr=sr, spec=MelSpec(), cut=True)
    return metric(name).measure(pair)


GLIDE = np.linspace(120.0, 200.0, 2 * SR)


@pytest.mark.parametrize(("name", "expected"), [("log_f0_rmse", 0), ("f0_cents", 0), ("f0_corr", 1), ("f0_vuv_f1", 1)])
def test_identical_signals(name: str, expected: float) -> None:
    assert measure(name, voice(GLIDE), voice(GLIDE)).value == pytest.approx(expected, abs=1e-12)


def test_a_voice_that_is_a_semitone_higher() -> None:
    semitone = 2 ** (1 / 12)
    assert measure("f0_cents", voice(GLIDE), voice(semitone * GLIDE)).value == pytest.approx(100.0, abs=3.0)
    assert measure("log_f0_rmse", voice(GLIDE), voice(semitone * GLIDE)).value == pytest.approx(np.log(semitone), 0.03)
    assert measure("f0_corr", voice(GLIDE), voice(semitone * GLIDE)).value == pytest.approx(1.0, abs=2e-3)


def test_pitches_that_move_apart_are_anticorrelated() -> None:
    assert measure("f0_corr", voice(GLIDE), voice(GLIDE[::-1])).value == pytest.approx(-1.0, abs=0.02)


def test_half_the_voice_lost_is_half_the_recall() -> None:
    lost = np.where(np.arange(GLIDE.size) < SR, GLIDE, 0.0)
    # frames at the edges, and some that DIO hears in the hiss
    assert measure("f0_vuv_f1", voice(GLIDE), voice(lost)).value == pytest.approx(2 / 3, abs=0.06)


def test_f1_counts_both_kinds_of_errors_alike() -> None:
    yes, no = np.ones(4, dtype=bool), np.array([True, True, False, False])
    assert voicing_f1(yes, no) == voicing_f1(no, yes) == pytest.approx(2 / 3)
    assert np.isnan(voicing_f1(~yes, ~yes))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("n", "sr", "status"),
    [(2 * SR, SR, Status.NO_CONTENT), (SR // 10 - 1, SR, Status.TOO_SHORT), (SR, 4000, Status.UNSUPPORTED_RATE)],
)
def test_what_has_no_pitch_says_why(name: str, n: int, sr: int, status: Status) -> None:
    ramp = np.linspace(-0.1, 0.1, n, dtype=np.float32)
    assert measure(name, ramp, 0.5 * ramp, sr).status is status
