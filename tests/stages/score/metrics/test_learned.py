"""Learned metrics: what they hear of noise and of other voices, and what is too short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.metric import METRICS, metric
from melmill.stages.score.networks.speechmos import _windows
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status
from tests.stages.score.metrics.golden import golden_pairs

ALONE = ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808", "plcmos", "distillmos", "wer")
BOTH = ("speaker_similarity", "visqol", "visqol_audio", "zimtohrli")


def measure(
    name: str, reference: NDArray[np.float32] | None, estimate: NDArray[np.float32], text: str = ""
) -> Measured:
    tried = metric(name)
    if not tried.is_installed:
        pytest.skip(f"{tried.package} or {tried.runtime} is not installed")
    pair = Pair(
        reference=reference,
        reference_sr=16000,
        estimate=estimate,
        estimate_sr=16000,
        spec=MelSpec(),
        cut=True,
        text=text,
    )
    return tried.measure(pair)


@pytest.fixture(scope="module")
def speech(real_data: Path) -> tuple[NDArray[np.float32], str]:
    one = golden_pairs(real_data)[0]
    return one.pair.at(16000)[0], one.text


@pytest.mark.real
@pytest.mark.parametrize("name", [name for name in ALONE if name != "dnsmos_sig"])  # which hears speech alone
def test_noise_lowers_an_opinion(speech: tuple[NDArray[np.float32], str], name: str) -> None:
    y, text = speech
    noise = (0.03 * np.random.default_rng(0).standard_normal(y.size)).astype(np.float32)
    clean, noisy = measure(name, None, y, text), measure(name, None, y + noise, text)
    assert clean.status is noisy.status is Status.OK
    assert METRICS[name].sign * (clean.value - noisy.value) > 0.05


@pytest.mark.real
@pytest.mark.parametrize("name", BOTH)
def test_noise_sets_two_signals_apart(speech: tuple[NDArray[np.float32], str], name: str) -> None:
    y, _ = speech
    noise = (0.03 * np.random.default_rng(0).standard_normal(y.size)).astype(np.float32)
    same, noisy = measure(name, y, y), measure(name, y, y + noise)
    assert METRICS[name].sign * (same.value - noisy.value) > 1e-3
    if name == "speaker_similarity":
        assert same.value == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", [*ALONE, *BOTH])
def test_a_tenth_of_a_word_is_too_short(name: str) -> None:
    y = (0.1 * np.random.default_rng(0).standard_normal(1500)).astype(np.float32)
    assert measure(name, y, y, "word").status is Status.TOO_SHORT


@pytest.mark.parametrize(
    ("duration_s", "n_windows"),
    [
        (4.0, 6),  # twice doubled: 16 s
        (5.0, 1),  # doubled: 10 s
        (9.01, 1),
        (12.5, 3),  # the last whole window is left out
    ],
)
def test_dnsmos_windows(duration_s: float, n_windows: int) -> None:
    y = np.random.default_rng(0).uniform(-2, 2, round(duration_s * 16000)).astype(np.float32)
    windows = _windows(y)
    assert abs(len(windows) - n_windows) <= 1  # some are left out by their rounded ends
    assert windows.shape[1] == 144160
    np.testing.assert_array_equal(windows[0][: y.size], np.clip(y, -1, 1)[:144160])
