"""MCD of WORLD's envelopes: level, filters, warping in time, and the cepstrum's closed form."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.compiled.warping import warped_distance
from melmill.stages.score.metric import metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status
from melmill.stages.score.world import CEPSTRA, CepstrumParams, _to_cepstrum
from tests.stages.score.metrics.test_f0 import GLIDE, SR, voice


def measure(name: str, reference: NDArray[np.float32], estimate: NDArray[np.float32], sr: int = SR) -> Measured:
    pytest.importorskip("pyworld")
    pair = Pair(reference=reference, reference_sr=sr, estimate=estimate, estimate_sr=sr, spec=MelSpec(), cut=True)
    return metric(name).measure(pair)


@pytest.mark.parametrize("sr", CEPSTRA)
def test_a_cepstrum_is_warped_as_its_frequencies_are(sr: int) -> None:
    # ln |H|^2 = 2 sum_k c_k cos(k warped(omega)) has the mel-cepstrum c
    params = CEPSTRA[sr]
    omega = np.linspace(0, np.pi, 1025)
    warped = omega + 2 * np.arctan2(params.warping * np.sin(omega), 1 - params.warping * np.cos(omega))
    expected = np.random.default_rng(0).standard_normal(params.order) / np.arange(1, params.order + 1)
    log_power = 0.7 + 2 * np.cos(warped[:, np.newaxis] * np.arange(1, params.order + 1)) @ expected
    np.testing.assert_allclose(log_power @ _to_cepstrum(1025, params), expected, atol=1e-6)


def test_without_warping_it_is_the_cepstrum() -> None:
    log_power = np.random.default_rng(1).standard_normal(129)
    expected = np.fft.irfft(log_power)[1:11]
    np.testing.assert_allclose(log_power @ _to_cepstrum(129, CepstrumParams(10, 0.0)), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["world_mcd", "mcd_dtw"])
def test_level_is_ignored_and_identical_signals_have_none(name: str) -> None:
    y = voice(GLIDE)
    assert measure(name, y, y) == Measured(0.0, Status.OK)
    assert measure(name, y, 0.5 * y).value < 0.05
    assert measure(name, y, np.diff(y, prepend=np.float32(0))).value > 3.0  # 6 dB an octave


def test_a_late_signal_is_warped_back() -> None:
    y = voice(np.where(np.arange(2 * SR) % 8000 < 5000, GLIDE, 0.0))
    late = np.concatenate([np.zeros(800, dtype=np.float32), y])[: y.size]
    assert measure("mcd_dtw", y, late).value < 0.4 * measure("world_mcd", y, late).value


@pytest.mark.parametrize("name", ["world_mcd", "mcd_dtw"])
@pytest.mark.parametrize(
    ("n", "sr", "status"), [(SR // 10 - 1, SR, Status.TOO_SHORT), (SR, 8000, Status.UNSUPPORTED_RATE)]
)
def test_what_has_no_envelope_says_why(name: str, n: int, sr: int, status: Status) -> None:
    noise = (0.01 * np.random.default_rng(1).standard_normal((2, n))).astype(np.float32)
    assert measure(name, noise[0], noise[1], sr).status is status


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (7, 4), (40, 53)])
def test_the_warped_distance_equals_the_full_table(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.standard_normal((n, 3)), rng.standard_normal((m, 3))
    distance = np.linalg.norm(a[:, np.newaxis] - b, axis=-1)
    best: dict[tuple[int, int], tuple[float, int]] = {(-1, -1): (0.0, 0)}
    for i in range(n):
        for j in range(m):
            before = [best[at] for at in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if at in best]
            total, steps = min(before)
            best[i, j] = total + distance[i, j], steps + 1
    total, steps = best[n - 1, m - 1]
    assert warped_distance(a, b) == pytest.approx(total / steps, rel=1e-12)
