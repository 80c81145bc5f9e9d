"""Statistics of paired differences: intervals, tests, effect sizes, and what a test could have found."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""Rate of errors of all tests of a family, and of a one-sided bound."""
POWER = 0.8


def p_values(d: NDArray[np.float64]) -> tuple[float, float, str]:
    """Return Wilcoxon's two-sided p, Student's p, and the reason where one is NaN.

    Parameters
    ----------
    d : ndarray of float64, shape (n,)
        Differences without NaN.
    """
    from scipy import stats

    if len(d) < 2:
        return np.nan, np.nan, f"{len(d)} common utterances, a test needs 2"
    if not d.any():
        return np.nan, np.nan, "all differences are zero"
    with warnings.catch_warnings():
        # With ties among few differences SciPy warns that it uses the normal approximation.
        warnings.simplefilter("ignore")
        wilcoxon_p = float(stats.wilcoxon(d).pvalue)
        if np.ptp(d) == 0:
            return wilcoxon_p, np.nan, "all differences are equal: no t test"
        return wilcoxon_p, float(stats.ttest_1samp(d, 0.0).pvalue), ""


def holm_adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Holm's step-down adjusted p-values; NaN stays NaN and does not count as a test.

    References
    ----------
    Holm, A simple sequentially rejective multiple test procedure, 1979.

    >>> holm_adjusted(np.array([0.01, 0.04, np.nan, 0.03])).round(2).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]  # NaN sorts last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def effect_size(d: NDArray[np.float64]) -> float:
    """Return Cohen's d of paired differences: their mean over their standard deviation (n - 1).

    NaN for fewer than two differences, or for differences that are all equal.

    References
    ----------
    Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, section 2.3.5.

    >>> round(effect_size(np.array([1.0, 2.0, 3.0])), 3)
    2.0
    """
    if len(d) < 2 or np.ptp(d) == 0:
        return math.nan
    return float(d.mean() / d.std(ddof=1))


def smallest_detectable(d: NDArray[np.float64], power: float = POWER) -> float:
    """Return the mean difference that a two-sided t test at 5 % would find with this power.

    It follows from the number of differences and their standard deviation. NaN for fewer than two.

    Parameters
    ----------
    d : ndarray of float64, shape (n,)
    power : float
        Chance that the test finds it, in (0, 1).

    References
    ----------
    Julious, Sample sizes for clinical trials with normal data, 2004, section 3.1.
    """
    from scipy.special import stdtrit

    if len(d) < 2:
        return math.nan
    quantiles = stdtrit(len(d) - 1, [1 - LEVEL / 2, power])
    return float(quantiles.sum() * d.std(ddof=1) / math.sqrt(len(d)))


@dataclass(frozen=True, kw_only=True)
class Inferiority:
    """Hold what paired differences say of a degradation.

    Positive differences are better.

    Parameters
    ----------
    n : int
    mean : float
        Mean difference.
    low : float
        Lower end of its one-sided 95 % interval. NaN with fewer than two differences.
    p : float
        One-sided p of the t test that the mean is not below 0. NaN with fewer than two differences.
    error : float
        Standard error of the mean.
    """

    n: int
    mean: float
    low: float
    p: float
    error: float

    def power(self, margin: float, n_tests: int) -> float:
        """Return the chance that a degradation of `margin` would have tripped, in [0, 1].

        A rule trips where the degradation is significant among `n_tests` tests, and where `low` is
        below ``-margin``. Bonferroni's level stands for Holm's, which is never smaller. Student's t
        stands for both: skewed differences trip a little more rarely.
        """
        from scipy.special import stdtr, stdtrit

        if self.n < 2:
            return 0.0
        if self.error == 0:
            return 1.0
        freedom = self.n - 1
        significant = margin / self.error - stdtrit(freedom, 1 - LEVEL / n_tests)
        return float(stdtr(freedom, min(significant, stdtrit(freedom, 1 - LEVEL))))


