"""Distances between spectra, mels and waveforms of aligned signals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.metric import Metric
from melmill.stages.score.pair import Pair

Floats = NDArray[np.float32 | np.float64]

LIMIT_DB = 200.0
"""Ratios are limited to +-200 dB, so that identical signals have a finite value."""

LSD_FLOOR = 1e-5
"""Floor of the log spectral distance, relative to the peak magnitude of a full-scale sine."""

MEL_FLOOR = 1e-5
"""Floor under the log of a mel magnitude, as neural vocoders commonly use it."""

MCD_ORDER = 13
"""Highest cepstral coefficient of the mel-cepstral distortion."""


def convergence_db(estimate: Floats, reference: Floats) -> float:
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
    Masuyama, Ueno, Ono, "Mel-Spectrogram Inversion via Alternating Direction Method of
    Multipliers", eqs. 21 and 22.

    Examples
    --------
    >>> round(convergence_db(np.full((2, 3), 0.5), np.ones((2, 3))), 2)
    -6.02
    """
    return _level_db(_energy(estimate - reference), _energy(reference))


def log_spectral_distance_db(estimate: Floats, reference: Floats, full_scale: float) -> float:
    """Return the log spectral distance in dB, the RMS of level differences averaged over frames.

    Parameters
    ----------
    estimate, reference : ndarray of float, shape (n_frames, n_bins)
        Magnitudes.
    full_scale : float
        Magnitude that a sine of amplitude 1 peaks at, half the window's sum. Magnitudes below
        `LSD_FLOOR` of it are raised to that floor, so that digital silence has a level. The floor
        is -100 dB, near the rounding noise of 16-bit PCM.

    References
    ----------
    Gray, Markel, "Distance measures for speech processing", IEEE TASSP 24(5), 1976: the d_2 norm
    of log spectra.

    Examples
    --------
    >>> round(log_spectral_distance_db(np.full((2, 3), 0.1), np.ones((2, 3)), full_scale=1.0), 2)
    20.0
    """
    floor = LSD_FLOOR * full_scale
    nepers = _log(estimate, floor) - _log(reference, floor)
    per_frame = np.sqrt(np.mean(nepers * nepers, axis=1, dtype=np.float64))
    return float(20.0 / math.log(10.0) * np.mean(per_frame))


def log_mel(M: Floats, power: float) -> Floats:
    """Return the log of ``M ** (1 / power)`` of a linear mel in nepers, floored at `MEL_FLOOR`.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        Linear mel ``E |X|**power``, non-negative.
    power : float
        Its exponent, so that mels of magnitude and of power are measured in one unit.
    """
    return np.asarray(_log(M, MEL_FLOOR**power) / M.dtype.type(power))


def mel_mae(estimate: Floats, reference: Floats) -> float:
    """Return the mean absolute difference of two log mels in nepers (1 Np = 8.69 dB).

    References
    ----------
    Kong, Kim, Bae, "HiFi-GAN", NeurIPS 2020, eq. 3, for the magnitude mel with the floor 1e-5.
    """
    return float(np.mean(np.abs(estimate - reference), dtype=np.float64))


def mel_cepstral_distortion_db(estimate: Floats, reference: Floats) -> float:
    """Return the mel-cepstral distortion in dB of two log mels (see `log_mel`) of aligned signals.

    A frame of B bands has the cepstrum ``c_k = 2/B sum_b ln M_b cos(pi k (b + 1/2) / B)``. The
    distortion is the mean over frames of ``10/ln(10) sqrt(2 sum_{k=1}^{13} (c_k - c'_k)^2)``, the
    RMS level difference of the smoothed envelopes. It leaves out ``c_0``, the level. Frames are
    compared without time warping, because a reconstruction is aligned with its recording.

    Parameters
    ----------
    estimate, reference : ndarray of float, shape (n_mels, n_frames)
        Nepers. With fewer than 14 bands, all coefficients except the zeroth are used.

    References
    ----------
    Kubichek, "Mel-cepstral distance measure for objective speech quality assessment", PACRIM 1993.
    """
    import scipy.fft  # here, as every plan of scores imports this module

    n_mels = len(reference)
    cepstrum = scipy.fft.dct(estimate - reference, type=2, axis=0)[1 : MCD_ORDER + 1] / n_mels
    per_frame = np.sqrt(2.0 * np.sum(cepstrum * cepstrum, axis=0, dtype=np.float64))
    return float(10.0 / math.log(10.0) * np.mean(per_frame))


