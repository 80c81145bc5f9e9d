"""M-STFT: its formula by hand, a closed form, what is too short."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.score.metrics.mstft import RESOLUTIONS, mstft
from melmill.stages.score.status import Measured, Status


def noise(n: int, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def naive(reference: NDArray[np.float32], estimate: NDArray[np.float32]) -> float:
    total = 0.0
    for n_fft, hop, win in RESOLUTIONS:
        left = (n_fft - win) // 2
        window = np.zeros(n_fft)
        window[left : left + win] = np.hanning(win + 1)[:-1]
        Y, Y_hat = (
            np.array([
                np.sqrt(np.maximum(np.abs(np.fft.rfft(window * padded[i : i + n_fft])) ** 2, 1e-8))
                for i in range(0, padded.size - n_fft + 1, hop)
            ])
            for padded in (np.pad(y.astype(float), n_fft // 2, mode="reflect") for y in (reference, estimate))
        )  # fmt: skip
        total += np.linalg.norm(Y - Y_hat) / np.linalg.norm(Y) + np.mean(np.abs(np.log(Y) - np.log(Y_hat)))
    return total / len(RESOLUTIONS)


@pytest.mark.parametrize("n", [1025, 4000, 8191, 16000])  # with and without frames that fill the last group
def test_equals_its_formula(n: int) -> None:
    reference, estimate = noise(n), noise(n) + 0.3 * noise(n, 1)
    estimate[n // 2 :] = 0.0  # bins on the floor
    assert mstft(reference, estimate).value == pytest.approx(naive(reference, estimate), rel=1e-9)


def test_identical_signals_have_no_distance() -> None:
    assert mstft(noise(8000), noise(8000)) == Measured(0.0, Status.OK)


def test_halving_a_signal_has_a_closed_form() -> None:
    # ||Y - Y / 2|| / ||Y|| + ln 2, with every bin far above the floor
    assert mstft(noise(16000), 0.5 * noise(16000)).value == pytest.approx(0.5 + np.log(2), abs=1e-5)


@pytest.mark.parametrize(("n", "status"), [(1024, Status.TOO_SHORT), (1025, Status.OK)])
def test_what_cant_be_reflected_is_too_short(n: int, status: Status) -> None:
    assert mstft(noise(n), noise(n, 1)).status is status
