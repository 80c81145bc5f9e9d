"""Waveforms as linear PCM, in FLAC and WAV files."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from numpy.typing import NDArray

from melmill.stages.contract import Kind
from melmill.stages.formats.encode import BITS, AudioFormat, Bits, encode_audio
from melmill.stages.formats.format import Encoded, ExchangeFormat


def _encode(format_: AudioFormat, y: NDArray[Any], sr: int, bits: int | None) -> Encoded:
    return encode_audio(y, sr, format_, cast("Bits", bits))


FLAC = ExchangeFormat(
    name="flac",
    suffix="flac",
    kinds=frozenset({Kind.WAVEFORM}),
    encode=partial(_encode, "flac"),
    bits=BITS,
    order=10,
    says="Losslessly compressed PCM, of the same length and loudness, clipped at full scale.",
)

WAV = ExchangeFormat(
    name="wav",
    suffix="wav",
    kinds=frozenset({Kind.WAVEFORM}),
    encode=partial(_encode, "wav"),
    bits=BITS,
    order=20,
    says="Plain PCM, of the same length and loudness, clipped at full scale.",
)
