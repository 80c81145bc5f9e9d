"""Statistics of paired differences, against SciPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from melmill.stages.report.comparison.differences import (
    Inferiority,
    decide,
    effect_size,
    inferiority,
    smallest_detectable,
    worst_first,
)

RNG = np.random.default_rng(0)


def test_an_inferiority_is_a_one_sided_t_test() -> None:
    half = RNG.normal(0, 0.5, 18)
    d = np.concatenate([half, -half, [0.0]]) - 0.1  # symmetric, so that skewness changes nothing
    found, expected = inferiority(d), stats.ttest_1samp(d, 0.0, alternative="less")
    assert found.n == 37
    assert found.mean == pytest.approx(d.mean())
    assert found.p == pytest.approx(expected.pvalue)
    # Of the two-sided 90 % interval, the lower end is that of the one-sided 95 % interval.
    assert found.low == pytest.approx(stats.ttest_1samp(d, 0.0).confidence_interval(0.9).low)


def test_a_long_tail_of_gains_makes_losses_less_certain() -> None:
    gains = np.array([-0.2] * 20 + [0.1] * 10 + [1.5])
    assert inferiority(gains).p > stats.ttest_1samp(gains, 0.0, alternative="less").pvalue
    # A tail of losses does not make a loss more certain than Student's t.
    assert inferiority(-gains).p == pytest.approx(stats.ttest_1samp(-gains, 0.0, alternative="less").pvalue)


@pytest.mark.parametrize(
    ("d", "low", "p"),
    [
        ([0.0, 0.0, 0.0], 0.0, 1.0),  # nothing changed
        ([-0.5, -0.5], -0.5, 0.0),  # the same everywhere, so no doubt is left
        ([0.25, 0.25], 0.25, 1.0),
        ([-1.0], math.nan, math.nan),  # one utterance shows nothing
        ([], math.nan, math.nan),
    ],
)
def test_differences_without_a_spread(d: list[float], low: float, p: float) -> None:
    found = inferiority(np.array(d))
    assert [found.low, found.p] == pytest.approx([low, p], nan_ok=True)


def test_the_power_is_the_share_of_degradations_that_trip() -> None:
    n, margin, n_tests, spread = 40, 0.1, 4, 0.3
    hits, said = 0, 0.0
    for _ in range(4000):
        found = inferiority(RNG.normal(-margin, spread, n))
        said += found.power(margin, n_tests) / 4000
        hits += found.p * n_tests < 0.05 and found.low < -margin
    # Johnson's t counts where it is less certain, so that a few less trip.
    assert said - 0.06 < hits / 4000 < said + 0.02
    assert 0.2 < said < 0.6


@pytest.mark.parametrize("n", [6, 60])
def test_false_alarms_are_rare_over_all_checks_together(n: int) -> None:
    evaluations, n_checks = 2000, 8
    alarms = 0
    for _ in range(evaluations):
        found = [inferiority(d) for d in RNG.standard_t(5, (n_checks, n))]
        # A margin of 0 trips as soon as a degradation is significant.
        alarms += any(one.finding == "tripped" for one in decide(found, [0.0] * n_checks))
    # Four standard errors above 5 %. Eight checks at 5 % each would give 34 %.
    assert alarms / evaluations <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / evaluations)


@pytest.mark.parametrize(
    ("found", "power"),
    [
        (Inferiority(n=1, mean=0.0, low=math.nan, p=math.nan, error=math.nan), 0.0),
        (Inferiority(n=9, mean=0.0, low=0.0, p=1.0, error=0.0), 1.0),  # no noise hides anything
        (Inferiority(n=10_000, mean=0.0, low=0.0, p=0.5, error=1e-4), 0.95),  # the interval misses 5 %
    ],
)
def test_the_ends_of_the_power(found: Inferiority, power: float) -> None:
    assert found.power(0.1, 1) == pytest.approx(power, abs=1e-3)


@pytest.mark.parametrize("n", [8, 100])
def test_the_smallest_detectable_difference_is_found_with_a_power_of_80_percent(n: int) -> None:
    d = RNG.normal(0, 2.0, n)
    shift = smallest_detectable(d) / (d.std(ddof=1) / math.sqrt(n))
    critical = stats.t.ppf(0.975, n - 1)
    power = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    assert power == pytest.approx(0.8, abs=0.02)


def test_an_effect_needs_a_spread() -> None:
    assert effect_size(np.array([0.0, 2.0])) == pytest.approx(1 / math.sqrt(2))
    assert math.isnan(effect_size(np.array([1.0, 1.0])))
    assert math.isnan(effect_size(np.array([1.0])))
    assert math.isnan(smallest_detectable(np.array([1.0])))


def test_only_losses_are_among_the_worst() -> None:
    assert worst_first(np.array([0.0, -1.0, 3.0, -2.0, math.nan, -1.0]), 3) == [3, 1, 5]
    assert worst_first(np.array([0.0, 1.0]), 3) == []
