"""The projection onto consistent spectra against dense least squares."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.projection import Projection
from melmill.stages.numeric.lanes.sweep import to_lanes
from melmill.stages.numeric.melspec import StftParams
from melmill.stages.numeric.stft import Stft

FRAMINGS = [
    pytest.param(StftParams(n_fft=16, win_length=16, hop_length=4), 301, id="centred"),
    pytest.param(StftParams(n_fft=16, win_length=16, hop_length=5), 301, id="hop does not divide n_fft"),
    pytest.param(StftParams(n_fft=16, win_length=11, hop_length=3), 301, id="window shorter than the FFT"),
    pytest.param(StftParams(n_fft=15, win_length=15, hop_length=4), 301, id="odd n_fft"),
    pytest.param(StftParams(n_fft=16, win_length=16, hop_length=4, pad_mode="reflect"), 301, id="reflected"),
    pytest.param(StftParams(n_fft=16, win_length=16, hop_length=4, center="same"), 301, id="same"),
    pytest.param(
        StftParams(n_fft=16, win_length=16, hop_length=4, center="same", pad_mode="reflect"), 301, id="HiFi-GAN"
    ),
    pytest.param(StftParams(n_fft=16, win_length=16, hop_length=4, pad_mode="reflect"), 3, id="shorter than its pad"),
    pytest.param(StftParams(n_fft=16, win_length=16, hop_length=4), 1, id="one sample"),
    pytest.param(StftParams(n_fft=40, win_length=40, hop_length=1), 90, id="more hops to a frame than lanes"),
    pytest.param(StftParams(n_fft=14, win_length=14, hop_length=3), 301, id="a length with an odd prime"),
]


def random_spectrum(projection: Projection) -> NDArray[np.complex128]:
    """Return a spectrum that no signal has, with real first and last bins as rfft gives them."""
    rng = np.random.default_rng(0)
    shape = (projection.params.n_bins, projection.n_frames)
    X = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    X[0] = X[0].real
    if projection.params.n_fft % 2 == 0:
        X[-1] = X[-1].real
    return X


def signal_of(projection: Projection, X: NDArray[np.complex128]) -> NDArray[np.floating]:
    projection.synthesise(np.stack([to_lanes(X.real), to_lanes(X.imag)], axis=2).astype(projection.dtype))
    return projection.samples


def dense_transform(params: StftParams, n_samples: int) -> NDArray[np.float64]:
    """Return the STFT with all n_fft bins as a real matrix that acts on signals."""
    stft = Stft(params, np.float64)
    columns = [np.fft.fft(stft.frames(unit) * stft.window).ravel() for unit in np.eye(n_samples)]
    return np.concatenate([np.real(columns), np.imag(columns)], axis=1).T


@pytest.mark.parametrize(("params", "n_samples"), FRAMINGS)
def test_inverse_is_the_least_squares_solution(params: StftParams, n_samples: int) -> None:
    projection = Projection(params, n_samples, "float64")
    X = random_spectrum(projection)
    full = np.fft.fft(np.fft.irfft(X.T, n=params.n_fft))
    target = np.concatenate([full.real.ravel(), full.imag.ravel()])
    expected = np.linalg.lstsq(dense_transform(params, n_samples), target, rcond=None)[0]
    np.testing.assert_allclose(signal_of(projection, X), expected, atol=1e-10)


@pytest.mark.parametrize(("params", "n_samples"), FRAMINGS)
def test_projection_keeps_what_is_consistent(params: StftParams, n_samples: int) -> None:
    projection = Projection(params, n_samples, "float64")
    y = np.random.default_rng(1).standard_normal(n_samples)
    X = Stft(params, np.float64).forward(y).T
    np.testing.assert_allclose(projection(X), X, atol=1e-12)
    np.testing.assert_allclose(projection.samples, y, atol=1e-12)


@pytest.mark.parametrize(("params", "n_samples"), FRAMINGS)
def test_a_signal_is_kept_as_it_is(params: StftParams, n_samples: int) -> None:
    projection = Projection(params, n_samples, "float64")
    projection.samples = y = np.random.default_rng(1).standard_normal(n_samples)
    np.testing.assert_array_equal(projection.samples, y)


def test_samples_that_a_window_hardly_sees_are_silent_without_centring() -> None:
    projection = Projection(StftParams(n_fft=1024, win_length=1024, hop_length=256, center=False), 4096)
    y = signal_of(projection, random_spectrum(projection))
    assert y[0] == 0
    assert np.abs(y).max() < 30 * np.std(y)


def test_single_precision_is_nearly_double() -> None:
    params = StftParams(n_fft=1024, win_length=1024, hop_length=256)
    single, double = Projection(params, 8000), Projection(params, 8000, "float64")
    X = random_spectrum(double)
    np.testing.assert_allclose(single(X), double(X), atol=2e-6 * np.abs(X).max())
