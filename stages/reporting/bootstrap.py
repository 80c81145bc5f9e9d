"""Percentile bootstrap of means over utterances, for many columns in one pass."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95
# Bounds the table of counts (draws x utterances, float64) to 32 MB whatever the corpus.
_CELLS = 4_000_000


def generator(seed: int, *labels: str) -> np.random.Generator:
    """Return the generator of one group: it depends on the seed and the group's name alone."""
    return np.random.default_rng([seed, zlib.crc32("\x1f".join(labels).encode())])


def intervals(
    values: NDArray[np.float64], rng: np.random.Generator, draws: int = DRAWS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the 95 % percentile interval of each column's mean.

    Each draw takes as many utterances as there are, with replacement, the same ones for every column (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3); a column's mean is over those that have a value.

    Parameters
    ----------
    values : ndarray of float64, shape (n_utterances, n_columns)
        NaN where an utterance has no value.
    rng : Generator
    draws : int

    Returns
    -------
    low, high : ndarray of float64, shape (n_columns,)
        NaN for a column with fewer than two values.
    """
    present = ~np.isnan(values)
    low, high = np.full((2, values.shape[1]), np.nan)
    usable = present.sum(axis=0) >= 2
    if usable.any():
        means = _resampled_means(values[:, usable], present[:, usable], rng, draws)
        tail = (1 - LEVEL) / 2
        quantile = np.nanquantile if np.isnan(means).any() else np.quantile
        low[usable], high[usable] = quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def _resampled_means(
    values: NDArray[np.float64], present: NDArray[np.bool_], rng: np.random.Generator, draws: int
) -> NDArray[np.float64]:
    n = len(values)
    # Around the column's mean the sums stay small, and a constant column gives exactly itself.
    centre = np.nanmean(values, axis=0)
    offsets = np.where(present, values - centre, 0.0)
    complete = bool(present.all())
    means = np.empty((draws, values.shape[1]))
    block = max(1, _CELLS // n)
    for start in range(0, draws, block):
        times = _times_drawn(rng.integers(0, n, size=(min(block, draws - start), n), dtype=np.int32))
        total = np.full((1, 1), float(n)) if complete else times @ present.astype(np.float64)
        with np.errstate(invalid="ignore"):  # a draw without any value of a column has no mean
            means[start : start + len(times)] = centre + times @ offsets / total
    return means


def _times_drawn(drawn: NDArray[np.int32]) -> NDArray[np.float64]:
    """Count how often each of n rows occurs in every draw: (n_draws, n) to (n_draws, n)."""
    n_draws, n = drawn.shape
    first = np.arange(n_draws, dtype=np.int64)[:, None] * n
    return np.bincount((drawn + first).ravel(), minlength=n_draws * n).reshape(n_draws, n).astype(np.float64)
