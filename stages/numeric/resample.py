"""Change of sampling rate."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from melmill.pcm import as_float


def resample(y: NDArray[np.floating | np.int16], sr: int, new_sr: int) -> NDArray[np.float32]:
    """Return a waveform at another rate, by the SoX resampler at high quality.

    The passband reaches 0.913 of the lower Nyquist frequency.

    Parameters
    ----------
    y : ndarray of float32 in [-1, 1] or of int16, shape (n_samples,)
    sr, new_sr : int
        Rate of `y` and the rate wanted, Hz. Equal rates leave the samples as they are.

    Returns
    -------
    ndarray of float32, shape (ceil(n_samples * new_sr / sr),)
        Peaks may pass +-1 slightly, where the band limit rounds off a clipped wave.
    """
    y = as_float(y)
    if sr == new_sr:
        return y
    import soxr

    # A signal is silent past its end. Zeros there change no sample, and give the last one where
    # the length is rounded up.
    ended = np.pad(y, (0, -(-sr // new_sr) + 1))
    resampled = np.asarray(soxr.resample(ended, sr, new_sr, quality="HQ"), dtype=np.float32)
    return np.ascontiguousarray(resampled[: -(-y.size * new_sr // sr)])


def sinc_resample(y: NDArray[np.floating | np.int16], sr: int, new_sr: int) -> NDArray[np.float32]:
    """Return a waveform at another rate, by a short windowed sinc.

    It is what torchaudio's `functional.resample` does by default, and networks were trained behind
    it: a Hann window over 6 zero crossings, cut off at 0.99 of the lower Nyquist frequency. What
    lies just under that is damped and what lies just over it aliases.

    Parameters
    ----------
    y : ndarray of float32 in [-1, 1] or of int16, shape (n_samples,)
    sr, new_sr : int
        Rate of `y` and the rate wanted, Hz. Equal rates leave the samples as they are.

    Returns
    -------
    ndarray of float32, shape (ceil(n_samples * new_sr / sr),)
    """
    y = as_float(y)
    if sr == new_sr:
        return y
    import scipy.signal

    common = math.gcd(sr, new_sr)
    down, up = sr // common, new_sr // common
    taps = _short_sinc(down, up)
    resampled = scipy.signal.upfirdn(taps, y, up, down)[(taps.size - 1) // 2 // down :]
    return np.ascontiguousarray(resampled[: -(-y.size * up // down)], dtype=np.float32)


@lru_cache(maxsize=8)
def _short_sinc(down: int, up: int) -> NDArray[np.float32]:
    """Return the taps of `sinc_resample`; the middle one is a multiple of `down` from the first."""
    crossings, cutoff = 6.0, 0.99 * min(down, up)
    half = down * math.ceil(crossings * up / cutoff)
    t = np.arange(-half, half + 1) / (down * up) * cutoff
    window = np.where(np.abs(t) < crossings, np.cos(t * np.pi / (2.0 * crossings)) ** 2, 0.0)
    return np.asarray(np.sinc(t) * window * cutoff / down, dtype=np.float32)
