"""The projection of a batch onto consistent spectra, with framing and overlap-add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.numeric.batched.device import Placement
from melmill.stages.numeric.lanes.framing import FAINT
from melmill.stages.numeric.melspec import StftParams
from melmill.stages.numeric.stft import hann

Edges = tuple[tuple[Tensor, Tensor], ...]


class Projection:
    """Project spectra onto those of signals of given lengths: P_C(X) = STFT(iSTFT(X)).

    It is `melmill.stages.numeric.compiled.projection.Projection` for each utterance of a batch.

    Parameters
    ----------
    params : StftParams
    lengths : sequence of int
        Samples of each utterance.
    place : Placement

    Attributes
    ----------
    signal : Tensor, shape (B, n_hops, hop)
        The current signals with their padding.
    """

    def __init__(self, params: StftParams, lengths: Sequence[int], place: Placement) -> None:
        self.params, self.lengths = params, tuple(lengths)
        self.framing = framing(params, lengths, place)
        self.signal = torch.zeros_like(self.framing.gain)
        self._take, self._add = place.kernel(take_frames), place.kernel(add_frames)

    @property
    def samples(self) -> list[NDArray[np.floating]]:
        """The current signals, each ``(n_samples,)``."""
        signal, first = self.signal.flatten(1).cpu().numpy(), self.params.pad
        return [y[first : first + n].copy() for y, n in zip(signal, self.lengths, strict=True)]

    def analyse(self) -> Tensor:
        """Return the spectra ``(B, T, F)`` of the current signals, 0 past an utterance's frames."""
        frames = self.signal.new_empty(*self.framing.own.shape[:2], self.params.n_fft)
        self._take(self.signal, self.framing, frames)
        Z: Tensor = torch.fft.rfft(frames)
        return Z

    def synthesise(self, X: Tensor) -> None:
        """Make the current signals the nearest to spectra; overwrites by 0 what no signal has."""
        # FFT libraries disagree on what an imaginary part of the first or the last bin means.
        X[..., 0].imag.zero_()
        if self.params.n_fft % 2 == 0:
            X[..., -1].imag.zero_()
        # "forward" leaves out the 1 / n_fft, which would be a pass of its own: the gain holds it.
        self._add(torch.fft.irfft(X, n=self.params.n_fft, norm="forward"), self.framing, self.signal)


class Framing(NamedTuple):
    """How a batch of signals is framed, each by its own length, and what undoes it.

    Signals are in hops, ``(B, n_hops, hop)``, padding included, with room for the longest.

    Parameters
    ----------
    hop : int
    window : Tensor, shape (n_fft,)
    own : Tensor, shape (B, T, 1)
        1 for an utterance's own frames, 0 past them.
    gain : Tensor, shape (B, n_hops, hop)
        The canonical dual window's share, over the inverse FFT's n_fft. 0 outside an utterance's
        own samples.
    edges : tuple of (Tensor, Tensor), int64, shape (B, pad)
        Of the left and the right edge where they are reflected: samples of the padding, and those
        that they mirror.
    """

    hop: int
    window: Tensor
    own: Tensor
    gain: Tensor
    edges: Edges


def framing(params: StftParams, lengths: Sequence[int], place: Placement) -> Framing:
    """Return how signals of `lengths` samples are framed; at least one has a frame."""
    n_samples = torch.tensor(lengths, device=place.device)[:, None]
    n_frames = torch.tensor([params.n_frames(n) for n in lengths], device=place.device)
    window = torch.as_tensor(hann(params), device=place.device)
    own = (torch.arange(int(n_frames.max()), device=place.device) < n_frames[:, None])[..., None]
    edges = _edges(params, n_samples)
    weight = _folded(overlapped(own * window**2, params.hop_length), edges)
    at = torch.arange(weight[0].numel(), device=place.device)
    inside = ((at >= params.pad) & (at < params.pad + n_samples)).view_as(weight)
    loud = weight > FAINT * (weight * inside).amax((1, 2), keepdim=True)
    gain = torch.where(inside & loud, 1 / (params.n_fft * weight), 0.0)
    return Framing(
        hop=params.hop_length,
        window=window.to(place.dtype),
        own=own.to(place.dtype),
        gain=gain.to(place.dtype),
        edges=edges,
    )


def take_frames(signal: Tensor, f: Framing, frames: Tensor) -> None:
    """Write the windowed frames ``(B, T, n_fft)`` of signals: 0 past an utterance's own."""
    spans = signal.flatten(1).unfold(1, f.window.shape[0], f.hop)[:, : f.own.shape[1]]
    frames.copy_(spans * f.window * f.own)


def add_frames(frames: Tensor, f: Framing, signal: Tensor) -> None:
    """Overwrite signals by the nearest to frames ``(B, T, n_fft)``.

    The frames are irfft's without its 1 / n_fft.
    """
    sums = _folded(overlapped(frames * f.window, f.hop), f.edges) * f.gain
    for padding, mirrored in f.edges:
        flat = sums.flatten(1)
        sums = flat.scatter(1, padding, flat.gather(1, mirrored)).view_as(sums)
    signal.copy_(sums)


def overlapped(frames: Tensor, hop: int) -> Tensor:
    """Return the sums ``(B, n_hops, hop)`` of frames ``(B, T, n_fft)`` a hop apart."""
    n_frames, n_fft = frames.shape[1:]
    reach = -(-n_fft // hop)
    sums = frames.new_zeros(frames.shape[0], n_frames + reach, hop)
    for j in range(reach):
        part = frames[..., j * hop : (j + 1) * hop]
        sums[:, j : j + n_frames, : part.shape[2]] += part
    return sums


def _folded(sums: Tensor, edges: Edges) -> Tensor:
    """Return sums with those at the padding added to those at the samples that it mirrors."""
    for padding, mirrored in edges:
        flat = sums.flatten(1)
        # No two samples of one edge meet in a place, but in a recording shorter than its padding.
        sums = flat.scatter_add(1, mirrored, flat.gather(1, padding)).view_as(sums)
    return sums


def _edges(params: StftParams, n_samples: Tensor) -> Edges:
    if params.pad_mode != "reflect" or params.pad == 0:
        return ()
    pad = torch.arange(params.pad, device=n_samples.device).expand(len(n_samples), -1)
    period = (2 * (n_samples - 1)).clamp(min=1)

    def edge(padding: Tensor) -> tuple[Tensor, Tensor]:
        turn = (padding - params.pad) % period
        return padding, params.pad + torch.minimum(turn, period - turn)

    # A signal of one sample has a period of 1, in which all is sample 0.
    return edge(pad), edge(params.pad + n_samples + pad)
