"""Phase-gradient heap integration on signals whose phase is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.compiled import phase as starts
from melmill.stages.numeric.compiled.projection import Projection
from melmill.stages.numeric.lanes.sweep import from_lanes, to_lanes
from melmill.stages.numeric.melspec import StftParams
from melmill.stages.numeric.solver import Recipe
from melmill.stages.numeric.stft import Stft

SR = 16000
PARAMS = StftParams(n_fft=1024, win_length=1024, hop_length=256)


def pghi(Y: NDArray[np.floating], params: StftParams = PARAMS) -> NDArray[np.float32]:
    """Return the integrated phase of a magnitude, both (n_bins, n_frames)."""
    return from_lanes(starts.pghi(to_lanes(Y), Y.shape[1], params, 0), Y.shape[1])


def magnitude(y: NDArray[np.floating], params: StftParams = PARAMS) -> NDArray[np.float64]:
    return np.asarray(np.abs(Stft(params, np.float64).forward(y)).T)


def wrapped(phase: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(np.angle(np.exp(1j * phase)))


def inconsistency_db(X: NDArray[Any], projection: Projection) -> float:
    """Return how far a spectrum is from any signal's, dB."""
    return float(20 * np.log10(np.linalg.norm(projection(X) - X) / np.linalg.norm(X)))


@pytest.mark.parametrize("frequency", [440.0, 1234.5, 6000.0])
def test_a_tone_advances_by_its_frequency(frequency: float) -> None:
    y = np.sin(2 * np.pi * frequency * np.arange(SR) / SR)
    Y = magnitude(y)
    peak = round(frequency * PARAMS.n_fft / SR)
    advance = np.diff(pghi(Y)[peak])[4:-4]
    expected = 2 * np.pi * frequency * PARAMS.hop_length / SR
    np.testing.assert_allclose(wrapped(advance - expected), 0, atol=0.15)


@pytest.mark.parametrize("offset", [-150, 0, 200])
def test_a_click_has_linear_phase_over_the_bins(offset: int) -> None:
    y = np.zeros(4096)
    y[2048 + offset] = 1  # `offset` samples off the centre of frame 8
    Y = magnitude(y)
    step = np.diff(pghi(Y)[:, 8])[20:-20]
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
    projection = Projection(params, y.size, "float64")
    Y = magnitude(y, params)
    random = from_lanes(starts.random_phase(projection.n_frames, params.n_bins, 0), projection.n_frames)
    at_random = inconsistency_db(Y * np.exp(1j * random), projection)
    assert inconsistency_db(Y * np.exp(1j * pghi(Y, params)), projection) < at_random - 10


def test_long_recordings_are_integrated_in_segments(voice: NDArray[np.float32]) -> None:
    Y, n = magnitude(voice), starts.SEGMENT_FRAMES
    Y = np.tile(Y, -(-(n + 32) // Y.shape[1]))[:, : n + 32]
    phase = pghi(Y)
    alone = np.concatenate([pghi(Y[:, :n]), pghi(Y[:, n:])], axis=1)
    # Bins fainter than that are random where they are in the whole.
    audible = 1e-4 * Y.max() < Y
    assert np.mean(audible) > 0.4
    np.testing.assert_array_equal(phase[audible], alone[audible])


def test_zero_phase_is_an_impulse_at_the_windows_centre() -> None:
    params = StftParams(n_fft=64, win_length=48, hop_length=12)
    phase = from_lanes(np.asarray(starts.zero_phase(2, params)), 2)
    frames = np.fft.irfft(np.exp(1j * phase.T), n=64)
    np.testing.assert_allclose(frames, np.tile(np.arange(64) == 32, (2, 1)), atol=1e-6)


def test_signal_phase_is_that_of_its_stft() -> None:
    recipe = Recipe(method=None, start=chirp(), dtype="float64")
    phase = from_lanes(starts.start_phase(recipe, PARAMS, SR, lambda: np.empty(0)), PARAMS.n_frames(SR))
    expected = np.angle(Stft(PARAMS, np.float64).forward(chirp())).T
    np.testing.assert_allclose(wrapped(phase - expected), 0, atol=1e-6)


def test_random_phase_depends_on_its_seed_alone() -> None:
    assert starts.random_phase(3, 5, 7).tobytes() == starts.random_phase(3, 5, 7).tobytes()
    assert not np.array_equal(starts.random_phase(3, 5, 7), starts.random_phase(3, 5, 8))
    phase = from_lanes(starts.random_phase(100, 1000, 0), 100)
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
    phase = pghi(Y.T)
    assert phase.shape == Y.T.shape
    assert np.abs(phase).max() <= np.float32(np.pi)
