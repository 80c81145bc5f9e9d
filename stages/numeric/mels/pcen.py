"""Per-channel energy normalisation and its inverse.

References
----------
.. [1] Wang, Getreuer, Hughes, Lyon, Saurous: "Trainable Frontend For Robust and Far-Field Keyword
   Spotting", ICASSP 2017, eq. 1 (the normalisation) and 2 (the smoother).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.errors import ContractError
from melmill.stages.numeric.melspec import Pcen

Float64 = NDArray[np.float64]

# The last gain whose inverse is sound. Rounding errors grow up to 1 / (1 - gain) times.
MAX_GAIN = 0.99

# Newton's steps from below double the correct digits; saturated bands need about a dozen.
_MAX_STEPS = 60
_TOLERANCE = 1e-12


def smoothing(params: Pcen, frame_rate: float) -> float:
    """Return the smoother's coefficient s at `frame_rate` frames/s, as librosa chooses it.

    >>> round(smoothing(Pcen(), 62.5), 4)
    0.0392
    """
    frames = params.time_constant_s * frame_rate
    return float((np.sqrt(1.0 + 4.0 * frames**2) - 1.0) / (2.0 * frames**2))


def pcen(M: Float64, params: Pcen, frame_rate: float) -> Float64:
    """Normalise mel energies by a smoothed copy of themselves, eq. 1 and 2 of [1]_.

    Parameters
    ----------
    M : ndarray of float64, shape (n_mels, n_frames)
        Non-negative energies.
    params : Pcen
    frame_rate : float
        Frames per second.

    Returns
    -------
    ndarray of float64, shape (n_mels, n_frames)
        ``(M / (eps + smooth)**gain + bias)**power - bias**power``. The smoother starts from 1, as
        librosa's does.
    """
    s = smoothing(params, frame_rate)
    state = np.full((len(M), 1), 1.0 - s)
    # Imported here, as few mels are normalised so. It costs as much as a stage's other imports.
    from scipy.signal import lfilter

    smooth, _ = lfilter([s], [1.0, s - 1.0], M, axis=-1, zi=state)
    return _compress(M * (params.eps + smooth) ** -params.gain, params)


def inverse_pcen(P: Float64, params: Pcen, frame_rate: float) -> Float64:
    """Recover the energies from their normalisation, frame by frame.

    The smoother is a causal recursion on the energies. Given its state, a frame is the root of
    ``M / (c + s M)**gain = R``, which is monotone in M for a gain up to 1. Where a band jumps far
    above its smoothed past, the result is up to ``1 / (1 - gain)`` times less accurate than `P`: 50
    times for the default. On speech in [-1, 1] float32 values give it back to 1e-4 dB, and float16
    values to 0.3 dB at worst.

    Parameters
    ----------
    P : ndarray of float64, shape (n_mels, n_frames)
        From frame 0 of the recording: the state starts there.

    Returns
    -------
    ndarray of float64, shape (n_mels, n_frames)

    Raises
    ------
    ContractError
        ``gain`` exceeds `MAX_GAIN`, or `P` holds a value that no finite energy gives.
    """
    if params.gain > MAX_GAIN:
        raise ContractError(
            f"PCEN with gain={params.gain!r} can't be undone: near 1 loud bands all get one value (and above 1 smaller "
            f"ones), so that rounding hides which it was. Extract with pcen gain <= {MAX_GAIN}, or with a log"
        )
    s = smoothing(params, frame_rate)
    ratio = _expand(np.maximum(P, 0.0), params)
    M = np.empty_like(ratio)
    smooth = np.ones(len(ratio))
    for t in range(ratio.shape[1]):
        M[:, t] = _solve(ratio[:, t], params.eps + (1.0 - s) * smooth, s, params.gain)
        smooth = s * M[:, t] + (1.0 - s) * smooth
    return M


def _compress(ratio: Float64, params: Pcen) -> Float64:
    if params.power == 0.0:
        return np.log1p(ratio)
    if params.bias == 0.0:
        return np.asarray(ratio**params.power)
    return np.asarray(params.bias**params.power * np.expm1(params.power * np.log1p(ratio / params.bias)))


def _expand(P: Float64, params: Pcen) -> Float64:
    if params.power == 0.0:
        return np.expm1(P)
    if params.bias == 0.0:
        return np.asarray(P ** (1.0 / params.power))
    return np.asarray(params.bias * np.expm1(np.log1p(P / params.bias**params.power) / params.power))


def _solve(R: Float64, c: Float64, s: float, gain: float) -> Float64:
    """Return M with ``M / (c + s M)**gain = R`` by Newton's method on ``log M``.

    In ``u = log M`` the function is concave and rises. So steps from below never pass the root.
    """
    positive = np.maximum(R, np.finfo(np.float64).tiny)
    u = np.log(positive) + gain * np.log(c)
    target = np.log(positive)
    for _ in range(_MAX_STEPS):
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            share = s * np.exp(u) / (c + s * np.exp(u))
            step = (u - gain * np.log(c + s * np.exp(u)) - target) / (1.0 - gain * share)
        u = u - step
        if not np.all(np.isfinite(step)):
            break
        if np.max(np.abs(step)) < _TOLERANCE:
            return np.where(R > 0.0, np.exp(u), 0.0)
    raise ContractError(
        f"PCEN with gain={gain!r} can't be undone here: a value as large as {float(R.max()):g} (after the exponent) is "
        "made by no finite energy. Give the mel as it was extracted, from its first frame, or extract with a log"
    )