def inferiority(d: NDArray[np.float64]) -> Inferiority:
    """Return what paired differences say of a degradation, by Student's t or Johnson's.

    The larger of the two counts, which trips more rarely. Differences that are all equal have no
    spread: their mean is exact.

    Parameters
    ----------
    d : ndarray of float64, shape (n,)
        Differences without NaN, where positive is better.

    >>> found = inferiority(np.array([-0.1, -0.2, -0.3, -0.2]))
    >>> round(found.mean, 3), round(found.low, 3), round(found.p, 4)
    (-0.2, -0.296, 0.0081)
    """
    from scipy.special import stdtr, stdtrit

    n = len(d)
    if n < 2:
        return Inferiority(n=n, mean=float(d.mean()) if n else math.nan, low=math.nan, p=math.nan, error=math.nan)
    mean = float(d.mean())
    if np.ptp(d) == 0:
        return Inferiority(n=n, mean=mean, low=mean, p=0.0 if mean < 0 else 1.0, error=0.0)
    error = float(d.std(ddof=1)) / math.sqrt(n)
    low = mean - float(stdtrit(n - 1, 1 - LEVEL)) * error
    # Samples that miss a long tail of gains look worse than they are, and all too certain.
    t = max(mean / error, _johnson(d, mean, error))
    return Inferiority(n=n, mean=mean, low=low, p=float(stdtr(n - 1, t)), error=error)


def _johnson(d: NDArray[np.float64], mean: float, error: float) -> float:
    """Return Johnson's t, which takes the skewness of the differences into account.

    References
    ----------
    Johnson, Modified t tests and confidence intervals for asymmetrical populations, 1978,
    equation 2.9 for a mean of 0.
    """
    n, variance = len(d), float(d.var(ddof=1))
    third = float(((d - mean) ** 3).mean())
    return (mean + third / (6 * variance * n) + third / (3 * variance**2) * mean**2) / error


Finding = Literal["passed", "tripped", "unsure"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Hold what a gate makes of one check against a baseline.

    Parameters
    ----------
    finding : {"passed", "tripped", "unsure"}
    p_holm : float
        The check's p, corrected for all checks that were decided with it.
    power : float
        Chance that a degradation of the margin's size would have tripped.
    """

    finding: Finding
    p_holm: float
    power: float


def decide(found: Sequence[Inferiority], margins: Sequence[float]) -> list[Decision]:
    """Decide the checks of a gate against its baseline, all together.

    A check trips where the mean is worse by Holm's corrected p at 5 %, and its one-sided 95 % interval
    reaches beyond the margin. So no check trips in at least 95 % of evaluations without a change,
    however many checks there are. A check passes where the interval stays within the margin. Anything
    else is unsure. Without any pair of values it trips.

    Parameters
    ----------
    found : sequence of Inferiority
    margins : sequence of float
        By how much each mean may be worse, not negative.

    References
    ----------
    Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted = holm_adjusted(np.array([one.p for one in found], dtype=np.float64))
    n_tests = max(1, sum(not math.isnan(one.p) for one in found))
    made = []
    for one, p_holm, margin in zip(found, adjusted, margins, strict=True):
        finding: Finding = "unsure"
        if one.n == 0 or (p_holm < LEVEL and one.low < -margin):
            finding = "tripped"
        elif one.low >= -margin:
            finding = "passed"
        made.append(Decision(finding=finding, p_holm=float(p_holm), power=one.power(margin, n_tests)))
    return made


def worst_first(d: NDArray[np.float64], count: int) -> Sequence[int]:
    """Return the places of the `count` smallest negative differences, the smallest first.

    >>> worst_first(np.array([0.5, -2.0, np.nan, -3.0]), 10)
    [3, 1]
    """
    order = np.argsort(d, kind="stable")
    return [int(at) for at in order[:count] if d[at] < 0]
