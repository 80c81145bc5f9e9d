"""Distances between two sets of embeddings: Fréchet's, and that of a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST = 2
"""Fewer recordings have no distance."""

FEWEST_EXTRAPOLATED = 16
"""From so many recordings on, Fréchet's distance is extrapolated."""

KERNEL_SCALE = 100.0
"""The kernel's distance is multiplied by it, as its authors' program does."""

# Of the extrapolation: sizes of subsets, from all recordings down to half of them, and draws of each.
_SIZES, _SMALLEST, _DRAWS = 8, 0.5, 3
# Of the jackknife: recordings are left out in so many groups.
_GROUPS = 20
# A kernel compares each part with each other, so that more would take minutes.
_MOST_KERNEL_PARTS = 3_000
_NORMAL_95 = 1.959964


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """Hold the embeddings of a set of recordings.

    Parameters
    ----------
    parts : ndarray of float64, shape (n_parts, n_dimensions)
    recording : ndarray of int, shape (n_parts,)
        Which recording each part is of, from 0; ascending, and each has at least one.
    """

    parts: Floats
    recording: NDArray[np.intp]

    @property
    def n_recordings(self) -> int:
        """Number of recordings."""
        return int(self.recording[-1]) + 1 if len(self.recording) else 0

    def of(self, chosen: NDArray[np.intp]) -> Self:
        """Return the set of some recordings, which are numbered anew."""
        number = np.full(self.n_recordings, -1)
        number[np.sort(chosen)] = np.arange(len(chosen))
        kept = number[self.recording] >= 0
        return type(self)(parts=self.parts[kept], recording=number[self.recording[kept]])


class Distance(NamedTuple):
    """Hold a distance and its 95 % interval; NaN where there is none."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


def frechet(x: Floats, y: Floats) -> float:
    r"""Return Fréchet's distance of the normal distributions that have the moments of two sets.

    .. math:: \|\mu_x-\mu_y\|^2+\mathrm{tr}\,(\Sigma_x+\Sigma_y-2(\Sigma_x\Sigma_y)^{1/2})

    Parameters
    ----------
    x, y : ndarray of float64, shape (n_parts, n_dimensions)
        At least two parts each.

    References
    ----------
    Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982.

    Examples
    --------
    >>> round(frechet(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])), 6)
    9.0
    """
    # With Sigma = R'R of each, the trace of the root is the sum of the singular values of R_x R_y'.
    a, b = _root(x), _root(y)
    shared = float(np.sum(np.linalg.svd(a @ b.T, compute_uv=False)))
    apart = float(np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2))
    return max(0.0, apart + float(np.sum(a * a)) + float(np.sum(b * b)) - 2.0 * shared)


def _root(x: Floats) -> Floats:
    """Return R of a covariance R'R, upper triangular."""
    found: Any = np.linalg.qr((x - x.mean(axis=0)) / np.sqrt(len(x) - 1), mode="r")  # types know no mode
    return np.asarray(found, dtype=np.float64)


def frechet_distance(x: Embedded, y: Embedded, seed: int) -> Distance:
    """Return Fréchet's distance of two sets of the same recordings, with an interval.

    The interval is that of the jackknife over groups of recordings. A bootstrap would draw recordings
    twice, which makes the distance itself larger.
    """
    value = frechet(x.parts, y.parts)
    n = x.n_recordings
    n_groups = min(_GROUPS, n)
    order = np.random.default_rng(seed).permutation(n)
    groups = [order[start::n_groups] for start in range(n_groups)]
    left = []
    for group in groups:
        others = np.setdiff1d(np.arange(n), group)
        some = x.of(others), y.of(others)
        if min(len(one.parts) for one in some) >= FEWEST:
            left.append(frechet(some[0].parts, some[1].parts))
    return _with_interval(value, np.array(left)) if len(left) == n_groups > FEWEST else Distance(value)


def frechet_at_infinity(x: Embedded, y: Embedded, seed: int) -> Distance:
    """Return Fréchet's distance as sets would have it that are large without end.

    The distance of small sets is too large, by about the inverse of their size. So it is computed of
    subsets of several sizes, and a line over the inverse size is followed to 0. NaN with fewer than
    `FEWEST_EXTRAPOLATED` recordings.

    References
    ----------
    Chong and Forsyth, "Effectively unbiased FID and Inception score", CVPR 2020.
    """
    n = x.n_recordings
    if n < FEWEST_EXTRAPOLATED:
        return Distance(float("nan"))
    rng = np.random.default_rng(seed)
    inverses, values = [], []
    for inverse in np.linspace(1.0 / n, 1.0 / (_SMALLEST * n), _SIZES):
        size = max(FEWEST, round(1.0 / inverse))
        for _ in range(1 if size == n else _DRAWS):
            chosen = np.arange(n) if size == n else rng.choice(n, size, replace=False)
            inverses.append(1.0 / size)
            values.append(frechet(x.of(chosen).parts, y.of(chosen).parts))
    # Weighted by the numbers of draws, the whole set counts as much as the others.
    weights = [float(np.sqrt(_DRAWS)) if inverse == 1.0 / n else 1.0 for inverse in inverses]
    return Distance(float(np.polyfit(inverses, values, 1, w=weights)[1]))


