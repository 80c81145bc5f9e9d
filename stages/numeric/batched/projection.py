"""The projection onto consistent spectra, of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.numeric.batched.framing import add_frames, framing, take_frames
from melmill.stages.numeric.batched.placement import Placement
from melmill.stages.numeric.melspec import StftParams


class Projection:
    """Project spectra onto the images of the STFT of signals of given lengths, P_C(X) = STFT(iSTFT(X)).

    The same as `melmill.stages.numeric.compiled.projection.Projection` of each utterance alone.

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
    def samples(self) -> list[NDArray[Any]]:
        """The current signals, each ``(n_samples,)``."""
        signal, first = self.signal.flatten(1).cpu().numpy(), self.params.pad
        return [y[first : first + n].copy() for y, n in zip(signal, self.lengths, strict=True)]

    def analyse(self) -> Tensor:
        """Return the complex spectra ``(B, T, F)`` of the current signals, 0 past an utterance's own frames."""
        frames = self.signal.new_empty(*self.framing.own.shape[:2], self.params.n_fft)
        self._take(self.signal, self.framing, frames)
        Z: Tensor = torch.fft.rfft(frames)
        return Z

    def synthesise(self, X: Tensor) -> None:
        """Make the current signals the nearest to spectra; sets what X has and no signal does to 0."""
        # FFT libraries disagree on what an imaginary part of the first or the last bin means.
        X[..., 0].imag.zero_()
        if self.params.n_fft % 2 == 0:
            X[..., -1].imag.zero_()
        # "forward" leaves out the 1 / n_fft, which would be a pass of its own: the gain holds it.
        self._add(torch.fft.irfft(X, n=self.params.n_fft, norm="forward"), self.framing, self.signal)
