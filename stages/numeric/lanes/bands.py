"""Mel banks on lanes: products with the bank and its transpose, and solves with its Gram matrix.

Only entries that are not zero are visited. A triangular bank has at most two bands for each bin and
a tridiagonal Gram matrix, so that all of it is O(n_bins) for a frame. Other banks work as well, a
dense one as a dense product.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.gram import factors
from melmill.stages.numeric.lanes.vector import LANES, Flat, kernel, load, store, zeros
from melmill.stages.numeric.melspec import Precision


class Runs(NamedTuple):
    """The rows of a matrix, each cut to the run of columns that is not zero.

    Row i has the `weights` from ``at[i]`` to ``at[i + 1]``, from column ``first[i]`` on.
    """

    first: NDArray[np.int64]
    at: NDArray[np.int64]
    weights: NDArray[np.floating]


def runs(matrix: NDArray[np.floating], dtype: Precision) -> Runs:
    """Return the runs of a matrix."""
    first, at, weights = [], [0], []
    for row in matrix:
        used = np.flatnonzero(row)
        start, stop = (used[0], used[-1] + 1) if used.size else (0, 0)
        first.append(start)
        weights.append(row[start:stop])
        at.append(at[-1] + stop - start)
    return Runs(np.array(first, dtype=np.int64), np.array(at, dtype=np.int64), np.concatenate(weights).astype(dtype))


class Factor(NamedTuple):
    """``A = L D L^T`` of a symmetric matrix: L's rows left of the diagonal, and 1 / D."""

    lower: Runs
    upper: Runs
    over_diagonal: NDArray[np.floating]


def factored(A: NDArray[np.float64], dtype: Precision) -> Factor:
    """Return the factors of a positive definite matrix; those of a banded one are banded."""
    L, d = factors(A)
    L -= np.eye(len(A))
    return Factor(lower=runs(L, dtype), upper=runs(L.T, dtype), over_diagonal=(1 / d).astype(dtype))


@kernel
def apply(matrix: Runs, x: Flat, out: Flat, x_at: int, out_at: int) -> None:
    """Write ``matrix x`` to `out`, for rows from the flat indices `out_at` and `x_at` on."""
    for i in range(len(matrix.first)):
        total = zeros(out)
        row = x_at + matrix.first[i] * LANES
        for k in range(matrix.at[i], matrix.at[i + 1]):
            total = total + load(x, row) * matrix.weights[k]
            row += LANES
        store(out, out_at + i * LANES, total)


@kernel
def solve(factor: Factor, x: Flat) -> None:
    """Overwrite the rows of `x` by ``A^-1 x``."""
    n, lower, upper = len(factor.over_diagonal), factor.lower, factor.upper
    for i in range(n):
        total = load(x, i * LANES)
        row = lower.first[i] * LANES
        for k in range(lower.at[i], lower.at[i + 1]):
            total = total - load(x, row) * lower.weights[k]
            row += LANES
        store(x, i * LANES, total)
    for i in range(n - 1, -1, -1):
        total = load(x, i * LANES) * factor.over_diagonal[i]
        row = upper.first[i] * LANES
        for k in range(upper.at[i], upper.at[i + 1]):
            total = total - load(x, row) * upper.weights[k]
            row += LANES
        store(x, i * LANES, total)
