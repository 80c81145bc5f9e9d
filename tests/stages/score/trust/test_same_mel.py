"""A scrambled phase with the mel untouched: the gradient against differences, and the mel that stays."""

from __future__ import annotations

import numpy as np
import pytest

from melmill.stages.numeric.mel import magnitude_spec, mel_spectrogram
from melmill.stages.numeric.presets import preset
from melmill.stages.score.trust.same_mel import _Mel, scrambled
from tests.stages.score.trust.test_damages import voice


# Framings with zeros and with reflected edges, magnitudes and powers, a hop that divides no window.
@pytest.mark.parametrize("name", ["paper", "hifigan", "librosa", "tacotron2", "espnet2", "vocos_24khz"])
def test_the_gradient_is_that_of_half_the_squared_distance(name: str) -> None:
    spec, rng = magnitude_spec(preset(name)), np.random.default_rng(0)
    mel = _Mel(spec)
    x, y, direction = (0.1 * rng.standard_normal(spec.n_fft * 3 + 17) for _ in range(3))
    M = mel.bands(mel.stft.forward(y))

    def half(x: np.ndarray) -> float:
        return 0.5 * float(np.sum((mel.bands(mel.stft.forward(x)) - M) ** 2))

    D = mel.stft.forward(x)
    slope = float(mel.gradient(D, mel.bands(D) - M, x.size) @ direction)
    assert (half(x + 1e-6 * direction) - half(x - 1e-6 * direction)) / 2e-6 == pytest.approx(slope, rel=1e-5)


def test_the_mel_stays_and_the_signal_does_not() -> None:
    y, spec = voice(0.6), preset("paper")
    made = scrambled(y, spec, 0.3, np.random.default_rng(0))
    M, M_hat = mel_spectrogram(y, spec), mel_spectrogram(made, spec)
    assert 20 * np.log10(np.linalg.norm(M - M_hat) / np.linalg.norm(M)) < -40
    assert np.linalg.norm(y - made) > 0.05 * np.linalg.norm(y)


def test_silence_stays_silent() -> None:
    assert not scrambled(np.zeros(8000, dtype=np.float32), preset("paper"), 0.5, np.random.default_rng(0)).any()
