"""Magnitudes from mels: attained mels are met, unattainable ones as closely as can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.magnitude import estimate_magnitude
from melmill.stages.numeric.filterbank import Bank, bank_of
from melmill.stages.numeric.lanes.sweep import from_lanes, to_lanes
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.solver import MagnitudeStart
from melmill.stages.numeric.stft import Stft

SPECS = [
    pytest.param(MelSpec(), id="Slaney bands"),
    pytest.param(MelSpec(norm=None), id="peaks of 1"),
    pytest.param(MelSpec(htk=True, fmin=60, fmax=7600), id="HTK bands in part of the range"),
    pytest.param(MelSpec(sr=44100, n_mels=128, fmax=22050), id="a bank without full rank"),
]


def estimate(M: NDArray[np.floating], bank: Bank, how: MagnitudeStart) -> NDArray[np.float32]:
    """Return the magnitude (n_bins, n_frames) of a mel (n_mels, n_frames)."""
    return from_lanes(estimate_magnitude(to_lanes(M.astype(np.float32)), bank, how), M.shape[1])


def misfit_db(Y: NDArray[np.float32], M: NDArray[np.float32], E: NDArray[np.float64]) -> float:
    return float(20 * np.log10(np.linalg.norm(E @ Y - M) / np.linalg.norm(M)))


@pytest.mark.filterwarnings("ignore::melmill.stages.numeric.errors.EmptyBandWarning")
@pytest.mark.parametrize("spec", SPECS)
def test_nnls_meets_the_mel_of_a_signal(spec: MelSpec, voice: NDArray[np.float32]) -> None:
    bank = bank_of(spec)
    M = (bank.E @ np.abs(Stft(spec.stft).forward(voice)).T).astype(np.float32)
    Y = estimate(M, bank, "nnls")
    assert Y.min() >= 0
    assert misfit_db(Y, M, bank.E) < -50
    assert misfit_db(estimate(M, bank, "pinv"), M, bank.E) > misfit_db(Y, M, bank.E) + 10


def test_nnls_of_an_unattainable_mel_nears_the_active_set_method() -> None:
    bank = bank_of(MelSpec())
    M = np.zeros((3, 80), dtype=np.float32)
    M[0, 40], M[1, 10], M[2, [5, 70]] = 1, 1, (1, 2)  # a wide band alone, without its neighbours
    E = bank.E
    weight = 1 / np.linalg.norm(E, axis=1)
    for row, Y in zip(M, estimate(M.T, bank, "nnls").T, strict=True):
        _, least = scipy.optimize.nnls(weight[:, np.newaxis] * E, weight * row)
        misfit = np.linalg.norm(weight * (E @ Y - row))
        assert least <= misfit <= least + 0.05 * np.linalg.norm(weight * row)


def test_pinv_is_the_least_norm_solution() -> None:
    bank = bank_of(MelSpec())
    M = np.abs(np.random.default_rng(0).standard_normal((80, 2))).astype(np.float32)
    expected = np.maximum(np.linalg.lstsq(bank.E, M, rcond=None)[0], 0)
    np.testing.assert_allclose(estimate(M, bank, "pinv"), expected, atol=1e-5 * expected.max())


def test_power_mels_give_magnitudes() -> None:
    bank = bank_of(MelSpec())
    M = np.abs(np.random.default_rng(0).standard_normal((80, 2))).astype(np.float32)
    np.testing.assert_allclose(
        estimate(M, replace(bank, power=2.0), "nnls") ** 2, estimate(M, bank, "nnls"), rtol=1e-5, atol=1e-30
    )


def test_silence_stays_silence() -> None:
    M = np.zeros((80, 2), dtype=np.float32)
    assert not estimate(M, bank_of(MelSpec(power=2.0)), "nnls").any()
