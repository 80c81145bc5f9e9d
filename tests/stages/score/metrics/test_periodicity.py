"""Periodicity, voicing and pitch by CREPE: voices whose pitch is known, silence, and what is too short."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.metric import METRICS, metric
from melmill.stages.score.metrics.periodicity import _a_weighting_db, loudness_db, voice
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status
from tests.stages.score.metrics.test_f0 import voice as sung

NAMES = ("periodicity", "vuv_f1", "pitch_cents")


def measure(name: str, reference: NDArray[np.float32], estimate: NDArray[np.float32], sr: int = 16000) -> Measured:
    if not METRICS[name].is_installed:
        pytest.skip("torchcrepe is not installed")
    pair = Pair(reference=reference, reference_sr=sr, estimate=estimate, estimate_sr=sr, spec=MelSpec(), cut=True)
    return metric(name).measure(pair)


def test_a_voice_is_periodic_and_in_tune() -> None:
    if not METRICS["periodicity"].is_installed:
        pytest.skip("torchcrepe is not installed")
    heard = voice(sung(np.full(8000, 200.0)))
    assert np.median(heard.periodicity) > 0.8
    assert np.median(heard.cents) == pytest.approx(1200 * np.log2(20.0), abs=20)  # a bin


def test_noise_in_place_of_a_voice() -> None:
    tone = sung(np.full(8000, 150.0))
    noise = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
    assert measure("periodicity", tone, noise).value > 0.5
    assert measure("vuv_f1", tone, noise).value < 0.5
    assert measure("periodicity", tone, tone) == measure("pitch_cents", tone, tone) == Measured(0.0, Status.OK)
    assert measure("vuv_f1", tone, tone) == Measured(1.0, Status.OK)


def test_a_frame_is_silent_by_its_a_weighted_level() -> None:
    # a bin of power P in every bin: the mean is 10 log10 P - 20 + the mean weighting
    rng = np.random.default_rng(1)
    y = np.concatenate([0.1 * rng.standard_normal(4000), 1e-4 * rng.standard_normal(4000)]).astype(np.float32)
    level_db = loudness_db(y)
    assert len(level_db) == 1 + (8000 - 1024) // 160
    expected = 10 * np.log10(0.01 * 384) - 20 + np.mean(_a_weighting_db()) - 2.5  # 2.5 dB: mean log of a power
    assert level_db[5] == pytest.approx(expected, abs=0.5)
    assert level_db[-1] == pytest.approx(expected - 60, abs=3)


def test_the_weighting_of_iec_61672() -> None:
    frequencies = np.fft.rfftfreq(1024, 1 / 16000)
    nominal = {125: -16.1, 250: -8.6, 500: -3.2, 1000: 0.0, 2000: 1.2, 4000: 1.0}
    for hz, level_db in nominal.items():
        assert _a_weighting_db()[frequencies.tolist().index(hz)] == pytest.approx(level_db, abs=0.1)
    assert _a_weighting_db()[0] == -80.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("n", "sr", "status"), [(1023, 16000, Status.TOO_SHORT), (8000, 8000, Status.UNSUPPORTED_RATE)]
)
def test_what_has_no_periodicity_says_why(name: str, n: int, sr: int, status: Status) -> None:
    y = sung(np.full(n, 150.0))
    assert measure(name, y, y, sr).status is status
