"""Waveforms of 16 bits as FLAC streams, and back."""

from __future__ import annotations

import io
import sys
from itertools import count

import numpy as np
from numpy.typing import NDArray

# Streams that a process decodes by libsndfile, before it imports what compiled code needs. All of
# them take as long as the import, and what is compiled then takes a third of libsndfile's time.
_UNCOMPILED = 128
_decoded = count()

_WHOLE = slice(None)


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


def decode_pcm(data: bytes, n_samples: int, part: slice = _WHOLE) -> NDArray[np.int16]:
    """Return `part` of the samples of a FLAC stream, int16.

    Compiled code decodes streams like those of `encode_pcm`, and of these no more than the part
    takes. libsndfile decodes the others, and all in a process that decodes few.

    Parameters
    ----------
    data : bytes
    n_samples : int
        That the stream must hold.
    part : slice
        Without a step.

    Raises
    ------
    ValueError, RuntimeError
        `data` is no such stream, or holds another number of samples.
    """
    start, stop, _ = part.indices(n_samples)
    if "numba" in sys.modules or next(_decoded) >= _UNCOMPILED:
        y = _by_compiled_code(data, n_samples, start, stop)
        if y is not None:
            return y
    return _by_libsndfile(data, n_samples)[start:stop]


def _by_compiled_code(data: bytes, n_samples: int, start: int, stop: int) -> NDArray[np.int16] | None:
    """Return samples of a usual stream, all of whose frames that are decoded are proven; None for another."""
    from melmill.flac import HEAD_BYTES, MAGIC, stream_info
    from melmill.flac_frames import decoded, decoded_part  # here, as it imports numba

    if len(data) < HEAD_BYTES or not data.startswith(MAGIC) or stream_info(data).n_samples != n_samples:
        return None
    return decoded(data) if stop - start == n_samples else decoded_part(data, start, stop)


def _by_libsndfile(data: bytes, n_samples: int) -> NDArray[np.int16]:
    import soundfile

    y, _ = soundfile.read(io.BytesIO(data), dtype="int16")
    if y.shape != (n_samples,):
        raise ValueError(f"a FLAC stream holds samples of shape {y.shape!r}, expected {(n_samples,)!r}")
    samples: NDArray[np.int16] = y
    return samples
