"""The projection onto consistent spectra against dense least squares."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.dsp.melspec import StftParams
from melmill.stages.dsp.projection import Projection
from melmill.stages.dsp.stft import Stft

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
]


def random_spectrum(projection: Projection, seed: int = 0) -> NDArray[np.complex128]:
    """Return a spectrum that no signal has, with real first and last bins as rfft gives them."""
    rng = np.random.default_rng(seed)
    shape = (projection.n_frames, projection.params.n_bins)
    X = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    X[:, 0] = X[:, 0].real
    if projection.params.n_fft % 2 == 0:
        X[:, -1] = X[:, -1].real
    return X


def dense_transform(params: StftParams, n_samples: int) -> NDArray[np.float64]:
    """Return the STFT with all n_fft bins as a real matrix that acts on signals."""
    stft = Stft(params, np.float64)
    columns = [np.fft.fft(stft.frames(unit) * stft.window).ravel() for unit in np.eye(n_samples)]
    return np.concatenate([np.real(columns), np.imag(columns)], axis=1).T


@pytest.mark.parametrize(("params", "n_samples"), FRAMINGS)
def test_inverse_is_the_least_squares_solution(params: StftParams, n_samples: int) -> None:
    projection = Projection(params, n_samples, np.float64)
    X = random_spectrum(projection)
    full = np.fft.fft(np.fft.irfft(X, n=params.n_fft))
    target = np.concatenate([full.real.ravel(), full.imag.ravel()])
    expected = np.linalg.lstsq(dense_transform(params, n_samples), target, rcond=None)[0]
    y = projection.samples(projection.synthesise(lambda block: X[block]))
    np.testing.assert_allclose(y, expected, atol=1e-10)


@pytest.mark.parametrize(("params", "n_samples"), FRAMINGS)
def test_projection_keeps_what_is_consistent(params: StftParams, n_samples: int) -> None:
    projection = Projection(params, n_samples, np.float64)
    X = Stft(params, np.float64).forward(np.random.default_rng(1).standard_normal(n_samples))
    np.testing.assert_allclose(projection(X), X, atol=1e-12)


def test_samples_that_a_window_hardly_sees_are_silent_without_centring() -> None:
    projection = Projection(StftParams(n_fft=1024, win_length=1024, hop_length=256, center=False), 4096)
    y = projection.samples(projection.synthesise(lambda block: random_spectrum(projection)[block]))
    assert y[0] == 0
    assert np.abs(y).max() < 30 * np.std(y)


def test_sweep_equals_transform_update_and_inverse_of_the_whole() -> None:
    params = StftParams(n_fft=16, win_length=16, hop_length=5)
    projection = Projection(params, 1001, np.float64)
    y = np.random.default_rng(2).standard_normal(1001)
    mask = np.random.default_rng(3).random((projection.n_frames, params.n_bins))
    swept = projection.sweep(projection.framed(y), lambda Z, block: Z * mask[block])
    X = Stft(params, np.float64).forward(y) * mask
    whole = projection.synthesise(lambda block: X[block])
    np.testing.assert_allclose(swept, whole, atol=1e-12)
