"""Spectral and waveform metrics: closed forms, naive formulas and the floors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.score.metric import metric
from melmill.stages.score.metrics import spectral
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Status

SPECTRAL = ("scm", "sc", "lsd", "mel_mae", "mcd", "si_sdr")


def noise(n: int = 16000, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def value(name: str, reference: NDArray[Any], estimate: NDArray[Any], spec: MelSpec | None = None) -> float:
    spec = spec or MelSpec()
    pair = Pair(
        reference=reference.astype(np.float32),
        reference_sr=spec.sr,
        estimate=estimate.astype(np.float32),
        estimate_sr=spec.sr,
        spec=spec,
    )
    measured = metric(name).measure(pair)
    assert measured.status is Status.OK
    return measured.value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scm", 20 * np.log10(0.5)),  # |0.5 M - M| = 0.5 M
        ("sc", 20 * np.log10(0.5)),
        ("lsd", 20 * np.log10(2.0)),  # every bin 6.02 dB down
        ("mel_mae", np.log(2.0)),  # every band ln 2 nepers down
        ("mcd", 0.0),  # only c_0 knows of level
        ("si_sdr", 200.0),  # deaf to scale, up to the limit
    ],
)
def test_halving_a_signal_has_a_closed_form(name: str, expected: float) -> None:
    # 0.5 is exact in binary, so that every bin is halved exactly
    assert value(name, noise(), 0.5 * noise()) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("name", "expected"), [("scm", -200), ("sc", -200), ("lsd", 0), ("mel_mae", 0), ("mcd", 0), ("si_sdr", 200)]
)
def test_identical_signals_reach_a_finite_limit(name: str, expected: float) -> None:
    assert value(name, noise(), noise()) == expected


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("preset_name", ["paper", "hifigan", "vocos_24khz"])
def test_scm_and_sc_equal_the_papers_formulas(preset_name: str, power: float) -> None:
    # eqs. 21 and 22 in float64, frames cut one by one; a log in the spec must not matter
    spec = replace(preset(preset_name), power=power)
    x, x_hat = noise(9000, 1), noise(9000, 1) + 0.3 * noise(9000, 2)
    A, A_hat = naive_magnitudes(x, spec), naive_magnitudes(x_hat, spec)
    E = mel_bank(spec).astype(np.float64)
    M, M_hat = (E @ np.sqrt(S * S + spec.eps) ** power for S in (A, A_hat))
    scm = 20 * np.log10(np.linalg.norm(M_hat - M) / np.linalg.norm(M))
    sc = 20 * np.log10(np.linalg.norm(A_hat - A) / np.linalg.norm(A))
    assert value("scm", x, x_hat, spec) == pytest.approx(scm, abs=1e-4)
    assert value("sc", x, x_hat, spec) == pytest.approx(sc, abs=1e-4)


def naive_magnitudes(y: NDArray[Any], spec: MelSpec) -> NDArray[np.float64]:
    mode: Any = spec.pad_mode
    padded = np.pad(y.astype(np.float64), spec.stft.pad, mode=mode)
    window = np.zeros(spec.n_fft)
    left = (spec.n_fft - spec.stft.win_length) // 2
    window[left : left + spec.stft.win_length] = np.hanning(spec.stft.win_length + 1)[:-1]
    starts = range(0, padded.size - spec.n_fft + 1, spec.hop_length)
    return np.stack([np.abs(np.fft.rfft(window * padded[i : i + spec.n_fft])) for i in starts], axis=1)


def test_lsd_equals_its_formula_frame_by_frame() -> None:
    rng = np.random.default_rng(3)
    A, B = rng.uniform(1, 2, (7, 5)), rng.uniform(1, 2, (7, 5))
    expected = np.mean([np.sqrt(np.mean((20 * np.log10(a / b)) ** 2)) for a, b in zip(A, B, strict=True)])
    assert spectral.log_spectral_distance_db(A, B, full_scale=1.0) == pytest.approx(expected)


def test_lsd_treats_what_is_under_its_floor_as_equal() -> None:
    silent, faint = np.zeros((2, 4)), np.full((2, 4), 0.9e-5)
    assert spectral.log_spectral_distance_db(faint, silent, full_scale=1.0) == 0.0
    louder = np.full((2, 4), 1e-4)  # 20 dB above the floor
    assert spectral.log_spectral_distance_db(louder, silent, full_scale=1.0) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (0, 0.0),  # level is left out
        (1, 0.2 * 10 / np.log(10) * np.sqrt(2)),
        (13, 0.2 * 10 / np.log(10) * np.sqrt(2)),
        (14, 0.0),  # finer than the envelope
    ],
)
def test_mcd_of_a_cosine_ripple(k: int, expected: float) -> None:
    # 0.2 cos(pi k (b + 1/2) / B) nepers is c_k = 0.2 and nothing else
    b = np.arange(80)[:, np.newaxis]
    ripple = 0.2 * np.cos(np.pi * k * (b + 0.5) / 80) * np.ones((1, 6))
    assert spectral.mel_cepstral_distortion_db(ripple, np.zeros((80, 6))) == pytest.approx(expected, abs=1e-12)


def test_log_mels_of_power_and_magnitude_share_a_unit() -> None:
    M = np.array([[1e-9, 0.5, 3.0]])
    np.testing.assert_allclose(spectral.log_mel(M**2, 2.0), spectral.log_mel(M, 1.0))
    assert spectral.log_mel(M, 1.0)[0, 0] == np.log(1e-5)


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 30.0])
def test_si_sdr_of_orthogonal_noise_is_its_snr(snr_db: float) -> None:
    rng = np.random.default_rng(0)
    s, n = rng.standard_normal(1000), rng.standard_normal(1000)
    s -= s.mean()
    n -= n.mean()
    n -= (n @ s) / (s @ s) * s
    n *= np.linalg.norm(s) / np.linalg.norm(n) * 10 ** (-snr_db / 20)
    offset = 0.7  # means are removed
    assert spectral.si_sdr_db(3.0 * (s + n) + offset, s - offset) == pytest.approx(snr_db, abs=1e-9)


def test_ratios_without_a_finite_log_are_limited() -> None:
    assert spectral.convergence_db(np.ones(3), np.zeros(3)) == 200.0
    assert spectral.convergence_db(np.zeros(3), np.zeros(3)) == -200.0
    assert spectral.convergence_db(np.zeros(3), np.ones(3)) == 0.0


@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.parametrize("preset_name", ["paper", "hifigan"])
def test_a_tenth_of_a_second_has_spectra(name: str, preset_name: str) -> None:
    spec = preset(preset_name)
    n = spec.sr // 10
    assert np.isfinite(value(name, noise(n, 1), noise(n, 2), spec))


@pytest.mark.parametrize("name", SPECTRAL)
def test_without_a_single_frame_it_is_too_short(name: str) -> None:
    spec = MelSpec(center=False)
    pair = Pair(reference=noise(1023), reference_sr=spec.sr, estimate=noise(1023, 1), estimate_sr=spec.sr, spec=spec)
    assert metric(name).measure(pair).status is Status.TOO_SHORT
