"""Magnitude of one signal or mel, phase of another."""

from __future__ import annotations

import numpy as np
import pytest

import melmill
from melmill.stages.contract import Mel, Waveform
from melmill.stages.invert.recombine import Recombine, recombined
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.presets import preset
from melmill.stages.numeric.stft import Stft

PAPER = preset("paper")
SPEECH = Waveform(sr=16000, corpus=True, node="speech")


def noise(seed: int, n: int = 8000) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


@pytest.mark.parametrize("name", ["paper", "hifigan", "vocos_24khz"])
def test_a_signal_with_its_own_phase_is_itself(name: str) -> None:
    y, spec = noise(0), preset(name)
    inner = slice(spec.n_fft, -spec.n_fft)
    np.testing.assert_allclose(recombined(y, y, spec)[inner], y[inner], atol=1e-6)


def test_the_inverse_is_the_least_squares_one() -> None:
    """The adjoint of the STFT at what remains vanishes there."""
    stft, rng = Stft(PAPER.stft, np.float64), np.random.default_rng(0)
    D = stft.forward(noise(0).astype(np.float64))
    D = D + 0.3 * (rng.standard_normal(D.shape) + 1j * rng.standard_normal(D.shape))
    D[:, [0, -1]] = D[:, [0, -1]].real
    x = stft.inverse(D, 8000)
    remains = stft.overlapped(D - stft.forward(x))[PAPER.stft.pad :][:8000]
    assert np.abs(remains).max() < 1e-10


def test_griffin_lim_brings_the_magnitude_nearer() -> None:
    y, stft = noise(0), Stft(PAPER.stft, np.float64)
    A = np.abs(stft.forward(y))

    def error(n_iter: int) -> float:
        return float(np.linalg.norm(np.abs(stft.forward(recombined(y, "random", PAPER, n_iter=n_iter))) - A))

    errors = [error(n) for n in (0, 10, 60)]
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]


def test_phases_are_those_asked_for() -> None:
    y, other = noise(0), noise(1)
    assert not np.allclose(recombined(y, other, PAPER), recombined(y, "zero", PAPER), atol=1e-3)
    np.testing.assert_array_equal(recombined(y, "random", PAPER, seed=4), recombined(y, "random", PAPER, seed=4))
    assert not np.allclose(recombined(y, "random", PAPER, seed=4), recombined(y, "random", PAPER, seed=5), atol=1e-3)


def test_products_and_what_does_not_fit() -> None:
    mel = Mel(spec=PAPER, node="mel")
    made = Recombine().produces({"from": [mel], "phase": [SPEECH]})
    assert (made.sr, made.mel) == (16000, PAPER)
    with pytest.raises(ContractError, match="n_iter must be 0 for a mel, got 5"):
        Recombine(n_iter=5).produces({"from": [mel], "phase": [SPEECH]})
    with pytest.raises(ContractError, match="16000 Hz and the phase of audio at 22050 Hz"):
        Recombine().produces({"from": [mel], "phase": [Waveform(sr=22050)]})
    with pytest.raises(ContractError, match="the preset is for 22050 Hz and the signals have 16000"):
        Recombine(preset="hifigan").produces({"from": [SPEECH]})
    with pytest.raises(ParameterError, match="phase must be random or zero, or a node, got 'pghi'"):
        Recombine(phase="pghi")


def test_a_mel_with_the_true_phase_is_what_inversion_starts_from() -> None:
    from melmill.stages.invert.recombine import _of_mel

    y = noise(0)
    M = melmill.mel(y, PAPER)
    made = _of_mel(M, PAPER, y, "nnls", 0, y.size)
    started = melmill.invert(M, PAPER, method="griffin_lim", n_iter=0, start=y, length=y.size)
    np.testing.assert_array_equal(made, started)