def kernel_distance(x: Embedded, y: Embedded, seed: int) -> Distance:
    r"""Return the squared distance of the means of two sets in the space of a Gaussian kernel, times 100.

    It is the estimate without bias, which may be below 0. Parts of one recording are not compared with
    one another, nor with those of its own reconstruction:

    .. math:: 100\,\mathrm{E}_{a\ne b}[k(x_a,x_b)+k(y_a,y_b)-2k(x_a,y_b)],\quad
              k(x,y)=e^{-\|x-y\|^2/2\sigma^2}

    The width :math:`\sigma` is the median distance of parts of different recordings in `x`. The
    interval is that of the jackknife over recordings. NaN where all parts are the same.

    References
    ----------
    Gretton et al., "A kernel two-sample test", JMLR 2012, lemma 6; Chung et al., "KAD: no more FAD!",
    2025.
    """
    x, y = _fewer(x, y, seed)
    n = x.n_recordings
    apart = x.recording[:, np.newaxis] != x.recording
    squares = _squares(x.parts, x.parts)
    width = float(np.median(squares[apart]))
    if not width > 0:
        return Distance(float("nan"))
    pairs = ((x, x, squares), (y, y, _squares(y.parts, y.parts)), (x, y, _squares(x.parts, y.parts)))
    whole, without = 0.0, np.zeros(n)
    for factor, (a, b, distances) in zip((1.0, 1.0, -2.0), pairs, strict=True):
        sums = _by_recording(np.exp(distances / (-2.0 * width)), a, b)
        counts = np.outer(np.bincount(a.recording), np.bincount(b.recording)).astype(np.float64)
        for table in (sums, counts):
            np.fill_diagonal(table, 0.0)
        whole += factor * sums.sum() / counts.sum()
        if n > FEWEST:
            # Without one recording: all but its row and its column.
            some, of_them = (table.sum() - table.sum(axis=0) - table.sum(axis=1) for table in (sums, counts))
            without += factor * some / of_them
    if n <= FEWEST:
        return Distance(KERNEL_SCALE * float(whole))
    return _with_interval(KERNEL_SCALE * float(whole), KERNEL_SCALE * without)


def _with_interval(value: float, without: Floats) -> Distance:
    """Return a value with the interval that the jackknife gives: values without each group."""
    n = len(without)
    half = _NORMAL_95 * float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))
    return Distance(value, value - half, value + half)


def _fewer(x: Embedded, y: Embedded, seed: int) -> tuple[Embedded, Embedded]:
    """Return both sets with as many recordings, at random, as have at most `_MOST_KERNEL_PARTS` parts."""
    counts = np.maximum(np.bincount(x.recording), np.bincount(y.recording))
    if counts.sum() <= _MOST_KERNEL_PARTS:
        return x, y
    order = np.random.default_rng(seed).permutation(len(counts))
    chosen = order[: max(FEWEST, int(np.searchsorted(np.cumsum(counts[order]), _MOST_KERNEL_PARTS, side="right")))]
    return x.of(chosen), y.of(chosen)


def _squares(a: Floats, b: Floats) -> Floats:
    """Return squared distances ``(n_parts of a, n_parts of b)``."""
    centre = a.mean(axis=0)  # keeps the squares small, and so exact
    a, b = a - centre, b - centre
    found = np.sum(a * a, axis=1)[:, np.newaxis] + np.sum(b * b, axis=1) - 2.0 * (a @ b.T)
    return np.asarray(np.maximum(found, 0.0))


def _by_recording(values: Floats, a: Embedded, b: Embedded) -> Floats:
    """Return sums over the parts of each two recordings ``(n_recordings, n_recordings)``."""
    rows = np.add.reduceat(values, np.flatnonzero(np.diff(a.recording, prepend=-1)), axis=0)
    return np.asarray(np.add.reduceat(rows, np.flatnonzero(np.diff(b.recording, prepend=-1)), axis=1))
