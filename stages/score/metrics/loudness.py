"""Difference of loudness, after ITU-R BS.1770."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.metric import Metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

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
    starts = np.round(np.arange(_n_blocks(y.size, sr)) * STEP_S * sr).astype(np.int64)
    energy = np.concatenate([[0.0], np.cumsum(weighted * weighted)])
    length = round(BLOCK_S * sr)
    power = (energy[np.minimum(starts + length, y.size)] - energy[starts]) / length
    loud = power[power > _power(ABSOLUTE_GATE_LUFS)]
    if not loud.size:
        return -math.inf
    gated = loud[loud > np.mean(loud) * 10.0 ** (RELATIVE_GATE_LU / 10.0)]
    return float(_OFFSET + 10.0 * math.log10(np.mean(gated)))


def loudness_difference(pair: Pair) -> Measured:
    """Return how far apart the loudness of two signals is, in LU."""
    sr = pair.lowest_sr
    reference, estimate = pair.at(sr)
    if _n_blocks(reference.size, sr) < 1:
        return Measured.failed(Status.TOO_SHORT)
    levels = [integrated_loudness(y, sr) for y in (reference, estimate)]
    if not all(map(math.isfinite, levels)):
        return Measured.failed(Status.NO_CONTENT)
    return Measured.of(abs(levels[1] - levels[0]))


def _n_blocks(n_samples: int, sr: int) -> int:
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


LOUDNESS_DIFF = Metric(
    name="loudness_diff",
    column="loudness_diff_lu",
    title="Loudness difference",
    unit="LU",
    better="lower",
    needs="signals",
    lowest_sr=8000,
    compute=loudness_difference,
    order=110,
    says="How much louder or quieter the reconstruction is than the recording, as a broadcaster measures it.",
    formula=r"$|L(\hat x)-L(x)|$ of the integrated loudness $L$ in LUFS: K-weighting, blocks of 400 ms every 100 ms, "
    "gates at -70 LUFS and at 10 LU below the mean of what passes.",
    limits="It hears level alone. Under 0.4 s there is no block, and a signal below the gate throughout has no value.",
    reference="ITU-R BS.1770-5 (2023), Annex 1",
    cost="About 1,000 x real time at 16 kHz.",
)
