"""Change of sampling rate."""

from __future__ import annotations

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
