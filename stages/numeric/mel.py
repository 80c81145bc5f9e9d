"""Mel spectrograms of waveforms, in every variant of `MelSpec`, and back to linear bands."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from melmill.pcm import as_float
from melmill.stages.numeric.errors import ContractError, StageError, Unusable
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.pcen import inverse_pcen, pcen
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.numeric.stft import window_norm

_LOGS = ("ln", "log10", "db")
_INT16_DECADES = 4.6  # more than a factor of 32768, by which mels of int16 samples are larger
_PRESETS_NAMED = 3


def mel_spectrogram(y: NDArray[np.floating | np.int16], spec: MelSpec) -> NDArray[np.float32]:
    """Return the mel spectrogram of a waveform.

    A frame's values depend on its own samples alone: not on threads, nor on the signal's length.
    They are librosa's to rounding: ``melspectrogram``, then ``power_to_db`` or ``amplitude_to_db``
    (``ref=1``, ``top_db=None``) or ``pcen``.

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
    check_waveform(y)
    if y.size == 0 or spec.n_frames(y.size) == 0:
        raise Unusable(
            f"{y.size} samples are shorter than one frame (n_fft={spec.n_fft}, hop_length={spec.hop_length}, "
            f"center={spec.center!r})"
        )
    from melmill.stages.numeric.compiled.mel import mel_bands  # here, as it imports numba

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


def check_waveform(y: NDArray[np.floating | np.int16]) -> None:
    """Raise StageError unless an array is one channel of float or int16 samples."""
    if y.ndim != 1:
        raise StageError(f"a waveform is (n_samples,), got shape {y.shape!r}: mix its channels first")
    if y.dtype not in (np.int16, np.float32, np.float64):
        raise StageError(
            f"a waveform is float32, float64 or int16, got {y.dtype}: scale other integers to [-1, 1] first"
        )


def to_linear(M: NDArray[np.floating], spec: MelSpec) -> NDArray[np.float32]:
    """Return a mel as the bank gave it, without normalisation.

    It undoes clip, shift and scale, log or compression, and `normalized`.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        As made by `spec`; its log and affine map say the unit.
    spec : MelSpec

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)
        ``E |X|**power``, not negative: a mel of `magnitude_spec`. What a floor or clip hid stays
        at the floor or clip, and `eps` stays under the root.

    Raises
    ------
    ContractError
        The shape is not the spec's, or its PCEN can't be undone.
    Unusable
        A value is not finite, or exceeds what the spec can mean.
    """
    M = np.asarray(M)
    if M.ndim != 2 or M.shape[0] != spec.n_mels:
        raise ContractError(
            f"a mel of this spec is (n_mels={spec.n_mels}, n_frames), got shape {M.shape!r}; "
            "frame-major mels need a transpose"
        )
    if not np.isfinite(M).all():
        raise Unusable(f"{int((~np.isfinite(M)).sum())} mel values are not finite")
    values = M.astype(np.float64) / spec.scale - spec.shift
    linear = np.maximum(uncompressed(values, spec), 0.0) * window_norm(spec) ** spec.power
    with np.errstate(over="ignore"):
        result: NDArray[np.float32] = linear.astype(np.float32)
    if not np.isfinite(result).all():
        raise Unusable(
            f"mel value {float(M.max()):g} exceeds what its spec can mean: undone it is past float32; "
            f"{range_found(M, spec)}"
        )
    return result


def range_found(M: NDArray[np.floating], spec: MelSpec) -> str:
    """Return, for a message, the range of a mel's values, and the log that such values have.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        Finite values that are too large to be a mel of `spec`.
    spec : MelSpec

    >>> range_found(np.array([[-9.8, 73.7]]), MelSpec(log="ln", floor=1e-5))
    'its values are -9.8 to 73.7, and the spec has log: ln; they look like log: db, so say how the mel was made'
    """
    low, high = float(M.min()), float(M.max())
    found = f"its values are {low:g} to {high:g}, and the spec has log: {spec.log or 'null'}"
    # The largest band of a full-scale wave is below n_fft ** power.
    decades = spec.power * (math.log10(spec.n_fft) + _INT16_DECADES)
    highest = {"ln": decades * math.log(10), "log10": decades, "db": 20.0 / spec.power * decades}
    likely = None if low >= 0 else next((log for log in _LOGS if log != spec.log and high <= highest[log]), spec.log)
    if likely == spec.log:
        return f"{found}; say how the mel was made"
    specs = {name: preset(name) for name in preset_names()}
    named = [
        name
        for name, like in specs.items()
        if (like.log, like.n_mels, like.sr, like.shift, like.scale) == (likely, spec.n_mels, spec.sr, 0.0, 1.0)
    ]
    hint = f" (preset {', '.join(named[:_PRESETS_NAMED])})" if named else ""
    return f"{found}; they look like log: {likely or 'null'}{hint}, so say how the mel was made"


def magnitude_spec(spec: MelSpec) -> MelSpec:
    """Return the spec of what `to_linear` gives: the same bank and power, nothing after it.

    >>> magnitude_spec(MelSpec(log="ln", floor=1e-5)) == MelSpec()
    True
    """
    return replace(
        spec, log=None, floor=None, compression=None, pcen=None, shift=0.0, scale=1.0, clip=None, normalized=False
    )


def uncompressed(values: NDArray[np.float64], spec: MelSpec) -> NDArray[np.float64]:
    """Undo the log, the power law or the PCEN of a spec; leave values that had none."""
    if spec.pcen is not None:
        return inverse_pcen(values, spec.pcen, spec.sr / spec.hop_length)
    with np.errstate(over="ignore"):
        if spec.log == "ln":
            return np.exp(values)
        if spec.log == "log10":
            return np.asarray(10.0**values)
        if spec.log == "db":
            return np.asarray(10.0 ** (values * spec.power / 20.0))
    if spec.compression is not None:
        return np.asarray(np.maximum(values, 0.0) ** (1.0 / spec.compression))
    return values
