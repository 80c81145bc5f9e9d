"""Layers of the families that work frame by frame: ConvNeXt blocks, and spectra back to waveforms.

References
----------
Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders for
    high-quality audio synthesis", ICLR 2024, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, gelu

from melmill.stages.vocode.layers.basic import Conv1d, Ends, Linear, same_padding

KERNEL = 7
EPS = 1e-6

# Where the squared windows add up to less, there was no frame.
_UNCOVERED = 1e-11


class Block(nn.Module):
    """Add to its input a depthwise convolution followed by two linear maps of each frame.

    Parameters
    ----------
    width, hidden : int
        Channels outside and between the linear maps.
    scaled : bool
        Weigh what is added by `gamma`, one factor a channel.
    """

    def __init__(self, width: int, hidden: int, scaled: bool) -> None:
        super().__init__()
        self.dwconv = Conv1d(width, width, KERNEL, padding=same_padding(KERNEL), groups=width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.pwconv1 = Linear(width, hidden)
        self.pwconv2 = Linear(hidden, width)
        self.gamma = nn.Parameter(torch.empty(width)) if scaled else None

    def forward(self, x: Tensor, ends: Ends) -> Tensor:
        """Return ``(batch, width, n_frames)`` of the same shape."""
        y = self.norm(self.dwconv(ends.cut(x)).transpose(1, 2))
        y = self.pwconv2(gelu(self.pwconv1(y)))
        y = y if self.gamma is None else self.gamma * y
        added: Tensor = y.transpose(1, 2)
        return x + added


def synthesised(D: Tensor, window: Tensor, hop_length: int, trim: int, ends: Ends) -> Tensor:
    """Return the waveforms of spectra by an inverse STFT.

    It divides by the overlap of the windows.

    Parameters
    ----------
    D : Tensor of complex, shape (batch, 1 + n_fft / 2, n_frames)
    window : Tensor of float, shape (n_fft,)
    hop_length : int
    trim : int
        Samples cut off at both ends.
    ends : Ends
        Frames past them count as zeros.

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
    """Add up frames, each a hop after the one before, and cut the padding off.

    The frames have the shape ``(batch, n_fft, n_frames)``.
    """
    n_fft = frames.shape[1]
    n_samples = (frames.shape[2] - 1) * hop_length + n_fft
    y = fold(frames, (1, n_samples), (1, n_fft), stride=(1, hop_length))[:, 0, 0]
    return y[:, trim : n_samples - trim]
