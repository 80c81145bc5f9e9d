"""Mel spectrograms of waveforms, every variant of `MelSpec`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.melspec import MelSpec
from melmill.stages.dsp.pcen import pcen
from melmill.stages.errors import StageError, Unusable
from melmill.stages.stage import as_float


def mel_spectrogram(y: NDArray[Any], spec: MelSpec) -> NDArray[np.float32]:
    """Return the mel spectrogram of a waveform.

    A frame's values depend on its own samples alone, not on threads, on the block that it is worked on in or on the
    signal's length. They are librosa's ``melspectrogram`` and ``power_to_db`` or ``amplitude_to_db`` (``ref=1``,
    ``top_db=None``) or ``pcen``, to rounding.

    Parameters
    ----------
    y : ndarray of float32 or float64 in [-1, 1], or of int16, shape (n_samples,)
        Waveform at ``spec.sr``.
    spec : MelSpec

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)
        ``spec.n_frames(n_samples)`` frames; the unit is the spec's.

    Raises
    ------
    StageError
        `y` is not one channel of float or int16 samples.
    Unusable
        `y` is shorter than one frame, or holds values that are not finite.

    Examples
    --------
    >>> mel_spectrogram(np.zeros(16000, dtype=np.int16), MelSpec()).shape
    (80, 63)
    """
    _check(y, spec)
    from melmill.stages.dsp.compiled.mel import mel_bands  # here, as it imports numba

    bands = mel_bands(as_float(y), spec)
    if not np.isfinite(bands).all():
        raise Unusable("the waveform holds samples that are not finite, or far outside [-1, 1]")
    return from_bands(bands, spec)


def from_bands(bands: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float32]:
    """Apply what comes after the mel bank: PCEN, power law or log, shift, scale and clip.

    Parameters
    ----------
    bands : ndarray of float32, shape (n_mels, n_frames)
        Non-negative, as the bank gave them.

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)
    """
    values = (_compressed(bands.astype(np.float64), spec) + spec.shift) * spec.scale
    if spec.clip is not None:
        np.clip(values, *spec.clip, out=values)
    return values.astype(np.float32)


def _compressed(bands: NDArray[np.float64], spec: MelSpec) -> NDArray[np.float64]:
    if spec.pcen is not None:
        return pcen(bands, spec.pcen, spec.sr / spec.hop_length)
    if spec.compression is not None:
        return np.asarray(bands**spec.compression)
    if spec.log is None:
        return bands
    raised = np.maximum(bands, spec.floor or 0.0)
    if spec.log == "ln":
        return np.asarray(np.log(raised))
    return np.asarray(np.log10(raised)) * (20.0 / spec.power if spec.log == "db" else 1.0)


def _check(y: NDArray[Any], spec: MelSpec) -> None:
    if y.ndim != 1:
        raise StageError(f"a waveform is (n_samples,), got shape {y.shape!r}: mix its channels first")
    if y.dtype not in (np.int16, np.float32, np.float64):
        raise StageError(
            f"a waveform is float32, float64 or int16, got {y.dtype}: scale other integers to [-1, 1] first"
        )
    if y.size == 0 or spec.n_frames(y.size) == 0:
        raise Unusable(
            f"{y.size} samples are shorter than one frame (n_fft={spec.n_fft}, hop_length={spec.hop_length}, "
            f"center={spec.center!r})"
        )
