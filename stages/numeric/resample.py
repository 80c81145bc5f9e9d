"""Change of sampling rate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import as_float
from melmill.storage.utterance import resampled_length


def resample(y: NDArray[Any], sr: int, new_sr: int) -> NDArray[np.float32]:
    """Resample a waveform by the SoX resampler at high quality (passband to 0.913 of the lower Nyquist frequency).

    Parameters
    ----------
    y : ndarray of float32 in [-1, 1] or of int16, shape (n_samples,)
    sr, new_sr : int
        Rate of `y` and rate wanted, Hz. Equal rates return the samples as they are.

    Returns
    -------
    ndarray of float32, shape (ceil(n_samples * new_sr / sr),)
        Peaks may pass +-1 slightly where the band limit rounds off a clipped wave.
    """
    y = as_float(y)
    if sr == new_sr:
        return y
    import soxr

    # Past its end a signal is silent: zeros there change no sample, and give the rounded-up last one.
    ended = np.pad(y, (0, -(-sr // new_sr) + 1))
    resampled = np.asarray(soxr.resample(ended, sr, new_sr, quality="HQ"), dtype=np.float32)
    return np.ascontiguousarray(resampled[: resampled_length(y.size, sr, new_sr)])
