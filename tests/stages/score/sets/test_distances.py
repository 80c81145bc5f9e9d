"""Distances of sets: against their formulas, by naive loops, and their bias over many draws."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg

from melmill.stages.score.sets import distances
from melmill.stages.score.sets.distances import (
    FEWEST_EXTRAPOLATED,
    Distance,
    Embedded,
    frechet,
    frechet_at_infinity,
    frechet_distance,
    kernel_distance,
)


def drawn(n: int, seed: int, *, parts: int = 2, size: int = 6, mean: float = 0.0) -> Embedded:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n * parts, size)) @ np.diag(np.linspace(0.5, 2.0, size)) + mean
    return Embedded(parts=x, recording=np.repeat(np.arange(n), parts))


@pytest.mark.parametrize(
    ("n_x", "n_y", "size"),
    [
        (30, 40, 5),
        (30, 30, 1),
        (4, 5, 8),  # fewer parts than numbers: the covariances have no inverse
    ],
)
def test_frechet_is_its_formula(n_x: int, n_y: int, size: int) -> None:
    rng = np.random.default_rng(size)
    x, y = rng.standard_normal((n_x, size)), 0.5 + 2.0 * rng.standard_normal((n_y, size))
    a, b = (np.atleast_2d(np.cov(values, rowvar=False)) for values in (x, y))
    root = np.trace(linalg.sqrtm(a @ b)).real
    expected = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + np.trace(a) + np.trace(b) - 2 * root
    assert frechet(x, y) == pytest.approx(expected, rel=1e-6)


def kernel(a: NDArray[np.float64], b: NDArray[np.float64], width: float) -> float:
    return float(np.exp(-np.sum((a - b) ** 2) / (2 * width)))


def naive_kernel_distance(x: Embedded, y: Embedded) -> float:
    apart = [
        (i, j) for i, a in enumerate(x.recording) for j, b in enumerate(x.recording) if a != b
    ]  # parts of different recordings
    width = float(np.median([np.sum((x.parts[i] - x.parts[j]) ** 2) for i, j in apart]))
    total = 0.0
    for factor, left, right in ((1, x, x), (1, y, y), (-2, x, y)):
        values = [
            kernel(p, q, width)
            for p, a in zip(left.parts, left.recording, strict=True)
            for q, b in zip(right.parts, right.recording, strict=True)
            if a != b
        ]
        total += factor * float(np.mean(values))
    return 100 * total


def test_the_kernels_distance_is_its_formula() -> None:
    x = Embedded(parts=drawn(4, 0, parts=3).parts[:10], recording=np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3]))
    y = Embedded(parts=1 + drawn(4, 1).parts, recording=np.repeat(np.arange(4), 2))
    found = kernel_distance(x, y, 0)
    assert found.value == pytest.approx(naive_kernel_distance(x, y))


def test_its_interval_is_the_jackknifes() -> None:
    x, y = drawn(6, 0), drawn(6, 1, mean=0.5)
    found = kernel_distance(x, y, 0)
    # The width is that of all, so values without a recording are made with it too.
    width = np.median(distances._squares(x.parts, x.parts)[x.recording[:, np.newaxis] != x.recording])

    def without(one: int) -> float:
        kept = np.flatnonzero(x.recording != one), np.flatnonzero(y.recording != one)
        total = 0.0
        for factor, (left, i), (right, j) in (
            (1, (x, kept[0]), (x, kept[0])),
            (1, (y, kept[1]), (y, kept[1])),
            (-2, (x, kept[0]), (y, kept[1])),
        ):
            values = np.exp(-distances._squares(left.parts[i], right.parts[j]) / (2 * width))
            total += factor * values[left.recording[i][:, np.newaxis] != right.recording[j]].mean()
        return 100 * total

    values = np.array([without(one) for one in range(6)])
    error = np.sqrt(5 / 6 * np.sum((values - values.mean()) ** 2))
    assert found.high - found.value == pytest.approx(1.959964 * error)
    assert found.value - found.low == pytest.approx(1.959964 * error)


def test_equal_sets_have_no_distance() -> None:
    x = drawn(20, 0)
    assert frechet_distance(x, x, 0).value == pytest.approx(0.0, abs=1e-9)
    assert frechet_at_infinity(x, x, 0).value == pytest.approx(0.0, abs=1e-9)
    assert kernel_distance(x, x, 0).value == 0.0


def test_bias_of_small_sets() -> None:
    """Both sets are drawn from one distribution, so that every distance should be 0."""
    found = {name: [] for name in ("fad", "infinity", "kad")}  # type: dict[str, list[float]]
    for seed in range(30):
        x, y = drawn(24, 2 * seed), drawn(24, 2 * seed + 1)
        found["fad"].append(frechet(x.parts, y.parts))
        found["infinity"].append(frechet_at_infinity(x, y, seed).value)
        found["kad"].append(kernel_distance(x, y, seed).value)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    errors = {name: float(np.std(values)) / 30**0.5 for name, values in found.items()}
    assert means["fad"] > 10 * errors["fad"]
    assert abs(means["infinity"]) < 0.2 * means["fad"]
    assert abs(means["kad"]) < 3 * errors["kad"]


def test_a_distance_grows_with_the_difference() -> None:
    x = drawn(20, 0)
    for of in (frechet_distance, frechet_at_infinity, kernel_distance):
        values = [of(x, drawn(20, 1, mean=mean), 0).value for mean in (0.0, 0.5, 1.0)]
        assert values == sorted(values)


@pytest.mark.parametrize("n", [2, 3])
def test_few_recordings_have_a_value_and_no_interval(n: int) -> None:
    found = frechet_distance(drawn(n, 0, size=2), drawn(n, 1, size=2), 0)
    assert np.isfinite(found.value)
    assert np.isnan(found.low) == (n == 2)
    few = drawn(FEWEST_EXTRAPOLATED - 1, 0), drawn(FEWEST_EXTRAPOLATED - 1, 1)
    assert np.isnan(frechet_at_infinity(*few, 0).value)
    assert np.isnan(kernel_distance(drawn(2, 0), drawn(2, 1), 0).low)


def test_parts_that_are_all_the_same_have_no_kernels_distance() -> None:
    flat = Embedded(parts=np.ones((6, 2)), recording=np.arange(6))
    assert np.isnan(kernel_distance(flat, drawn(6, 0, parts=1, size=2), 0).value)


def test_a_kernel_compares_a_part_of_many_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = drawn(12, 0), drawn(12, 1)
    whole = kernel_distance(x, y, 0)
    monkeypatch.setattr(distances, "_MOST_KERNEL_PARTS", 10)
    some = [kernel_distance(x, y, seed) for seed in (0, 0, 1)]
    assert some[0] == some[1]
    assert len({whole.value, some[0].value, some[2].value}) == 3


def test_a_set_of_some_recordings() -> None:
    x = drawn(5, 0)
    some = x.of(np.array([3, 1]))
    np.testing.assert_array_equal(some.recording, [0, 0, 1, 1])
    np.testing.assert_array_equal(some.parts, x.parts[[2, 3, 6, 7]])
    assert isinstance(frechet_distance(some, some, 0), Distance)
