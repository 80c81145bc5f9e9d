"""From predicted spectra to waveforms, in padded batches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import fold

from melmill.stages.vocode.layers.basic import Ends

# Where the squared windows add up to less, no frame was.
_UNCOVERED = 1e-11


def synthesised(D: Tensor, window: Tensor, hop_length: int, trim: int, ends: Ends) -> Tensor:
    """Return the waveforms of spectra: inverse STFT, with the windows' overlap divided out.

    Parameters
    ----------
    D : Tensor of complex, shape (batch, 1 + n_fft / 2, n_frames)
    window : Tensor of float, shape (n_fft,)
    hop_length : int
    trim : int
        Samples cut off at both ends.
    ends : Ends
        Frames past them count for nothing.

    Returns
    -------
    Tensor of float, shape (batch, (n_frames - 1) * hop_length + n_fft - 2 * trim)
    """
    n_fft = window.shape[0]
    column = window[:, None]
    frames = ends.cut(torch.fft.irfft(D, n=n_fft, dim=1) * column)
    coverage = ends.cut((column**2).expand_as(frames[:1] if ends.mask is None else frames))
    total = _overlapped(coverage, hop_length, trim)
    return _overlapped(frames, hop_length, trim) / torch.where(total > _UNCOVERED, total, 1.0)


def _overlapped(frames: Tensor, hop_length: int, trim: int) -> Tensor:
    """Add frames ``(batch, n_fft, n_frames)`` up, each a hop after the one before, and cut the padding off."""
    n_fft = frames.shape[1]
    n_samples = (frames.shape[2] - 1) * hop_length + n_fft
    y = fold(frames, (1, n_samples), (1, n_fft), stride=(1, hop_length))[:, 0, 0]
    return y[:, trim : n_samples - trim]
