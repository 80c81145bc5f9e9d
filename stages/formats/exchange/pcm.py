"""Waveforms as linear PCM, in FLAC and WAV files.

Samples are rounded here, so that nothing wraps round at full scale.
"""

from __future__ import annotations

import io
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from melmill.stages.contract import Kind
from melmill.stages.formats.format import Encoded, ExchangeFormat
from melmill.stages.numeric.errors import Unusable

AudioFormat = Literal["flac", "wav"]
Bits = Literal[16, 24]
AUDIO_FORMATS: tuple[AudioFormat, ...] = ("flac", "wav")
BITS: tuple[Bits, ...] = (16, 24)


def encode_audio(y: NDArray[np.float32 | np.int16], sr: int, format_: AudioFormat, bits: Bits) -> Encoded:
    """Return a waveform as a mono file of linear PCM, with the number of its clipped samples.

    Parameters
    ----------
    y : ndarray of float32 or int16, shape (n_samples,)
        Full scale is 1, or 32768 for int16.
    sr : int
        Hz.
    format_ : {"flac", "wav"}
    bits : {16, 24}
        Bits per sample.

    Raises
    ------
    Unusable
        A sample is NaN or infinite.
    """
    pcm, n_clipped = to_pcm(y, bits)
    file = io.BytesIO()
    soundfile.write(file, pcm, sr, format=format_.upper(), subtype=f"PCM_{bits}")
    return Encoded(file.getvalue(), n_clipped)


def to_pcm(y: NDArray[np.float32 | np.int16], bits: Bits) -> tuple[NDArray[np.int16 | np.int32], int]:
    """Return samples as integers in the high bits of their type, and how many of them were clipped.

    ``2**(bits - 1) y`` is rounded to even and clipped to the largest integer: the loudness stays.

    Returns
    -------
    pcm : ndarray, shape (n_samples,)
        int16 for 16 bits, int32 whose low 8 bits are 0 for 24.
    n_clipped : int

    >>> to_pcm(np.array([-1.0, 0.5, 1.0, 1.5], dtype=np.float32), 16)
    (array([-32768,  16384,  32767,  32767], dtype=int16), 2)
    """
    if y.dtype == np.int16:
        pcm = cast("NDArray[np.int16]", y)
        return (pcm if bits == 16 else pcm.astype(np.int32) << 16), 0
    if not np.isfinite(y).all():
        raise Unusable(f"not finite: {y.size - np.count_nonzero(np.isfinite(y)):,} of {y.size:,} samples")
    full = 1 << (bits - 1)
    whole = np.rint(y.astype(np.float64) * full)
    held = np.clip(whole, -full, full - 1)
    n_clipped = int(np.count_nonzero(whole != held))
    return (held.astype(np.int16) if bits == 16 else held.astype(np.int32) << 8), n_clipped


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
