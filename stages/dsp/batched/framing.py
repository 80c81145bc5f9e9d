"""Frames of a batch of padded signals, and their overlap-add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from melmill.stages.dsp.batched.placement import Placement
from melmill.stages.dsp.melspec import StftParams
from melmill.stages.dsp.stft import hann

# The compiled engine's: a sample that the windows hardly see is left 0.
_FAINT = 1e-3


class Framing(NamedTuple):
    """How a batch of signals is framed, each by its own length, and what undoes it.

    Signals are ``(B, L)``, padding included, with L room for the longest.

    Parameters
    ----------
    hop : int
    window : Tensor, shape (n_fft,)
    own : Tensor, shape (B, T, 1)
        1 for an utterance's own frames, 0 past them.
    gain : Tensor, shape (B, L)
        The canonical dual window's share, over the inverse FFT's n_fft; 0 outside an utterance's own samples.
    edges : tuple of (Tensor, Tensor), int64, shape (B, pad)
        Of reflected edges, the left and the right one: places of the padding, and of the sample that each mirrors.
    """

    hop: int
    window: Tensor
    own: Tensor
    gain: Tensor
    edges: tuple[tuple[Tensor, Tensor], ...]


def framing(params: StftParams, lengths: Sequence[int], place: Placement) -> Framing:
    """Return how signals of `lengths` samples are framed; at least one has a frame."""
    n_samples = torch.tensor(lengths, device=place.device)[:, None]
    n_frames = torch.tensor([params.n_frames(n) for n in lengths], device=place.device)
    window = torch.as_tensor(hann(params), device=place.device)
    own = (torch.arange(int(n_frames.max()), device=place.device) < n_frames[:, None])[..., None]
    weight = overlapped(own * window**2, params.hop_length)
    edges = _edges(params, n_samples)
    for padding, mirrored in edges:
        weight.scatter_add_(1, mirrored, weight.gather(1, padding))
    at = torch.arange(weight.shape[1], device=place.device)
    inside = (at >= params.pad) & (at < params.pad + n_samples)
    loud = weight > _FAINT * (weight * inside).amax(1, keepdim=True)
    gain = torch.where(inside & loud, 1 / (params.n_fft * weight), 0.0)
    return Framing(
        hop=params.hop_length,
        window=window.to(place.dtype),
        own=own.to(place.dtype),
        gain=gain.to(place.dtype),
        edges=edges,
    )


def take_frames(signal: Tensor, f: Framing, frames: Tensor) -> None:
    """Write the windowed frames ``(B, T, n_fft)`` of signals ``(B, L)``, those past an utterance's own as 0."""
    frames.copy_(signal.unfold(1, f.window.shape[0], f.hop)[:, : f.own.shape[1]] * f.window * f.own)


def add_frames(frames: Tensor, f: Framing, signal: Tensor) -> None:
    """Overwrite signals by the nearest to frames ``(B, T, n_fft)`` that irfft gave without its 1 / n_fft."""
    sums = overlapped(frames * f.window, f.hop)
    for padding, mirrored in f.edges:
        # No two of one edge meet, but in a recording shorter than its padding.
        sums = sums.scatter_add(1, mirrored, sums.gather(1, padding))
    sums = sums * f.gain
    for padding, mirrored in f.edges:
        sums = sums.scatter(1, padding, sums.gather(1, mirrored))
    signal.copy_(sums)


def overlapped(frames: Tensor, hop: int) -> Tensor:
    """Return the sums ``(B, L)`` of frames ``(B, T, n_fft)`` a hop apart, L a whole number of hops."""
    n_frames, n_fft = frames.shape[1:]
    reach = -(-n_fft // hop)
    sums = frames.new_zeros(frames.shape[0], n_frames + reach, hop)
    for j in range(reach):
        part = frames[..., j * hop : (j + 1) * hop]
        sums[:, j : j + n_frames, : part.shape[2]] += part
    return sums.flatten(1)


def _edges(params: StftParams, n_samples: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    if params.pad_mode != "reflect" or params.pad == 0:
        return ()
    pad = torch.arange(params.pad, device=n_samples.device).expand(len(n_samples), -1)
    period = (2 * (n_samples - 1)).clamp(min=1)

    def edge(padding: Tensor) -> tuple[Tensor, Tensor]:
        turn = (padding - params.pad) % period
        return padding, params.pad + torch.minimum(turn, period - turn)

    # A signal of one sample has a period of 1, in which all is sample 0.
    return edge(pad), edge(params.pad + n_samples + pad)
