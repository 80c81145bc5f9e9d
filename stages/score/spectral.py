"""Distances between spectra and between waveforms, as plain functions of aligned arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

LIMIT_DB = 200.0
"""Ratios are limited to +-200 dB, beyond the precision of any signal, so that identical signals get a finite value."""

LSD_FLOOR = 1e-5
"""Floor of the log spectral distance, relative to the peak magnitude of a full-scale sine."""

MEL_FLOOR = 1e-5
"""Floor under the log of a mel magnitude, the customary one of neural vocoders."""

MCD_ORDER = 13
"""Highest cepstral coefficient of the mel-cepstral distortion."""


def convergence_db(estimate: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the spectral convergence ``20 log10(||estimate - reference|| / ||reference||)`` in dB.

    Of magnitudes it is SC, of linear mels SCM.

    Parameters
    ----------
    estimate, reference : ndarray of float, same shape
        Non-negative; the reference is not all zero.

    Returns
    -------
    float
        0 dB for a silent estimate, -200 dB (`LIMIT_DB`) for an exact one.

    References
    ----------
    Masuyama, Ueno, Ono, "Mel-Spectrogram Inversion via Alternating Direction Method of Multipliers", eqs. 21 and 22.

    Examples
    --------
    >>> round(convergence_db(np.full((2, 3), 0.5), np.ones((2, 3))), 2)
    -6.02
    """
    return _level_db(_energy(estimate - reference), _energy(reference))


def log_spectral_distance_db(estimate: NDArray[Any], reference: NDArray[Any], full_scale: float) -> float:
    """Return the log spectral distance in dB: the RMS over bins of the level difference, averaged over frames.

    Parameters
    ----------
    estimate, reference : ndarray of float, shape (n_frames, n_bins)
        Magnitudes.
    full_scale : float
        Magnitude that a sine of amplitude 1 peaks at (half the window's sum). Magnitudes below `LSD_FLOOR` of it
        (-100 dB, near the rounding noise of 16-bit PCM) are raised to that, so that digital silence has a level.

    References
    ----------
    Gray, Markel, "Distance measures for speech processing", IEEE TASSP 24(5), 1976: the d_2 norm of log spectra.

    Examples
    --------
    >>> round(log_spectral_distance_db(np.full((2, 3), 0.1), np.ones((2, 3)), full_scale=1.0), 2)
    20.0
    """
    floor = LSD_FLOOR * full_scale
    nepers = _log(estimate, floor) - _log(reference, floor)
    per_frame = np.sqrt(np.mean(nepers * nepers, axis=1, dtype=np.float64))
    return float(20.0 / math.log(10.0) * np.mean(per_frame))


def log_mel(M: NDArray[Any], power: float) -> NDArray[Any]:
    """Return the natural log of a linear mel's magnitude ``M ** (1 / power)``, floored at `MEL_FLOOR`, in nepers.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        Linear mel ``E |X|**power``, non-negative.
    power : float
        Its exponent, so that mels of magnitude and of power are measured in one unit.
    """
    return np.asarray(_log(M, MEL_FLOOR**power) / M.dtype.type(power))


def mel_mae(estimate: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the mean absolute difference of two log mels (see `log_mel`), in nepers (1 Np = 8.69 dB).

    References
    ----------
    Kong, Kim, Bae, "HiFi-GAN", NeurIPS 2020, eq. 3, of the magnitude mel with the floor 1e-5.
    """
    return float(np.mean(np.abs(estimate - reference), dtype=np.float64))


def mel_cepstral_distortion_db(estimate: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the mel-cepstral distortion in dB of two log mels (see `log_mel`) of aligned signals.

    With B bands and the cepstrum ``c_k = 2/B sum_b ln M_b cos(pi k (b + 1/2) / B)`` of each frame, it is the mean over
    frames of ``10/ln(10) sqrt(2 sum_{k=1}^{13} (c_k - c'_k)^2)``: the RMS level difference of the smoothed envelopes.
    ``c_0``, the level, is left out. Frames are compared in place, without time warping: a reconstruction is aligned.

    Parameters
    ----------
    estimate, reference : ndarray of float, shape (n_mels, n_frames)
        Nepers. With fewer than 14 bands all coefficients but the zeroth are used.

    References
    ----------
    Kubichek, "Mel-cepstral distance measure for objective speech quality assessment", PACRIM 1993.
    """
    n_mels = len(reference)
    cepstrum = scipy.fft.dct(estimate - reference, type=2, axis=0)[1 : MCD_ORDER + 1] / n_mels
    per_frame = np.sqrt(2.0 * np.sum(cepstrum * cepstrum, axis=0, dtype=np.float64))
    return float(10.0 / math.log(10.0) * np.mean(per_frame))


def si_sdr_db(estimate: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the scale-invariant signal-to-distortion ratio of two waveforms in dB, after removing their means.

    ``10 log10(||a s||^2 / ||a s - s'||^2)`` with ``a = <s', s> / ||s||^2``, within +-200 dB (`LIMIT_DB`).

    Parameters
    ----------
    estimate, reference : ndarray of float, shape (n_samples,)
        The reference is not constant.

    References
    ----------
    Le Roux, Wisdom, Erdogan, Hershey, "SDR - half-baked or well done?", ICASSP 2019, eq. 3.

    Examples
    --------
    >>> s, noise = np.array([1.0, 1.0, -1.0, -1.0]), np.array([0.1, -0.1, 0.1, -0.1])
    >>> round(si_sdr_db(0.3 * (s + noise), s), 6)
    20.0
    """
    s = reference.astype(np.float64) - np.mean(reference, dtype=np.float64)
    s_hat = estimate.astype(np.float64) - np.mean(estimate, dtype=np.float64)
    target = np.dot(s_hat, s) / np.dot(s, s) * s
    return _level_db(_energy(target), _energy(s_hat - target))


def _energy(x: NDArray[Any]) -> float:
    return float(np.sum(np.square(x), dtype=np.float64))


def _log(x: NDArray[Any], floor: float) -> NDArray[Any]:
    return np.asarray(np.log(np.maximum(x, x.dtype.type(floor))))


def _level_db(energy: float, against: float) -> float:
    if energy == 0 or against == 0:
        return -LIMIT_DB if energy == 0 else LIMIT_DB
    return min(max(10.0 * math.log10(energy / against), -LIMIT_DB), LIMIT_DB)
