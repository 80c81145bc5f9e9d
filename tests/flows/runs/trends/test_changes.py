"""Change points: where they are, and how often there is none."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from melmill.flows.runs.trends.changes import FALSE_ALARMS, change_points


@pytest.mark.parametrize(
    ("means", "errors", "expected"),
    [
        ([], [], []),
        ([3.0], [0.1], []),
        ([3.0, 3.0, 3.0], [0.0, 0.0, 0.0], []),  # no spread, and no change
        ([3.0, 3.0, 3.1], [0.0, 0.0, 0.0], [2]),  # no spread: any change is one
        ([3.0, 3.1, 2.9, 2.0, 2.1, 2.0], [0.1] * 6, [3]),
        ([3.0, 3.1, 2.9, 2.0, 2.1, 2.0], [1.0] * 6, []),  # lost in the noise
        ([1.0, 1.0, 3.0, 3.0, 1.0, 1.0], [0.1] * 6, [2, 4]),
        ([1.0, 1.0, 3.0, 1.0, 1.0], [0.1] * 5, [2, 3]),  # one run alone
        ([1.0, 1.0, 3.0, 1.0, 1.0], [0.1, 0.1, 3.0, 0.1, 0.1], []),  # that was measured badly
        ([1e9, 1e9, 1e9 + 5, 1e9 + 5], [0.5] * 4, [2]),  # small beside their level
    ],
)
def test_levels(means: list[float], errors: list[float], expected: list[int]) -> None:
    assert change_points(means, errors) == expected


def test_the_division_is_the_best_of_all() -> None:
    """Compare with all divisions of short series, by the formula as it is written."""
    rng = np.random.default_rng(1)
    for _ in range(40):
        m = int(rng.integers(2, 8))
        x, s = rng.normal(0.0, 2.0, m), rng.uniform(0.3, 1.0, m)
        penalty = _penalty(m)

        def cost(starts: tuple[int, ...], x: np.ndarray = x, s: np.ndarray = s, penalty: float = penalty) -> float:
            parts = np.split(np.arange(len(x)), starts)
            squares = sum((((x[p] - np.average(x[p], weights=s[p] ** -2.0)) / s[p]) ** 2).sum() for p in parts)
            return float(squares + penalty * len(starts))

        divisions = [starts for n in range(m) for starts in combinations(range(1, m), n)]
        assert tuple(change_points(x.tolist(), s.tolist())) == min(divisions, key=cost)


def _penalty(m: int) -> float:
    from scipy.stats import chi2

    return float(chi2.isf(FALSE_ALARMS / (m - 1), 1))


@pytest.mark.parametrize("m", [2, 5, 20, 60])
def test_false_alarms_are_as_rare_as_stated(m: int) -> None:
    rng = np.random.default_rng(2)
    found = [bool(change_points(rng.normal(3.0, 0.1, m).tolist(), [0.1] * m)) for _ in range(1000)]
    # Three standard errors of a share of 5 % in 1,000.
    assert np.mean(found) <= FALSE_ALARMS + 3 * np.sqrt(FALSE_ALARMS * (1 - FALSE_ALARMS) / 1000)


def test_changes_of_three_standard_errors_are_found() -> None:
    rng = np.random.default_rng(3)
    series = [np.concatenate([rng.normal(0.0, 1.0, 10), rng.normal(3.0, 1.0, 10)]) for _ in range(300)]
    assert np.mean([len(change_points(x.tolist(), [1.0] * 20)) == 1 for x in series]) > 0.9
