"""Change points in a series of means whose standard errors are known."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

# Share of series without a change in which one is found.
FALSE_ALARMS = 0.05


def change_points(means: Sequence[float], errors: Sequence[float], false_alarms: float = FALSE_ALARMS) -> list[int]:
    r"""Return where the level of a series changes: indices of the first measurement of each new level.

    The series is divided into levels so that the weighted squares of the distances from them, plus
    a penalty :math:`\beta` for each change, are least:

    .. math:: \sum_i (x_i - \mu_{level(i)})^2 / s_i^2 + \beta\, n_{changes}

    :math:`\beta` is the quantile of :math:`\chi^2_1` that the best of the m - 1 single changes of a
    series without any exceeds with a probability of at most `false_alarms` (Bonferroni).

    Parameters
    ----------
    means : sequence of float, length m
    errors : sequence of float, length m
        Standard errors of the means, positive or 0.
    false_alarms : float
        In (0, 1).

    References
    ----------
    Jackson et al., An algorithm for optimal partitioning of data on an interval, IEEE Signal
    Processing Letters 12(2), 2005, for the search. Yao, Estimating the number of change-points via
    Schwarz' criterion, Statistics & Probability Letters 6(3), 1988, for penalised least squares.

    >>> change_points([3.1, 3.0, 3.1, 2.5, 2.6, 2.5], [0.05] * 6)
    [3]
    """
    x = np.asarray(means, dtype=np.float64)
    m = len(x)
    if m < 2:
        return []
    weights = _weights(np.asarray(errors, dtype=np.float64), x)
    # Sums over the first i measurements, of distances from the mean of all so that they stay exact.
    apart = x - x.mean()
    w, wx, wxx = (np.concatenate([[0.0], np.cumsum(weights * apart**power)]) for power in range(3))
    penalty = NormalDist().inv_cdf(1 - false_alarms / (2 * (m - 1))) ** 2
    best = np.zeros(m + 1)
    best[0] = -penalty
    start = np.zeros(m + 1, dtype=np.int64)
    for end in range(1, m + 1):
        within = wxx[end] - wxx[:end] - (wx[end] - wx[:end]) ** 2 / (w[end] - w[:end])
        costs = best[:end] + within + penalty
        start[end] = int(np.argmin(costs))
        best[end] = costs[start[end]]
    found, end = [], m
    while start[end] > 0:
        end = int(start[end])
        found.append(end)
    return found[::-1]


def _weights(errors: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return inverse variances. Measurements without any spread are as sure as floats are."""
    least = 1e-9 * max(1.0, float(np.abs(means).max()))
    return np.asarray(1.0 / np.maximum(errors, least) ** 2)
