"""Resampled lengths, levels and aliases."""

from __future__ import annotations

import numpy as np
import pytest

from melmill.stages.numeric.resample import resample, sinc_resample
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


@pytest.mark.parametrize(("sr", "new_sr"), [(48000, 16000), (22050, 16000), (16000, 24000), (24000, 16000)])
def test_the_short_sinc_equals_its_sum(sr: int, new_sr: int) -> None:
    y = np.random.default_rng(0).uniform(-1, 1, 700).astype(np.float32)
    found = sinc_resample(y, sr, new_sr)
    assert found.size == -(-y.size * new_sr // sr)
    cutoff = 0.99 * min(sr, new_sr)
    for i in (0, 1, found.size // 2, found.size - 1):
        t = np.clip((np.arange(y.size) / sr - i / new_sr) * cutoff, -6, 6)
        expected = np.sum(y * np.sinc(t) * np.cos(t * np.pi / 12) ** 2) * cutoff / sr
        assert found[i] == pytest.approx(expected, abs=2e-6)


def test_the_short_sinc_leaves_equal_rates_alone() -> None:
    y = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    assert sinc_resample(y, 16000, 16000) is y
