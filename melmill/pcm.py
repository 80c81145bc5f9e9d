"""Waveforms as 16-bit PCM and as floats: one rule for all layers."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray


def as_float(y: NDArray[np.floating | np.int16]) -> NDArray[np.float32]:
    """Return a waveform as float32 in [-1, 1): int16 PCM is divided by 32768.

    >>> as_float(np.array([-32768, 0, 16384], dtype=np.int16)).tolist()
    [-1.0, 0.0, 0.5]
    """
    if y.dtype == np.int16:
        return y.astype(np.float32) / np.float32(32768.0)
    return y.astype(np.float32, copy=False)


def stored(y: NDArray[np.float32], dtype: Literal["float32", "int16"]) -> NDArray[np.float32] | NDArray[np.int16]:
    """Return a waveform as the store keeps it. int16 is ``32768 y``, rounded to even and clipped.

    >>> stored(np.array([-1.0, 0.5, 1.0], dtype=np.float32), "int16").tolist()
    [-32768, 16384, 32767]
    """
    if dtype == "float32":
        return y
    return np.asarray(np.clip(np.rint(y * np.float32(32768)), -32768, 32767), dtype=np.int16)
