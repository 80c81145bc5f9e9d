"""Mels of a sound in another key, by frames of another length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.melspec import MelSpec, StftParams
from melmill.stages.numeric.stft import hann, window_norm


def shifted_bands(y: NDArray[np.floating | np.int16], spec: MelSpec) -> NDArray[np.float32]:
    """Return what a spec's bank makes of a waveform ``(n_samples,)`` in another key.

    Window and transform are longer by the ratio of the shift, so that a partial falls into the bin
    of its shifted frequency. The bins are cut, or filled up with zeros, to those of the bank.
    Magnitudes are divided by the ratio of the windows.

    Parameters
    ----------
    y : ndarray of float or int16, shape (n_samples,)
    spec : MelSpec
        Its `key_shift` is in semitones.

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)

    References
    ----------
    openvpi's DiffSinger and NSF-HiFiGAN, ``nvSTFT.py``: an augmentation of singing.
    """
    import scipy.fft  # here, as planning needs none of it

    signal = y.astype(np.float64) * (2.0**-15 if y.dtype == np.int16 else 1.0)
    ratio = 2.0 ** (spec.key_shift / 12.0)
    n_fft, win_length = round(spec.n_fft * ratio), round(spec.stft.win_length * ratio)
    longer = StftParams(n_fft=n_fft, win_length=win_length, hop_length=min(spec.hop_length, win_length))
    total = n_fft - spec.hop_length if spec.center == "same" else 2 * (n_fft // 2)
    before = max(total, 0) // 2
    width = (before, max(total, 0) - before)
    reflected = spec.pad_mode == "reflect" and signal.size > 1
    padded = np.pad(signal, width, mode="reflect") if reflected else np.pad(signal, width)
    # A frame may be lacking where the window became longer by an odd number of samples.
    n_frames = spec.stft.n_frames(signal.size)
    padded = np.pad(padded, (0, max(0, (n_frames - 1) * spec.hop_length + n_fft - padded.size)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: spec.hop_length][:n_frames]
    A = np.abs(scipy.fft.rfft(frames * hann(longer), axis=-1))
    n_bins = spec.stft.n_bins
    A = np.pad(A[:, :n_bins], ((0, 0), (0, max(0, n_bins - A.shape[1])))) * (spec.stft.win_length / win_length)
    energy = np.maximum((A / window_norm(spec)) ** 2, spec.energy_floor) + spec.eps
    return np.ascontiguousarray(mel_bank(spec).astype(np.float64) @ (energy ** (spec.power / 2.0)).T, dtype=np.float32)
