"""Take the steps on a waveform that come before a mel, and undo those that can be undone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.errors import Unusable
from melmill.stages.numeric.mels.loudness import integrated_loudness, n_blocks
from melmill.stages.numeric.mels.steps import WaveStep

Signal = NDArray[np.float64]

# SciPy's default for ``filtfilt``: samples of odd reflection at each end, in lengths of the filter.
_PAD_LENGTHS = 3


def prepared(y: NDArray[np.floating | np.int16], steps: Sequence[WaveStep], sr: int) -> Signal:
    """Return a waveform after the steps that a spec takes before its mel.

    Parameters
    ----------
    y : ndarray of float, or of int16, shape (n_samples,)
        int16 PCM counts as a fraction of 32768.
    steps : sequence of WaveStep
    sr : int
        Its rate, Hz.

    Returns
    -------
    ndarray of float64, shape (n_samples,)

    Raises
    ------
    Unusable
        The signal is too short for a step, or silent where a loudness is wanted.
    """
    signal = y.astype(np.float64) * (2.0**-15 if y.dtype == np.int16 else 1.0)
    for step in steps:
        signal = _taken(signal, step, sr)
    return signal


def restored(y: NDArray[np.floating], steps: Sequence[WaveStep]) -> NDArray[np.floating]:
    """Return a waveform with gains and pre-emphasis undone, last step first, in its own type.

    Levels that a step set, a mean that it removed, and what a high-pass took away stay as they are.

    >>> steps = [WaveStep(step="preemphasis", value=0.97), WaveStep(step="gain", value=0.5)]
    >>> y = np.array([0.5, -0.25, 0.125])
    >>> bool(np.allclose(restored(prepared(y, steps, 16000), steps), y))
    True
    """
    undone = [step for step in reversed(steps) if step.step in ("gain", "preemphasis")]
    if not undone:
        return y
    from scipy.signal import lfilter  # here, as planning needs none of it

    signal = y.astype(np.float64)
    for step in undone:
        value = 0.0 if step.value is None else step.value
        signal = signal / value if step.step == "gain" else np.asarray(lfilter([1.0], [1.0, -value], signal))
    return signal.astype(y.dtype)


def response(steps: Sequence[WaveStep], frequencies: NDArray[np.float64], sr: int) -> NDArray[np.float64]:
    """Return by what the gains and filters of steps multiply the magnitude at frequencies in Hz.

    >>> steps = [WaveStep(step="preemphasis", value=0.9)]
    >>> response(steps, np.array([0.0, 8000.0]), 16000).round(2).tolist()
    [0.1, 1.9]
    """
    gain = np.ones(frequencies.size)
    for step in steps:
        value = 0.0 if step.value is None else step.value
        if step.step == "gain":
            gain *= value
        elif step.step == "preemphasis":
            gain *= np.abs(1.0 - value * np.exp(-2j * np.pi * frequencies / sr))
        elif step.step == "highpass":
            from scipy.signal import sosfreqz  # here, as planning needs none of it

            _, H = sosfreqz(_highpass_sections(step, sr), 2.0 * np.pi * frequencies / sr)
            gain *= np.abs(H) ** (2 if step.both_ways else 1)
    return gain


def _taken(y: Signal, step: WaveStep, sr: int) -> Signal:
    value = 0.0 if step.value is None else step.value
    if step.step == "mean":
        return np.asarray(y - y.mean())
    if step.step == "gain":
        return y * value
    if step.step == "clamp":
        return np.clip(y, -value, value)
    if step.step == "preemphasis":
        return np.concatenate([y[:1], y[1:] - value * y[:-1]])
    if step.step == "highpass":
        return _highpassed(y, step, sr)
    if step.step == "loudness":
        return _at_loudness(y, step, value, sr)
    level = float(np.abs(y).max()) if step.step == "peak" else math.sqrt(float(np.mean(y * y)))
    return y * (value / level) if level > 0 and _wanted(step, level, value) else y


def _wanted(step: WaveStep, level: float, value: float) -> bool:
    return {"always": True, "above": level > value, "below": level < value}[step.when]


def _at_loudness(y: Signal, step: WaveStep, value: float, sr: int) -> Signal:
    if n_blocks(y.size, sr) < 1:
        raise Unusable(f"{y.size} samples are shorter than 0.4 s, over which loudness is measured")
    found = integrated_loudness(y, sr)
    if not math.isfinite(found):
        raise Unusable("the waveform is too quiet to have a loudness")
    return y * 10.0 ** ((value - found) / 20.0) if _wanted(step, found, value) else y


def _highpass_sections(step: WaveStep, sr: int) -> Signal:
    from scipy.signal import butter  # here, as planning needs none of it

    return np.asarray(butter(step.order, step.value, btype="highpass", fs=sr, output="sos"))


def _highpassed(y: Signal, step: WaveStep, sr: int) -> Signal:
    """Filter as ``scipy.signal.lfilter`` does, or ``filtfilt`` with its default padding."""
    from scipy.signal import butter, filtfilt, sosfilt

    if not step.both_ways:
        return np.asarray(sosfilt(_highpass_sections(step, sr), y))
    least = _PAD_LENGTHS * (step.order + 1)
    if y.size <= least:
        raise Unusable(f"{y.size} samples are too short for a high-pass of order {step.order} (more than {least})")
    b, a = butter(step.order, step.value, btype="highpass", fs=sr)
    return np.asarray(filtfilt(b, a, y))
