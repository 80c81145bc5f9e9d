"""Phase-gradient heap integration on signals whose phase is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.dsp.melspec import StftParams
from melmill.stages.dsp.phase import pghi, random_phase, signal_phase, zero_phase
from melmill.stages.dsp.projection import Projection
from melmill.stages.dsp.stft import Stft

SR = 16000
PARAMS = StftParams(n_fft=1024, win_length=1024, hop_length=256)


def wrapped(phase: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(np.angle(np.exp(1j * phase)))


def inconsistency_db(X: NDArray[np.complex128], projection: Projection) -> float:
    """Return how far a spectrum is from any signal's, dB."""
    return float(20 * np.log10(np.linalg.norm(projection(X) - X) / np.linalg.norm(X)))


@pytest.mark.parametrize("frequency", [440.0, 1234.5, 6000.0])
def test_a_tone_advances_by_its_frequency(frequency: float) -> None:
    y = np.sin(2 * np.pi * frequency * np.arange(SR) / SR)
    Y = np.abs(Stft(PARAMS, np.float64).forward(y))
    peak = round(frequency * PARAMS.n_fft / SR)
    advance = np.diff(pghi(Y, PARAMS, 0)[:, peak])[4:-4]
    expected = 2 * np.pi * frequency * PARAMS.hop_length / SR
    np.testing.assert_allclose(wrapped(advance - expected), 0, atol=0.15)


@pytest.mark.parametrize("offset", [-150, 0, 200])
def test_a_click_has_linear_phase_over_the_bins(offset: int) -> None:
    y = np.zeros(4096)
    y[2048 + offset] = 1  # `offset` samples off the centre of frame 8
    Y = np.abs(Stft(PARAMS, np.float64).forward(y))
    step = np.diff(pghi(Y, PARAMS, 0)[8])[20:-20]
    expected = -2 * np.pi * (PARAMS.n_fft // 2 + offset) / PARAMS.n_fft
    # 0.09 rad is 15 of the 1024 samples: a Hann window is only nearly a Gaussian.
    np.testing.assert_allclose(wrapped(step - expected), 0, atol=0.09)


def chirp() -> NDArray[np.float64]:
    t = np.arange(SR) / SR
    return np.asarray(np.sin(2 * np.pi * (300 * t + 1500 * t**2)))


@pytest.mark.parametrize("name", ["chirp", "voice"])
@pytest.mark.parametrize("hop_length", [128, 192, 256])
def test_integrated_phase_is_more_consistent_than_random(
    name: str, hop_length: int, voice: NDArray[np.float32]
) -> None:
    y = chirp() if name == "chirp" else voice.astype(np.float64)
    params = StftParams(n_fft=1024, win_length=1024, hop_length=hop_length)
    projection = Projection(params, y.size, np.float64)
    Y = np.abs(Stft(params, np.float64).forward(y))
    random = inconsistency_db(Y * np.exp(1j * random_phase(Y.shape, 0)), projection)
    assert inconsistency_db(Y * np.exp(1j * pghi(Y, params, 0)), projection) < random - 10


def test_long_recordings_are_integrated_in_segments(
    voice: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    Y = np.abs(Stft(PARAMS).forward(voice))
    monkeypatch.setattr("melmill.stages.dsp.phase._SEGMENT_FRAMES", 40)
    phase = pghi(Y, PARAMS, 0)
    monkeypatch.undo()
    alone = np.concatenate([pghi(Y[:40], PARAMS, 0), pghi(Y[40:], PARAMS, 0)])
    # Bins fainter than that are random where they are in the whole.
    audible = 1e-5 * Y.max() < Y
    assert np.mean(audible) > 0.9
    np.testing.assert_array_equal(phase[audible], alone[audible])


def test_zero_phase_is_an_impulse_at_the_windows_centre() -> None:
    params = StftParams(n_fft=64, win_length=48, hop_length=12)
    frames = np.fft.irfft(np.exp(1j * zero_phase((2, 33), params)), n=64)
    np.testing.assert_allclose(frames, np.tile(np.arange(64) == 32, (2, 1)), atol=1e-6)


def test_signal_phase_is_that_of_its_stft() -> None:
    projection = Projection(PARAMS, SR, np.float64)
    expected = np.angle(Stft(PARAMS, np.float64).forward(chirp()))
    np.testing.assert_allclose(wrapped(signal_phase(chirp(), projection) - expected), 0, atol=1e-6)


def test_random_phase_depends_on_its_seed_alone() -> None:
    assert random_phase((3, 5), 7).tobytes() == random_phase((3, 5), 7).tobytes()
    assert not np.array_equal(random_phase((3, 5), 7), random_phase((3, 5), 8))
    phase = random_phase((100, 1000), 0)
    assert abs(np.mean(np.exp(1j * phase))) < 0.02


@pytest.mark.parametrize(
    "Y",
    [
        pytest.param(np.zeros((4, 513)), id="silence"),
        pytest.param(np.ones((1, 513)), id="one frame"),
        pytest.param(np.eye(4, 513), id="islands"),
        # The least value that counts rounds to either side of the floor.
        pytest.param(np.logspace(-8, 0, 4 * 513, dtype=np.float32).reshape(4, 513), id="around the floor"),
        pytest.param(np.full((4, 513), 1e-36, dtype=np.float32), id="fainter than float32 can scale"),
    ],
)
def test_phase_is_finite(Y: NDArray[np.floating]) -> None:
    phase = pghi(Y, PARAMS, 0)
    assert phase.shape == Y.shape
    assert np.abs(phase).max() <= np.float32(np.pi)
