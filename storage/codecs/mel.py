"""Mels of float16 as FLAC streams, and back, bit for bit.

Floats of one sign are ordered as their bits are, so that whole numbers stand for them. Of these, a
band resembles the band below it. What differs changes slowly over time, and is predicted as a
waveform is.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from melmill.storage.codecs.pcm import decode_pcm, encode_pcm

# FLAC demands a sampling rate. It means nothing here.
_RATE = 16000
_MAGNITUDE = np.int16(0x7FFF)
_WHOLE = slice(None)


def encode_mel(M: NDArray[np.float16]) -> bytes:
    """Return frames as a FLAC stream of the bands' differences, one band after the other.

    Parameters
    ----------
    M : ndarray of float16, shape (n_frames, n_mels)
        Any values, infinite ones and NaN too.
    """
    bands = _mirrored(np.ascontiguousarray(M.T).view(np.int16))
    # Modulo 2**16, and so are the sums.
    bands[1:] -= bands[:-1].copy()
    return encode_pcm(bands.ravel(), _RATE)


def decode_mel(data: bytes, shape: tuple[int, ...], part: slice = _WHOLE) -> NDArray[np.float16]:
    """Return `part` of the frames that `encode_mel` was given, ``(n_frames, n_mels)``.

    Raises
    ------
    ValueError, RuntimeError
        `data` holds something else.
    """
    n_frames, n_mels = shape
    bands = decode_pcm(data, n_frames * n_mels).reshape(n_mels, n_frames)[:, part]
    # Row by row: NumPy's cumulative sum along the first axis takes twenty times as long.
    for below, band in pairwise(bands):
        band += below
    return np.ascontiguousarray(_mirrored(bands).view(np.float16).T)


def _mirrored(bits: NDArray[np.int16]) -> NDArray[np.int16]:
    """Flip all bits but the sign of negative numbers. Twice gives the same numbers again.

    >>> _mirrored(np.array([-2.0, -1.0, 0.0, 1.0], dtype=np.float16).view(np.int16)).tolist()
    [-16385, -15361, 0, 15360]
    """
    return bits ^ ((bits >> np.int16(15)) & _MAGNITUDE)
