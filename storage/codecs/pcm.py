"""Waveforms of 16 bits as FLAC streams, and back."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray


def encode_pcm(y: NDArray[np.int16], sample_rate: int) -> bytes:
    """Return samples as a FLAC stream. The bytes follow from the samples and the rate alone.

    Parameters
    ----------
    y : ndarray of int16, shape (n_samples,)
        At least one.
    sample_rate : int
        Hz.
    """
    from melmill.storage.codecs.flac import encode_flac  # here, as it imports numba

    return encode_flac(y, sample_rate)


def decode_pcm(data: bytes, n_samples: int) -> NDArray[np.int16]:
    """Return the samples of a FLAC stream, int16, ``(n_samples,)``.

    Raises
    ------
    ValueError, RuntimeError
        `data` is no such stream, or holds another number of samples.
    """
    import soundfile

    y, _ = soundfile.read(io.BytesIO(data), dtype="int16")
    if y.shape != (n_samples,):
        raise ValueError(f"a FLAC stream holds samples of shape {y.shape!r}, expected {(n_samples,)!r}")
    samples: NDArray[np.int16] = y
    return samples
