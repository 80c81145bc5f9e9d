"""The losses of a prior's training: one function for each, of a guess and what it should be.

A recipe has a weight of each name (`melmill.stages.train.recipe.PriorRecipe`).

References
----------
Griffin and Lim, "Signal estimation from modified short-time Fourier transform", 1984; Perraudin,
    Balazs and Søndergaard, "A fast Griffin-Lim algorithm", 2013 (the unrolled iterations).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from melmill.stages.numeric.batched.prior import Bank, agreeing

# Magnitudes below this count as this in logs, where a full band has 16: -104 dB.
_FAINTEST = 1e-4

# Momentum of the unrolled iterations.
_MOMENTUM = 0.99
# Squares of windows that overlap less than this are at an end of the segment.
_LEAST_OVERLAP = 1e-3
_TINY = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """What losses see of segments whose loudest band is 1 or less.

    Parameters
    ----------
    Y : Tensor, shape (B, T, n_bins)
        The magnitude that a network guesses.
    A : Tensor, shape (B, T, n_bins)
        The recording's magnitude.
    D : complex Tensor, shape (B, T, n_bins)
        A spectrum that has the recording's phase.
    m : Tensor, shape (B, T, n_mels)
        The linear mel of A.
    own : Tensor of bool, shape (B, T)
        Frames that are not silent.
    unit : float
        Factor that brings the magnitude of a full band to about 16, whatever the bank's norm.
    """

    Y: Tensor
    A: Tensor
    D: Tensor
    m: Tensor
    own: Tensor
    unit: float


@dataclass(frozen=True, kw_only=True)
class Frames:
    """How spectra overlap: the window ``(n_fft,)`` and the hop, samples."""

    window: Tensor
    hop_length: int


def compressed(Y: Tensor, segment: Segment) -> Tensor:
    """Return the mean of ``|Y^0.5 - A^0.5|`` over bins and frames."""
    roots = [(segment.unit * magnitude + _TINY).sqrt() for magnitude in (Y, segment.A)]
    return _mean((roots[0] - roots[1]).abs(), segment.own)


def log(Y: Tensor, segment: Segment) -> Tensor:
    """Return the mean of ``|ln Y - ln A|`` over bins and frames."""
    logs = [(segment.unit * magnitude + _FAINTEST).log() for magnitude in (Y, segment.A)]
    return _mean((logs[0] - logs[1]).abs(), segment.own)


def squared(Y: Tensor, segment: Segment) -> Tensor:
    """Return the mean of ``(Y^0.5 - A^0.5)^2`` over bins and frames."""
    roots = [(segment.unit * magnitude + _TINY).sqrt() for magnitude in (Y, segment.A)]
    return _mean((roots[0] - roots[1]).square(), segment.own)


# A loss has the name that recipes give it.
LOSSES: Mapping[str, Callable[[Tensor, Segment], Tensor]] = {"compressed": compressed, "log": log, "squared": squared}


def agreed(segment: Segment, bank: Bank, n_updates: int) -> Tensor:
    """Return the guess after some updates that make it agree with the mel."""
    return agreeing(segment.Y, segment.m, bank, n_updates) if n_updates else segment.Y


def unrolled(Y: Tensor, segment: Segment, frames: Frames, n_iter: int) -> Tensor:
    """Return the magnitude of what fast Griffin-Lim makes of a guess, from the true phase.

    So a loss sees how consistent the guess is, too. The ends of segments, where windows overlap
    less, are kept as guessed.

    Parameters
    ----------
    Y : Tensor, shape (B, T, n_bins)
    segment : Segment
    frames : Frames
    n_iter : int
        At least 1.

    Returns
    -------
    Tensor, shape (B, T, n_bins)
    """
    X = Y * torch.exp(1j * segment.D.angle())
    Z = previous = project(X, frames)
    for _ in range(n_iter - 1):
        ahead = Z + _MOMENTUM * (Z - previous)
        previous = Z
        Z = project(Y * ahead / (ahead.abs() + _TINY), frames)
    n_ends = -(-frames.window.numel() // frames.hop_length)
    inner = torch.zeros(Y.shape[1], dtype=torch.bool, device=Y.device)
    inner[n_ends : Y.shape[1] - n_ends] = True
    magnitude = (Z.real.square() + Z.imag.square() + _TINY**2).sqrt()
    return torch.where(inner[None, :, None], magnitude, Y)


def project(X: Tensor, frames: Frames) -> Tensor:
    """Return the spectra ``(B, T, n_bins)`` of the signals nearest to some spectra."""
    n_fft, hop_length = frames.window.numel(), frames.hop_length
    n_samples = n_fft + (X.shape[1] - 1) * hop_length
    parts = torch.fft.irfft(X, n=n_fft) * frames.window

    def overlapped(values: Tensor) -> Tensor:
        folded = torch.nn.functional.fold(
            values.transpose(1, 2), (1, n_samples), kernel_size=(1, n_fft), stride=(1, hop_length)
        )
        summed: Tensor = folded[:, 0, 0]
        return summed

    weight = overlapped((frames.window**2).expand(1, X.shape[1], n_fft))
    y = overlapped(parts) / weight.clamp(min=_LEAST_OVERLAP)
    Z: Tensor = torch.fft.rfft(y.unfold(1, n_fft, hop_length) * frames.window)
    return Z


def _mean(values: Tensor, own: Tensor) -> Tensor:
    return (values * own[..., None]).sum() / (own.sum().clamp(min=1) * values.shape[2])
