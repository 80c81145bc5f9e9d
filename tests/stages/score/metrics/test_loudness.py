"""Loudness: the standard's own numbers, its gates and what has no loudness."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.mels import loudness
from melmill.stages.numeric.mels.loudness import integrated_loudness
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.metric import metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status


def sine(duration_s: float, sr: int, level_db: float = 0.0, hz: float = 997.0) -> NDArray[np.float64]:
    return np.asarray(10 ** (level_db / 20) * np.sin(2 * np.pi * hz * np.arange(round(duration_s * sr)) / sr))


def measured(reference: NDArray[Any], estimate: NDArray[Any], sr: int) -> Measured:
    pair = Pair(
        reference=reference.astype(np.float32),
        reference_sr=sr,
        estimate=estimate.astype(np.float32),
        estimate_sr=sr,
        spec=MelSpec(),
    )
    return metric("loudness_diff").measure(pair)


@pytest.mark.parametrize("sr", [16000, 22050, 44100, 48000])
def test_a_sine_of_full_scale_has_minus_3_01(sr: int) -> None:
    # Annex 1: 0 dB FS, 997 Hz, in one channel
    assert integrated_loudness(sine(3.0, sr), sr) == pytest.approx(-3.01, abs=0.01 if sr == 48000 else 0.05)


def test_the_filters_at_48_khz_are_those_that_the_standard_prints() -> None:
    shelf, high_pass = loudness._weighting(48000)
    tables_1_and_2 = [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]
    np.testing.assert_allclose([shelf, high_pass], tables_1_and_2, atol=2e-11)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        # EBU Tech 3341, minimum requirements, in one channel and so 3.01 LU below the stereo targets
        ([(-36.0, 10.0), (-23.0, 60.0), (-36.0, 10.0)], -23.0),
        ([(-72.0, 10.0), (-36.0, 10.0), (-23.0, 60.0), (-36.0, 10.0), (-72.0, 10.0)], -23.0),
        ([(-26.0, 20.0), (-20.0, 20.1), (-26.0, 20.0)], -23.0),
    ],
)
def test_the_gates_of_ebu_tech_3341(parts: list[tuple[float, float]], expected: float) -> None:
    y = np.concatenate([sine(duration_s, 48000, level_db, hz=1000.0) for level_db, duration_s in parts])
    assert integrated_loudness(y, 48000) == pytest.approx(expected - 3.01, abs=0.1)


@pytest.mark.parametrize("sr", [16000, 22050, 48000])
def test_equal_to_pyloudnorm(sr: int) -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    rng = np.random.default_rng(0)
    swell = np.repeat(rng.uniform(0, 1, 20) ** 3, sr // 4 + 1)[: 5 * sr]  # blocks on both sides of the gate
    y = 0.1 * rng.standard_normal(5 * sr) * swell
    expected = pyloudnorm.Meter(sr, filter_class="DeMan").integrated_loudness(y)
    assert integrated_loudness(y, sr) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("gain_db", [-20.0, -6.0, 3.0])
def test_a_gain_is_its_difference(gain_db: float) -> None:
    y = sine(2.0, 16000, -12.0)
    assert measured(y, 10 ** (gain_db / 20) * y, 16000).value == pytest.approx(abs(gain_db), abs=1e-3)
    assert measured(y, y, 16000) == Measured(0.0, Status.OK)


@pytest.mark.parametrize(
    ("duration_s", "level_db", "status"),
    [(0.4, -12.0, Status.OK), (0.39, -12.0, Status.TOO_SHORT), (1.0, -80.0, Status.NO_CONTENT)],
)
def test_what_has_no_loudness_says_why(duration_s: float, level_db: float, status: Status) -> None:
    found = measured(sine(duration_s, 16000, -12.0), sine(duration_s, 16000, level_db), 16000)
    assert found.status is status
    assert math.isnan(found.value) == (status is not Status.OK)
