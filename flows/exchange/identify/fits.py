"""The forms in which the values of a spec may explain a mel: as they are, scaled, per band, with a floor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from melmill.flows.exchange.identify.result import How

Values = NDArray[np.float64]

# What a form with more parameters must leave of the misfit of one with fewer.
_WORTH = 0.97
# Fewer frames are too few for numbers of each band.
_ENOUGH_FRAMES = 16
# Of the lag with the largest correlation.
_AS_GOOD = 0.98


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Hold how well a form of a spec explains a mel.

    Parameters
    ----------
    how : str
        See `Match`.
    misfit : float
        Norm of the residual relative to that of the mel less its mean.
    error : float
        Norm of the residual relative to that of the mel.
    scale, shift : ndarray of float64, shape (n_mels,) or (1,)
        ``M = scale * values + shift``.
    floor : float or None
        Values of the mel that end at a floor of its own.
    """

    how: How
    misfit: float
    error: float
    scale: Values
    shift: Values
    floor: float | None = None


def lag_of(M: Values, values: Values) -> int:
    """Return the frames by which a mel begins after another, 0 unless another lag is clearly better."""
    a, b = (_standard(np.diff(X.mean(axis=0))) for X in (M, values))
    size = 1 << (len(a) + len(b)).bit_length()
    sums = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size)
    most = max(2, min(len(b) - 1, int(0.6 * len(b))))
    lags = np.arange(-most, most + 1)
    overlap = np.minimum(len(a), len(b) - lags) - np.maximum(0, -lags)
    wide = overlap >= max(4, 0.4 * min(len(a), len(b)))
    lags, scores = lags[wide], sums[lags[wide] % size] / np.sqrt(overlap[wide].clip(1))
    if not lags.size:
        return 0
    at_zero = scores[lags == 0]
    return 0 if at_zero.size and at_zero[0] >= _AS_GOOD * scores.max() else int(lags[np.argmax(scores)])


def _standard(x: Values) -> Values:
    centred = x - x.mean()
    return np.asarray(centred / max(1e-30, float(np.sqrt((centred**2).mean()))))


def overlap(M: Values, values: Values, lag: int) -> tuple[Values, Values]:
    """Return the frames that two mels share, the second `lag` frames later."""
    begin = max(0, -lag)
    end = min(M.shape[1], values.shape[1] - lag)
    return M[:, begin:end], values[:, begin + lag : end + lag]


def best_form(M: Values, values: Values, tolerance: float) -> Fit:
    """Return the form with the fewest numbers that explains a mel about as well as any.

    Parameters
    ----------
    M, values : ndarray of float64, shape (n_mels, n_frames)
        The mel, and that of a spec.
    tolerance : float
        Misfit that rounding explains.
    """
    best = fit("as it is", M, values, np.ones(1), np.zeros(1))
    for how, rows in (("affine", 1), ("per band", len(M))):
        if best.misfit > tolerance and (rows == 1 or M.shape[1] >= _ENOUGH_FRAMES):
            scale, shift = affine(M.reshape(rows, -1), values.reshape(rows, -1))
            best = better(best, fit(cast("How", how), M, values, scale, shift))
    return best


def better(simple: Fit, other: Fit) -> Fit:
    """Return a form, or a simpler one that explains about as much."""
    worth = _WORTH if other.how != "per band" else _WORTH**3
    return other if other.misfit < worth * simple.misfit else simple


def affine(M: Values, values: Values) -> tuple[Values, Values]:
    """Return scale and shift, by rows, of the least squares fit of ``scale * values + shift``."""
    mean, theirs = M.mean(axis=1), values.mean(axis=1)
    x = values - theirs[:, np.newaxis]
    spread = (x**2).sum(axis=1)
    scale = np.where(spread > 1e-12, (x * (M - mean[:, np.newaxis])).sum(axis=1) / np.maximum(spread, 1e-12), 1.0)
    scale = np.where(np.abs(scale) > 1e-12, scale, 1e-12)
    return scale, mean - scale * theirs


def fit(how: How, M: Values, values: Values, scale: Values, shift: Values, floor: float | None = None) -> Fit:
    """Return the fit of ``scale * values + shift``, not below a floor."""
    made = scale[:, np.newaxis] * values + shift[:, np.newaxis]
    if floor is not None:
        np.maximum(made, floor, out=made)
    residual = float(np.linalg.norm(M - made))
    return Fit(
        how=how,
        misfit=residual / max(1e-30, float(np.linalg.norm(M - M.mean()))),
        error=residual / max(1e-30, float(np.linalg.norm(M))),
        scale=scale,
        shift=shift,
        floor=floor,
    )


def of_floors(M: Values, logs: Values) -> Iterator[Fit]:
    """Fit the logs of bands above a floor, where the mel has one."""
    low, high = float(M.min()), float(M.max())
    near = 1e-4 * (high - low)
    above = low + near < M
    if np.count_nonzero(above) < 0.1 * M.size:
        return
    floor = low if np.count_nonzero(~above) > 2 else None
    # Bands that the mel's floor does not hide must not be hidden in the logs either.
    for _ in range(2):
        scale, shift = affine(M[above].reshape(1, -1), logs[above].reshape(1, -1))
        found = fit("other floor", M, logs, scale, shift, floor)
        yield found
        above = above & (np.abs(M - (scale * logs + shift)) < 0.05 * (high - low))
        if np.count_nonzero(above) < 0.1 * M.size:
            return
