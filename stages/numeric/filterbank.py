"""Mel filter banks: triangles on the FFT's bins, and the same scaled for the inverters."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.errors import EmptyBandWarning
from melmill.stages.numeric.lanes.gram import spectral_norm
from melmill.stages.numeric.melspec import MelSpec

# Slaney's Auditory Toolbox: linear to 1 kHz in steps of 200/3 Hz, then 27 steps to a factor 6.4.
_LINEAR_STEP_HZ = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_STEP_HZ
_LOG_STEP = np.log(6.4) / 27.0


def mel_bank(spec: MelSpec) -> NDArray[np.float32]:
    """Return the mel bank E of a spec, bit for bit that of ``librosa.filters.mel``.

    The array is cached and read-only. A bank may lack full row rank where triangles are narrower
    than a bin: 128 bands at 44.1 kHz and ``n_fft=1024`` have rank 118.

    Returns
    -------
    ndarray of float32, shape (n_mels, 1 + n_fft // 2)
        Non-negative weights; with ``norm="slaney"`` in 1/Hz.

    Warns
    -----
    EmptyBandWarning
        A band holds no bin at all.

    Examples
    --------
    >>> mel_bank(MelSpec()).shape
    (80, 513)
    """
    return _bank(spec.bank_rate, spec.n_fft, spec.n_mels, float(spec.fmin), float(spec.top_hz), spec.htk, spec.norm)


def band_scale(spec: MelSpec) -> NDArray[np.float64]:
    """Return the factor of each band's triangle of peak 1, shape (n_mels,).

    Slaney's `norm` is 2 / width in Hz.
    """
    if spec.norm is None:
        return np.ones(spec.n_mels)
    edges = _edges(spec.n_mels, spec.fmin, spec.top_hz, spec.htk)
    return np.asarray(2.0 / (edges[2:] - edges[:-2]))


def bank_norm(spec: MelSpec) -> float:
    """Return the spectral norm of the bank E, its largest singular value.

    >>> round(bank_norm(MelSpec()), 4)
    0.0414
    """
    return spectral_norm(mel_bank(spec))


@dataclass(frozen=True, kw_only=True, eq=False)
class Bank:
    """Hold the mel bank E scaled to unit spectral norm.

    The scale makes a solver's `lam` independent of the bank's units.

    Parameters
    ----------
    E : ndarray of float64, shape (n_mels, n_bins)
        ``E / ||E||_2``.
    norm : float
        ``||E||_2`` before scaling: mels are divided by it.
    power : float
        Exponent p of the mels' magnitude, ``M = E |X|**p``.
    """

    E: NDArray[np.float64]
    norm: float
    power: float = 1.0


@lru_cache(maxsize=8)
def bank_of(spec: MelSpec) -> Bank:
    """Return the scaled bank of a spec, float64; cached."""
    norm = bank_norm(spec)
    return Bank(E=mel_bank(spec).astype(np.float64) / norm, norm=norm, power=spec.power)


def mel_to_hz(mel: NDArray[np.float64], *, htk: bool) -> NDArray[np.float64]:
    """Return frequencies in Hz of values on Slaney's or HTK's mel scale."""
    if htk:
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel >= _BREAK_MEL, above, _LINEAR_STEP_HZ * mel)


def hz_to_mel(hz: float, *, htk: bool) -> float:
    """Return a frequency's place on Slaney's or HTK's mel scale."""
    if htk:
        return float(2595.0 * np.log10(1.0 + hz / 700.0))
    if hz >= _BREAK_HZ:
        return float(_BREAK_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP)
    return hz / _LINEAR_STEP_HZ


def _edges(n_mels: int, fmin: float, fmax: float, htk: bool) -> NDArray[np.float64]:
    return mel_to_hz(np.linspace(hz_to_mel(fmin, htk=htk), hz_to_mel(fmax, htk=htk), n_mels + 2), htk=htk)


@cache
def _bank(
    sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float, htk: bool, norm: Literal["slaney"] | None
) -> NDArray[np.float32]:
    edges = _edges(n_mels, fmin, fmax, htk)
    width = np.diff(edges)[:, np.newaxis]
    ramps = np.subtract.outer(edges, np.fft.rfftfreq(n_fft, 1.0 / sr))
    triangles = np.maximum(0.0, np.minimum(-ramps[:-2] / width[:-1], ramps[2:] / width[1:]))
    bank: NDArray[np.float32] = triangles.astype(np.float32)
    if norm == "slaney":
        bank *= (2.0 / (edges[2:] - edges[:-2]))[:, np.newaxis]
    empty = np.flatnonzero(bank.max(axis=1) == 0)
    if empty.size:
        warnings.warn(
            f"mel bands {empty.tolist()} of {len(bank)} hold no FFT bin (sr={sr}, n_fft={n_fft}) and will always be 0: "
            "use fewer n_mels, a larger n_fft or a higher fmin",
            EmptyBandWarning,
            stacklevel=3,
        )
    bank.flags.writeable = False
    return bank
