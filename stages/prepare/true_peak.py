"""True peaks of a signal, after ITU-R BS.1770, and a limiter for them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

OVERSAMPLING = 4
"""How many times more samples the peaks between samples are looked for in."""

LOOKAHEAD_S = 0.005
"""How long before a peak the limiter begins to turn down."""

_TAPS = 12  # of each phase


def true_peak(y: NDArray[np.float32 | np.float64]) -> float:
    """Return the true peak of a signal ``(n_samples,)``: the largest size of what it is between samples.

    References
    ----------
    ITU-R BS.1770-5 (2023), Annex 2. The filter here is a windowed sinc of as many taps as the one
    that the standard prints as an example.

    >>> float(round(true_peak(np.array([0.0, 0.5, 0.0])), 3))
    0.5
    """
    return float(envelope(y).max(initial=0.0))


def envelope(y: NDArray[np.float32 | np.float64]) -> NDArray[np.float64]:
    """Return the largest size of a signal from each sample to before the next one, ``(n_samples,)``."""
    if not y.size:
        return np.zeros(0)
    padded = np.pad(y.astype(np.float64), _TAPS)
    found = np.abs(y.astype(np.float64))
    for taps in _phases():
        between = np.convolve(padded, taps, mode="full")
        # The filter looks at half its taps of samples after each.
        here = between[_TAPS + _TAPS // 2 :][: y.size]
        found = np.maximum(found, np.abs(here))
    return found


@lru_cache(maxsize=1)
def _phases() -> tuple[NDArray[np.float64], ...]:
    """Return the taps that give a signal at 1/4, 2/4 and 3/4 of the way from each sample to the next."""
    phases = []
    for phase in range(1, OVERSAMPLING):
        # Sample n + k lies at k - phase / 4 from the place between.
        k = np.arange(-_TAPS // 2 + 1, _TAPS // 2 + 1)
        t = k - phase / OVERSAMPLING
        taps = np.sinc(t) * np.cos(np.pi * t / (_TAPS + 1)) ** 2
        phases.append((taps / taps.sum())[::-1])
    return tuple(phases)


def limited(y: NDArray[np.float32], sr: int, peak: float) -> NDArray[np.float64]:
    """Return a signal turned down around its peaks, so that none passes `peak`.

    The gain goes down and up again within `LOOKAHEAD_S`, without a jump.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
    sr : int
        Its rate, Hz.
    peak : float
        Largest true peak, where 1 is full scale.
    """
    from scipy.ndimage import minimum_filter1d

    made = y.astype(np.float64)
    radius = max(1, round(LOOKAHEAD_S * sr))
    # A gain that varies moves peaks a little: what passes still is turned down once more.
    for _ in range(4):
        found = envelope(made)
        if found.max(initial=0.0) <= peak:
            return made
        need = np.minimum(1.0, peak / np.maximum(found, 1e-12))
        # A peak that lies after a sample also depends on the sample after it.
        need = np.minimum(need, np.concatenate([[1.0], need[:-1]]))
        lowest = minimum_filter1d(need, 2 * radius + 1, mode="nearest")
        window = np.hanning(2 * radius + 3)[1:-1]
        window /= window.sum()
        gain = np.convolve(np.pad(lowest, radius, mode="edge"), window, mode="valid")
        made = made * gain
    return made * min(1.0, peak / max(true_peak(made.astype(np.float32)), 1e-12))