def si_sdr_db(estimate: Floats, reference: Floats) -> float:
    """Return the scale-invariant signal-to-distortion ratio of two waveforms in dB.

    It is ``10 log10(||a s||^2 / ||a s - s'||^2)`` with ``a = <s', s> / ||s||^2``, for signals
    without their means, and within +-200 dB (`LIMIT_DB`).

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


def _energy(x: Floats) -> float:
    return float(np.sum(np.square(x), dtype=np.float64))


def _log(x: Floats, floor: float) -> Floats:
    return np.asarray(np.log(np.maximum(x, x.dtype.type(floor))))


def _level_db(energy: float, against: float) -> float:
    if energy == 0 or against == 0:
        return -LIMIT_DB if energy == 0 else LIMIT_DB
    return min(max(10.0 * math.log10(energy / against), -LIMIT_DB), LIMIT_DB)


def _log_mels(pair: Pair) -> tuple[Floats, Floats]:
    """Return the log mels of estimate and reference."""
    reference, estimate = (log_mel(M, pair.power) for M in pair.mels)
    return estimate, reference


SCM = Metric(
    name="scm",
    column="scm_db",
    title="SCM",
    unit="dB",
    better="lower",
    needs="mels",
    compute=lambda pair: convergence_db(pair.mels[1], pair.mels[0]),
    order=50,
    says="Distance of the mel spectrogram of the reconstruction from the one it was made from. Silence has 0 dB.",
    formula=r"$20\log_{10}(\lVert E|\mathrm{STFT}(\hat x)|^p - M\rVert / \lVert M\rVert)$, with the linear mel of the "
    "spec that the waveform was made from, and its power $p$.",
    limits="The loudest bands of the linear mel dominate it. It tells how well the inversion was solved, not how it "
    "sounds. Values can be compared for one mel only.",
    reference="Masuyama, Ueno, Ono 2024, eq. 21",
)

SC = Metric(
    name="sc",
    column="sc_db",
    title="SC",
    unit="dB",
    better="lower",
    needs="spectra",
    compute=lambda pair: convergence_db(pair.magnitudes[1], pair.magnitudes[0]),
    order=60,
    says="Distance of the magnitude spectrogram of the reconstruction from that of the recording. Silence has 0 dB.",
    formula=r"$20\log_{10}(\lVert |\mathrm{STFT}(\hat x)| - A\rVert / \lVert A\rVert)$.",
    limits="The loudest bins dominate it. No inversion wins back details that the mel lacks.",
    reference="Masuyama, Ueno, Ono 2024, eq. 22",
)

LSD = Metric(
    name="lsd",
    column="lsd_db",
    title="LSD",
    unit="dB",
    better="lower",
    needs="spectra",
    compute=lambda pair: log_spectral_distance_db(pair.magnitudes[1], pair.magnitudes[0], pair.full_scale),
    order=70,
    says="Root mean square difference of the log spectra in a frame, averaged over frames.",
    formula=r"Mean over frames of the root mean square over bins of $20\log_{10}(|\hat X| / |X|)$; magnitudes below "
    "-100 dB of a full-scale sine are raised to that.",
    limits="Quiet and loud bins count alike, down to -100 dB of full scale, so noise between words dominates it.",
    reference="Gray, Markel, IEEE TASSP 24(5), 1976",
)

MEL_MAE = Metric(
    name="mel_mae",
    title="Log-mel error",
    unit="Np",
    better="lower",
    decimals=3,
    needs="mels",
    compute=lambda pair: mel_mae(*pair.once(_log_mels)),
    order=80,
    says="Mean absolute difference of the natural logs of the mels, which neural vocoders are trained on.",
    formula=r"Mean of $|\ln\hat M - \ln M|$ of the magnitude mel, floored at 1e-5, in nepers (1 Np = 8.69 dB).",
    limits="Quiet bands count as much as loud ones, above a floor of 1e-5. Values can be compared for one mel only.",
    reference="Kong, Kim, Bae 2020 (HiFi-GAN), eq. 3",
)

MCD = Metric(
    name="mcd",
    column="mcd_db",
    title="MCD",
    unit="dB",
    better="lower",
    needs="mels",
    compute=lambda pair: mel_cepstral_distortion_db(*pair.once(_log_mels)),
    order=90,
    says="Difference of the spectral envelopes, as 13 cepstral coefficients of the log mel without the zeroth.",
    formula=r"Mean over frames of $\frac{10}{\ln 10}\sqrt{2\sum_{k=1}^{13}(c_k-\hat c_k)^2}$, "
    r"$c_k=\frac{2}{B}\sum_b\ln M_b\cos(\pi k(b+\frac12)/B)$.",
    limits="It is computed from mels, frame by frame and without time warping, so its values can't be compared with "
    "those of other front ends. It ignores level, pitch and phase.",
    reference="Kubichek 1993",
)

SI_SDR = Metric(
    name="si_sdr",
    column="si_sdr_db",
    title="SI-SDR",
    unit="dB",
    better="higher",
    needs="waveforms",
    compute=lambda pair: si_sdr_db(pair.waveforms[1], pair.waveforms[0]),
    order=100,
    says="Power of the recording's part of the waveform over the power of the rest.",
    formula=r"$10\log_{10}(\lVert a s\rVert^2/\lVert a s-\hat s\rVert^2)$, "
    r"$a=\langle\hat s,s\rangle/\lVert s\rVert^2$, means removed.",
    limits="It compares waveforms: a reconstruction of perfect sound and another phase scores far below 0 dB.",
    reference="Le Roux, Wisdom, Erdogan, Hershey, ICASSP 2019",
)
