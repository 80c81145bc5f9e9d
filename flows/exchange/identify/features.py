"""What a mel says of its making by its values alone, as a vector of numbers.

Some of them change with a normalisation, such as the range of values and where they end. The others
do not: how bands overlap, how fast they change, how loud they are over time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_LAGS = (1, 2, 3, 4, 6, 8, 12, 16)
_CHANGES = (1, 2, 3, 4, 5, 6)
_NEIGHBOURS = (1, 2, 3)
_LOW_BANDS = 24
_PROFILE = 24
_THIRDS = 3
_TINY = 1e-9
# Quantiles of each band's values less its mean over its deviation, and points over the bands.
_SHAPE = (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 1.0)
_SHAPE_POINTS = 8
# Correlations count by how far they are from 1, down to this.
_LEAST_APART = 1e-5
# Share of values that lie at the lowest, to this part of the range.
_AT_END = 1e-4
_EDGES = 3


def features(M: NDArray[np.floating], floors: Sequence[float]) -> NDArray[np.float32]:
    """Return what a mel's values say of its making.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        At least four bands and two frames, not all equal.
    floors : sequence of float
        Lowest values of known mels.

    Returns
    -------
    ndarray of float32, shape (n_features,)
    """
    values = np.asarray(M, dtype=np.float64)
    linear = float(values.min()) >= 0 and float(np.median(values)) < 0.1 * float(values.max())
    # Without a log nearly all of a mel is close to 0: its own log says more.
    compressed = np.log(values + 1e-7 * float(values.max())) if linear else values
    standard = (compressed - compressed.mean()) / max(_TINY, float(compressed.std()))
    parts = [
        [float(linear), len(values) / 128.0],
        _ends(values, floors),
        _spread(standard),
        _levels(standard),
        _shapes(standard),
        _overlaps(standard),
        _pace(standard),
        _edges(standard),
    ]
    joined = np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])
    return np.asarray(np.nan_to_num(joined), dtype=np.float32)


def _ends(values: Values, floors: Sequence[float]) -> Values:
    """Return the range of the values as they are, and which known floor they end at."""
    quantiles = _quantiles(values)
    low, high = quantiles[0], quantiles[-1]
    near = _AT_END * (high - low)
    shares = [float((values <= low + near).mean()), float((values >= high - near).mean())]
    squashed = np.sign(quantiles) * np.log1p(np.abs(quantiles))
    known = [np.exp(-abs(low - floor) / (0.003 + 1e-3 * abs(floor))) for floor in floors]
    tops = [np.exp(-abs(high - top) / 0.003) for top in (1.0, 4.0)]
    moments = np.log1p([abs(values.mean()), values.std()])
    return np.concatenate([squashed, np.sqrt(shares), known, tops, moments])


def _spread(standard: Values) -> Values:
    """Return how values are spread, by quantiles and moments."""
    moments = [float((standard**3).mean()), float(np.log1p((standard**4).mean()))]
    return np.concatenate([_quantiles(standard)[1:-1], moments])


def _quantiles(values: Values) -> Values:
    """Return the quantiles, the nearest values below, which a sort gives sooner than a mean of two."""
    ranked = np.sort(values, axis=None)
    return np.asarray(ranked[(np.asarray(_QUANTILES) * (ranked.size - 1)).astype(int)])


def _levels(standard: Values) -> Values:
    """Return mean and deviation of bands over time, and how much they say of a normalisation per band."""
    mean, deviation = standard.mean(axis=1), standard.std(axis=1)
    low = [np.pad(x[:8], (0, max(0, 8 - len(x)))) for x in (mean, deviation)]
    profile = [_resampled(x, _PROFILE) for x in (mean, deviation)]
    return np.concatenate([*low, *profile, [mean.std(), deviation.std(), standard.min(axis=1).std()]])


def _shapes(standard: Values) -> Values:
    """Return how the values of a band are spread, which a normalisation of each band leaves as it is."""
    ranked = np.sort(standard, axis=1)
    n_frames = standard.shape[1]
    mean, deviation = ranked.mean(axis=1, keepdims=True), ranked.std(axis=1, keepdims=True)
    chosen = ranked[:, (np.asarray(_SHAPE) * (n_frames - 1)).astype(int)]
    shapes = np.clip((chosen - mean) / np.maximum(_TINY, deviation), -10.0, 10.0)
    least = (standard <= ranked[:, :1] + _AT_END * np.maximum(_TINY, deviation)).mean(axis=1)
    return np.concatenate(
        [*(_resampled(x, _SHAPE_POINTS) for x in shapes.T), _resampled(np.sqrt(least), _SHAPE_POINTS)]
    )


def _overlaps(standard: Values) -> Values:
    """Return how alike neighbouring bands are, of values and of their changes: widths of triangles.

    Bands that lie between the same two bins of the transform are nearly equal, so that it matters
    how far from 1 a correlation is.
    """
    found = []
    for X in (standard, np.diff(standard, axis=1)):
        centred = X - X.mean(axis=1, keepdims=True)
        scaled = centred / np.maximum(_TINY, np.sqrt((centred**2).sum(axis=1, keepdims=True)))
        for step in _NEIGHBOURS:
            apart = _apart((scaled[:-step] * scaled[step:]).sum(axis=1))
            found += [np.pad(apart[:_LOW_BANDS], (0, max(0, _LOW_BANDS - len(apart)))), _resampled(apart, _PROFILE)]
    # Harmonics of a voice stand apart where bands are narrow.
    ripple = np.abs(np.diff(standard, n=2, axis=0)).mean(axis=1) if len(standard) > 2 else np.zeros(1)
    found.append(_resampled(ripple, _PROFILE))
    return np.concatenate(found)


def _pace(standard: Values) -> Values:
    """Return how alike frames are some frames apart, by thirds of the bands: the hop and the window."""
    found = []
    for third in np.array_split(standard, _THIRDS):
        centred = third - third.mean(axis=1, keepdims=True)
        found += [_apart(_lagged(centred, _LAGS)), _lagged(np.diff(centred, axis=1), _CHANGES)]
    return np.concatenate(found)


def _lagged(X: Values, lags: Sequence[int]) -> Values:
    """Return how alike frames are so many frames apart, relative to their power."""
    n = X.shape[1]
    flat = np.ascontiguousarray(X.T).ravel()
    power = max(_TINY, float(np.vdot(flat, flat)) / n)
    shifts = [(lag, lag * len(X)) for lag in lags]
    return np.array([np.vdot(flat[k:], flat[:-k]) / (n - lag) / power if lag < n else 0.0 for lag, k in shifts])


def _apart(alike: Values) -> Values:
    """Return correlations as logs of how far they are from 1: of 1e-5 or more."""
    return np.asarray(np.log10(np.maximum(1.0 - alike, _LEAST_APART)))


def _edges(standard: Values) -> Values:
    """Return how much the first and last frames change, relative to others: the padding."""
    changes = np.abs(np.diff(standard, axis=1)).mean(axis=0)
    usual = max(_TINY, float(np.median(changes)))
    ends = [*changes[:_EDGES], *changes[::-1][:_EDGES]]
    levels, spread = standard.mean(axis=0), standard.std(axis=0)
    # Some projects overwrite the last frame.
    last = [levels[0], levels[-1], spread[0], spread[-1], float(spread[-1] < 1e-3), float((changes < 1e-6).mean())]
    return np.asarray([*np.log((np.pad(ends, (0, 2 * _EDGES - len(ends))) + _TINY) / usual), *last])


def _resampled(x: Values, n: int) -> Values:
    return np.asarray(np.interp(np.arange(n) * ((len(x) - 1) / (n - 1)), np.arange(len(x)), x))
