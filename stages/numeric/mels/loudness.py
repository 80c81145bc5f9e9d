"""Integrated loudness of a signal, after ITU-R BS.1770."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BLOCK_S, STEP_S = 0.4, 0.1
"""Gating blocks overlap by 75 %."""

ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0
"""Blocks below the first, or this far below the mean of the others, do not count."""

_OFFSET = -0.691  # with it a sine of 997 Hz and full scale has -3.01 LUFS

# The two filters of the standard as analogue prototypes: frequency in Hz, quality, gain in dB. Their
# bilinear transforms at 48 kHz are the coefficients that it prints.
_SHELF = (1681.974450955533, 0.7071752369554196, 3.999843853973347)
_HIGH_PASS = (38.13547087602444, 0.5003270373238773)
_SHELF_SLOPE = 0.4996667741545416


def integrated_loudness(y: NDArray[np.float32 | np.float64], sr: int) -> float:
    """Return the integrated loudness of one channel in LUFS.

    Parameters
    ----------
    y : ndarray of float, shape (n_samples,)
        Full scale is 1. At least 0.4 s.
    sr : int
        Its rate, Hz.

    Returns
    -------
    float
        Minus infinity where no block passes the absolute gate.

    References
    ----------
    ITU-R BS.1770-5 (2023), Annex 1. The standard prints its filters for 48 kHz; at other rates they
    are the same analogue prototypes.
    """
    import scipy.signal  # here, as every plan of scores imports this module

    weighted = scipy.signal.sosfilt(_weighting(sr), y.astype(np.float64))
    # 100 ms that do not hold a whole number of samples are rounded, block by block.
    starts = np.round(np.arange(n_blocks(y.size, sr)) * STEP_S * sr).astype(np.int64)
    energy = np.concatenate([[0.0], np.cumsum(weighted * weighted)])
    length = round(BLOCK_S * sr)
    power = (energy[np.minimum(starts + length, y.size)] - energy[starts]) / length
    loud = power[power > _power(ABSOLUTE_GATE_LUFS)]
    if not loud.size:
        return -math.inf
    gated = loud[loud > np.mean(loud) * 10.0 ** (RELATIVE_GATE_LU / 10.0)]
    return float(_OFFSET + 10.0 * math.log10(np.mean(gated)))


def n_blocks(n_samples: int, sr: int) -> int:
    """Return how many blocks lie wholly in a signal."""
    return 1 + math.floor((n_samples / sr - BLOCK_S) / STEP_S + 1e-9)


def _power(loudness_lufs: float) -> float:
    return float(10.0 ** ((loudness_lufs - _OFFSET) / 10.0))


@lru_cache(maxsize=8)
def _weighting(sr: int) -> NDArray[np.float64]:
    """Return the K-weighting ``(2, 6)`` as second-order sections."""
    frequency, quality, gain_db = _SHELF
    k = math.tan(math.pi * frequency / sr)
    high = 10.0 ** (gain_db / 20.0)
    middle = high**_SHELF_SLOPE
    scale = 1.0 + k / quality + k * k
    shelf = [
        (high + middle * k / quality + k * k) / scale,
        2.0 * (k * k - high) / scale,
        (high - middle * k / quality + k * k) / scale,
        1.0,
        2.0 * (k * k - 1.0) / scale,
        (1.0 - k / quality + k * k) / scale,
    ]
    frequency, quality = _HIGH_PASS
    k = math.tan(math.pi * frequency / sr)
    scale = 1.0 + k / quality + k * k
    # The standard prints this numerator, and libebur128 has it at every rate.
    high_pass = [1.0, -2.0, 1.0, 1.0, 2.0 * (k * k - 1.0) / scale, (1.0 - k / quality + k * k) / scale]
    return np.array([shelf, high_pass])
