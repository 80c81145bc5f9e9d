"""Waveforms as files: exact, and never wrapped round."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from melmill.stages.formats.audio import decode
from melmill.stages.formats.exchange.pcm import AUDIO_FORMATS, BITS, AudioFormat, Bits, encode_audio
from melmill.stages.numeric.errors import Unusable

SR = 22050


def read(data: bytes, dtype: str) -> NDArray[Any]:
    y, sr = soundfile.read(io.BytesIO(data), dtype=dtype)
    assert sr == SR
    return np.asarray(y)


@pytest.mark.parametrize("format_", AUDIO_FORMATS)
@pytest.mark.parametrize("bits", BITS)
def test_samples_are_rounded_to_the_bit(format_: AudioFormat, bits: Bits) -> None:
    y = np.random.default_rng(0).uniform(-0.99, 0.99, 4097).astype(np.float32)
    data, n_clipped = encode_audio(y, SR, format_, bits)
    scale = 2.0 ** (bits - 1)
    wide = read(data, "int32") / 2.0 ** (32 - bits)
    np.testing.assert_array_equal(wide, np.rint(y.astype(np.float64) * scale))
    assert n_clipped == 0
    info = soundfile.info(io.BytesIO(data))
    assert (info.frames, info.channels, info.subtype) == (4097, 1, f"PCM_{bits}")
    assert info.format == format_.upper()


@pytest.mark.parametrize("format_", AUDIO_FORMATS)
@pytest.mark.parametrize("bits", BITS)
def test_what_passes_full_scale_is_clipped_and_counted(format_: AudioFormat, bits: Bits) -> None:
    full = 1 << (bits - 1)
    # The largest number is one step below 1; what rounds to it is no clipping.
    y = np.array([1.5, -1.5, 1.0, -1.0, (full - 1) / full, 100.0, 0.25], dtype=np.float32)
    data, n_clipped = encode_audio(y, SR, format_, bits)
    wide = read(data, "int32") // 2 ** (32 - bits)
    assert wide.tolist() == [full - 1, -full, full - 1, -full, full - 1, full - 1, full // 4]
    assert n_clipped == 4


@pytest.mark.parametrize("format_", AUDIO_FORMATS)
def test_pcm_comes_back_bit_for_bit(format_: AudioFormat) -> None:
    y = np.random.default_rng(1).integers(-32768, 32768, 5000).astype(np.int16)
    sixteen, _ = encode_audio(y, SR, format_, 16)
    decoded, header = decode(sixteen)
    np.testing.assert_array_equal(decoded[:, 0], y)
    assert (header.sr, header.n_samples) == (SR, 5000)
    np.testing.assert_array_equal(read(encode_audio(y, SR, format_, 24).data, "int32") >> 16, y)


def test_the_same_samples_are_the_same_bytes() -> None:
    y = np.sin(np.arange(3000)).astype(np.float32)
    for format_ in AUDIO_FORMATS:
        assert encode_audio(y, SR, format_, 24) == encode_audio(y.copy(), SR, format_, 24)


def test_samples_that_are_not_finite_are_refused() -> None:
    with pytest.raises(Unusable, match="not finite: 2 of 3 samples"):
        encode_audio(np.array([np.nan, 0, np.inf], dtype=np.float32), SR, "wav", 16)
