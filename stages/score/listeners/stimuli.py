"""The sounds of one trial: at one rate, of one length, equally loud, with anchors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.errors import Unusable
from melmill.stages.numeric.mels.loudness import integrated_loudness
from melmill.stages.numeric.resample import resample

ANCHORS = {"low anchor": 3500.0, "mid anchor": 7000.0}
"""Cut-off of the anchors of MUSHRA, Hz."""

SHORTEST_S = 0.4
"""Below this there is no loudness."""

# The filter passes up to the cut-off and stops from 8/7 of it: 3.5 kHz to 4 kHz, as the standard has it.
_STOP_BAND = 8.0 / 7.0
_ATTENUATION_DB = 60.0
_PEAK = 10.0 ** (-1.0 / 20.0)
_FADE_S = 0.01


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """Hold the sounds of a trial.

    Parameters
    ----------
    sounds : mapping of str to ndarray of float32, shape (n_samples,)
        By name, all of one length and loudness, with peaks below -1 dB of full scale.
    sr : int
        Their rate, Hz.
    loudness_lufs : float
        Their integrated loudness.
    is_cut : bool
        Whether the recording goes on after the end.
    """

    sounds: Mapping[str, NDArray[np.float32]]
    sr: int
    loudness_lufs: float
    is_cut: bool


def has_anchor(cutoff_hz: float, sr: int) -> bool:
    """Return whether a recording at a rate in Hz has anything that a low-pass filter takes away.

    >>> has_anchor(7000, 16000), has_anchor(7000, 8000)
    (True, False)
    """
    return cutoff_hz * _STOP_BAND <= sr / 2


def low_passed(y: NDArray[np.float32], sr: int, cutoff_hz: float) -> NDArray[np.float32]:
    """Return an anchor: a waveform ``(n_samples,)`` without what lies above a frequency.

    The filter has linear phase and no delay. Its pass band is flat to 0.01 dB up to `cutoff_hz`. From
    8/7 of that, 4 kHz for 3.5 kHz, it takes away at least 55 dB.

    References
    ----------
    ITU-R BS.1534-3 (2015), section 5.1, asks for 25 dB at 4 kHz and for 50 dB at 4.5 kHz.
    """
    import scipy.signal

    stop_hz = cutoff_hz * _STOP_BAND
    n_taps, beta = scipy.signal.kaiserord(_ATTENUATION_DB, (stop_hz - cutoff_hz) / (sr / 2))
    # The middle of the transition stays below half the rate.
    taps = scipy.signal.firwin(n_taps | 1, (cutoff_hz + stop_hz) / 2, window=("kaiser", beta), fs=sr)
    delay = taps.size // 2
    filtered = scipy.signal.oaconvolve(y.astype(np.float64), taps)[delay : delay + y.size]
    return np.asarray(filtered, dtype=np.float32)


def aligned(
    sources: Mapping[str, tuple[NDArray[np.float32], int]], *, loudness_lufs: float, longest_s: float
) -> Aligned:
    """Return sounds as a trial plays them.

    All get the highest of their rates and the length of the longest, with silence at the end of
    shorter ones. What is longer than `longest_s` is cut there and faded out. Then all get the same
    loudness. If a peak would pass -1 dB of full scale, all of them get less.

    Parameters
    ----------
    sources : mapping of str to (ndarray of float32 of shape (n_samples,), int)
        Waveforms and their rates in Hz, by name.
    loudness_lufs : float
        Integrated loudness that is wanted.
    longest_s : float

    Raises
    ------
    Unusable
        A sound is shorter than 0.4 s, holds samples that are not finite, or is silent.

    References
    ----------
    ITU-R BS.1770-5 (2023), Annex 1.
    """
    sr = max(rate for _, rate in sources.values())
    length = max(-(-y.size * sr // rate) for y, rate in sources.values())
    is_cut = length > round(longest_s * sr)
    length = min(length, round(longest_s * sr))
    sounds: dict[str, NDArray[np.float32]] = {}
    loudness: dict[str, float] = {}
    for name, (y, rate) in sources.items():
        if y.size < SHORTEST_S * rate:
            raise Unusable(f"{name} is shorter than {SHORTEST_S} s")
        if not np.isfinite(y).all():
            raise Unusable(f"{name} has samples that are not finite numbers")
        sound = resample(y, rate, sr)[:length]
        sounds[name] = _faded(sound, sr) if is_cut and sound.size == length else sound
        loudness[name] = integrated_loudness(sounds[name], sr)
        if not math.isfinite(loudness[name]):
            raise Unusable(f"{name} is silent, or quieter than -70 LUFS")
    gains = {name: 10.0 ** ((loudness_lufs - level) / 20.0) for name, level in loudness.items()}
    peak = max(float(np.abs(y).max()) * gains[name] for name, y in sounds.items())
    common = min(1.0, _PEAK / peak)
    made = {name: np.pad(y * np.float32(gains[name] * common), (0, length - y.size)) for name, y in sounds.items()}
    return Aligned(sounds=made, sr=sr, loudness_lufs=loudness_lufs + 20.0 * math.log10(common), is_cut=is_cut)


def _faded(y: NDArray[np.float32], sr: int) -> NDArray[np.float32]:
    """Return a sound whose end fades out in 10 ms."""
    n = round(_FADE_S * sr)
    fade = (0.5 + 0.5 * np.cos(np.pi * np.arange(1, n + 1) / n)).astype(np.float32)
    return np.concatenate([y[:-n], y[-n:] * fade])
