"""STOI and ESTOI: the reference implementation, closed forms and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.score.metrics.stoi import envelopes, estoi, stoi
from melmill.stages.score.status import Status


def voice(n: int, sr: int, seed: int = 0) -> NDArray[np.float64]:
    """Harmonics of 140 Hz in syllables with pauses."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / sr
    tone = sum(np.sin(2 * np.pi * 140 * k * t + rng.uniform(0, 6)) / k for k in range(1, 25))
    return np.asarray(0.1 * tone * np.clip(np.sin(2 * np.pi * 2.5 * t), 0, 1) + 1e-4 * rng.standard_normal(n))


def both(x: NDArray[Any], y: NDArray[Any], sr: int) -> tuple[float, float]:
    pair = envelopes(x, y, sr)
    return stoi(pair).value, estoi(pair).value


@pytest.mark.parametrize("sr", [8000, 10000, 16000, 22050, 24000, 44100])
@pytest.mark.parametrize("level", [1e-3, 0.05])
def test_equal_to_the_reference_implementation(sr: int, level: float) -> None:
    pystoi = pytest.importorskip("pystoi")
    x = voice(2 * sr + 77, sr)
    y = x + level * np.random.default_rng(1).standard_normal(x.size)
    ours = both(x, y, sr)
    assert ours[0] == pytest.approx(pystoi.stoi(x, y, sr), abs=1e-9)
    assert ours[1] == pytest.approx(pystoi.stoi(x, y, sr, extended=True), abs=1e-9)


def test_identical_signals_score_one() -> None:
    x = voice(16000, 16000)
    assert both(x, x, 16000) == pytest.approx((1.0, 1.0), abs=1e-12)


def test_the_scale_of_the_estimate_does_not_matter() -> None:
    x = voice(16000, 16000)
    y = x + 0.02 * np.random.default_rng(1).standard_normal(x.size)
    assert both(x, y, 16000) == pytest.approx(both(x, 0.125 * y, 16000), abs=1e-9)


def test_same_bytes_whatever_the_random_state() -> None:
    x = voice(16000, 16000)
    y = x + 0.02 * np.random.default_rng(1).standard_normal(x.size)
    first = both(x, y, 16000)
    np.random.seed(5)  # noqa: NPY002 - the reference implementation draws from this state
    assert both(x, y, 16000) == first


@pytest.mark.parametrize(
    ("n", "reason"),
    [
        (0, "nothing"),
        (200, "less than a frame"),
        (1600, "a tenth of a second"),
        (6000, "29 frames at most"),
    ],
)
def test_too_short_is_a_status_not_a_number(n: int, reason: str) -> None:
    x = np.random.default_rng(0).standard_normal(n)
    pair = envelopes(x, x, 16000)
    assert stoi(pair).status is Status.TOO_SHORT, reason
    assert estoi(pair).status is Status.TOO_SHORT, reason
    assert np.isnan(stoi(pair).value)


def test_pauses_do_not_count_as_speech() -> None:
    # 0.3 s of sound in 3 s: frames enough, speech too little
    x = np.zeros(48000)
    x[:4800] = voice(4800, 16000)
    assert envelopes(x, x, 16000) is None


def test_an_estimate_that_falls_silent_scores_finite() -> None:
    # Segments without any envelope have no correlation. The reference implementation fills them
    # with noise.
    x = voice(32000, 16000)
    y = np.where(np.arange(x.size) < 16000, x, 0.0)
    for score in both(x, y, 16000):
        assert 0.2 < score < 0.8
