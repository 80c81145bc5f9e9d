"""Dynamic time warping of two sequences of vectors: exact, compiled, in memory for one row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.vector import Flat, kernel


def warped_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the mean Euclidean distance along the path that has the smallest sum of distances.

    A path goes from the first to the last pair of frames. Each step moves on by one frame in one
    sequence or in both, and all weigh the same.

    Parameters
    ----------
    a, b : ndarray of float64, shape (n_frames, n_dimensions)
        Their lengths may differ.

    References
    ----------
    Sakoe, Chiba, "Dynamic programming algorithm optimization for spoken word recognition", IEEE
    TASSP 26(1), 1978, the symmetric form without weights.
    """
    return float(_warped(np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)))


@kernel
def _warped(a: Flat, b: Flat) -> float:
    """Return the mean distance on the path; `a` and `b` are ``(n_dimensions, n_frames)``.

    Each place keeps the sum and the number of steps of the best path that ends there.
    """
    n_dimensions, n = b.shape
    total, steps, distance = np.full(n, np.inf), np.zeros(n, np.int64), np.empty(n)
    for i in range(a.shape[1]):
        distance[:] = 0.0
        for d in range(n_dimensions):
            value = a[d, i]
            for j in range(n):
                difference = b[d, j] - value
                distance[j] += difference * difference
        # Sum and steps at (i - 1, j - 1); the first frame has nothing before it.
        corner, corner_steps = (0.0 if i == 0 else np.inf), 0
        left, left_steps = np.inf, 0
        for j in range(n):
            best, best_steps = corner, corner_steps
            if total[j] < best:
                best, best_steps = total[j], steps[j]
            if left < best:
                best, best_steps = left, left_steps
            corner, corner_steps = total[j], steps[j]
            left, left_steps = best + np.sqrt(distance[j]), best_steps + 1
            total[j], steps[j] = left, left_steps
    return float(total[n - 1]) / float(steps[n - 1])
