"""Resampled lengths, levels and aliases."""

from __future__ import annotations

import numpy as np
import pytest

from melmill.stages.numeric.resample import resample
from melmill.storage.utterance import resampled_length


@pytest.mark.parametrize(
    ("sr", "new_sr"), [(48000, 16000), (44100, 16000), (16000, 22050), (16000, 48000), (8000, 7999)]
)
@pytest.mark.parametrize("n_samples", [0, 1, 2, 3, 999, 1000, 1001, 16001])
def test_length_is_the_catalogues(n_samples: int, sr: int, new_sr: int) -> None:
    y = resample(np.zeros(n_samples, dtype=np.float32), sr, new_sr)
    assert y.shape == (resampled_length(n_samples, sr, new_sr),)
    assert y.dtype == np.float32


@pytest.mark.parametrize(("sr", "new_sr"), [(48000, 16000), (44100, 24000), (16000, 44100)])
def test_a_tone_stays_that_tone(sr: int, new_sr: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(sr) / sr)
    y = resample(tone.astype(np.float32), sr, new_sr)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(new_sr) / new_sr)
    middle = slice(new_sr // 10, -new_sr // 10)
    np.testing.assert_allclose(y[middle], expected[middle], atol=2e-5)


def test_a_tone_above_the_new_band_vanishes() -> None:
    tone = np.sin(2 * np.pi * 9000 * np.arange(48000) / 48000).astype(np.float32)
    assert np.abs(resample(tone, 48000, 16000)[1600:-1600]).max() < 1e-4


def test_equal_rates_return_the_samples() -> None:
    y = np.array([-32768, 0, 16384], dtype=np.int16)
    np.testing.assert_array_equal(resample(y, 16000, 16000), np.array([-1.0, 0.0, 0.5], dtype=np.float32))
