"""How many bursts of speech PESQ may find in a signal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FRAME_S = 0.004
# P.862 drops bursts under 50 frames and joins those less than 50 frames apart; its filters blur both a little.
_SHORTEST, _GAP = 40, 40
_STEP_DB, _RANGE_DB = 2.0, 80.0


def most_bursts(y: NDArray[Any], sr: int) -> int:
    """Return the most bursts of speech that a detector of any threshold would find in a signal.

    A burst is a stretch of at least 160 ms that starts and ends above the threshold, without a gap of 160 ms below it.
    P.862 asks for 200 ms of each, in a filtered signal and with a threshold of its own: its count is hardly higher.

    Parameters
    ----------
    y : ndarray of float, shape (n_samples,)
    sr : int
        Hz.

    Examples
    --------
    >>> burst, pause = np.ones(4000), np.zeros(8000)
    >>> most_bursts(np.concatenate([burst, pause, burst, pause, burst]), 16000)
    3
    """
    n = round(sr * _FRAME_S)
    frames = y[: y.size // n * n].reshape(-1, n)
    level_db = 10.0 * np.log10(np.mean(np.square(frames), axis=1, dtype=np.float64) + 1e-20)
    top = np.max(level_db, initial=-200.0)
    return max(_bursts(level_db > top - below) for below in np.arange(_STEP_DB, _RANGE_DB, _STEP_DB))


def _bursts(loud: NDArray[np.bool_]) -> int:
    at = np.flatnonzero(loud)
    if not at.size:
        return 0
    breaks = np.flatnonzero(np.diff(at) > _GAP)
    first, last = at[np.concatenate([[0], breaks + 1])], at[np.concatenate([breaks, [at.size - 1]])]
    return int(np.count_nonzero(last - first + 1 >= _SHORTEST))
