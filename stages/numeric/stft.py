"""Short-time Fourier transform, frame-major, one frame a row."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import MelSpec, StftParams


def hann(params: StftParams) -> NDArray[np.float64]:
    """Return the Hann window ``(n_fft,)``, zero outside its `win_length` centre."""
    window = np.zeros(params.n_fft)
    left = (params.n_fft - params.win_length) // 2
    # A symmetric window is 0 at both ends; one of a single sample is 1.
    turns = params.win_length if params.window == "hann" else max(params.win_length - 1, 1)
    turn = 2 * np.pi * np.arange(params.win_length) / turns
    window[left : left + params.win_length] = 0.5 - 0.5 * np.cos(turn)
    return window


def window_norm(spec: MelSpec) -> float:
    """Return what the STFT is divided by: with `normalized` the window's Euclidean norm, else 1."""
    if not spec.normalized:
        return 1.0
    return float(np.sqrt(np.sum(hann(spec.stft) ** 2)))


class Stft:
    """Transform signals to frames of spectrum, and back.

    `Projection` is the compiled way back, and `inverse` the plain one. Arrays are frame-major,
    ``(n_frames, n_bins)``. A frame's bins lie together, so that FFTs work on contiguous memory.
    Transpose for librosa's ``(n_bins, n_frames)``.

    Parameters
    ----------
    params : StftParams
    dtype : np.float32 or np.float64
        Precision of the signal side; the spectra are complex of twice its size.
    """

    def __init__(self, params: StftParams, dtype: type[np.floating[Any]] = np.float32) -> None:
        self.params = params
        self.dtype = np.dtype(dtype)

    @cached_property
    def window(self) -> NDArray[np.floating]:
        """Hann window ``(n_fft,)``, zero outside its `win_length` centre."""
        return hann(self.params).astype(self.dtype)

    def padded(self, y: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the signal ``(n_samples,)`` with the padding that its framing asks for."""
        pad = self.params.pad
        if pad == 0:
            return y
        if self.params.pad_mode == "reflect" and y.size == 0:
            raise ValueError("an empty signal can't be reflected at its edges")
        return np.pad(y, pad, mode=self.params.pad_mode)

    def frames(self, y: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return a signal's frames ``(n_frames, n_fft)`` before the window.

        They are a view of its padded copy.
        """
        p = self.params
        padded = self.padded(np.asarray(y, dtype=self.dtype))
        if padded.size < p.n_fft:
            return np.empty((0, p.n_fft), dtype=self.dtype)
        return np.lib.stride_tricks.sliding_window_view(padded, p.n_fft)[:: p.hop_length]

    def forward(self, y: NDArray[np.floating]) -> NDArray[np.complexfloating]:
        """Return the spectrum ``(n_frames, n_bins)``, complex, of a signal ``(n_samples,)``."""
        import scipy.fft  # here, as planning needs none of it

        return np.asarray(scipy.fft.rfft(self.frames(y) * self.window, axis=-1))

    def inverse(self, D: NDArray[np.complexfloating], n_samples: int) -> NDArray[np.floating]:
        """Return the signal ``(n_samples,)`` whose spectrum is nearest to `D` (Griffin, Lim, 1984, eq. 6)."""
        weight = self.added(np.broadcast_to(self.window**2, (len(D), self.params.n_fft)))
        y = self.overlapped(D) / np.maximum(weight, 1e-6)
        y = y[self.params.pad :]
        return y[:n_samples] if y.size >= n_samples else np.pad(y, (0, n_samples - y.size))

    def overlapped(self, D: NDArray[np.complexfloating]) -> NDArray[np.floating]:
        """Return the windowed frames of a spectrum laid over each other, with the padding still on."""
        import scipy.fft

        return self.added(np.asarray(scipy.fft.irfft(D, self.params.n_fft, axis=-1)) * self.window)

    def added(self, frames: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return frames ``(n_frames, n_fft)`` added up, a hop apart."""
        hop, n_fft = self.params.hop_length, self.params.n_fft
        out = np.zeros((len(frames) - 1) * hop + n_fft, dtype=self.dtype)
        # Frames that do not overlap are added at once.
        apart = -(-n_fft // hop)
        for first in range(min(apart, len(frames))):
            some = frames[first::apart]
            part = np.zeros((len(some), apart * hop), dtype=self.dtype)
            part[:, :n_fft] = some
            flat = part.ravel()[: out.size - first * hop]
            out[first * hop : first * hop + flat.size] += flat
        return out
