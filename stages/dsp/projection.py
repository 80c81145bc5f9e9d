"""The projection onto consistent spectra, one cache-sized block of frames at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from melmill.stages.dsp.melspec import StftParams
from melmill.stages.dsp.stft import Stft

# 64 frames of 1024 samples with their spectrum and a solver's state take about 1 MB, so that they stay in a core's
# cache; fewer would pay more for the calls than they save.
BLOCK_FRAMES = 64

# A sample whose squared windows sum to less than this share of the most is left 0: dividing by it would blow up
# what little an inconsistent spectrum puts there (the first milliseconds with center=False).
_FAINT = 1e-3

Update = Callable[[NDArray[Any], slice], NDArray[Any]]


class Projection:
    """Project spectra onto the image C of the STFT of signals of one length, P_C(X) = STFT(iSTFT(X)).

    The inverse uses the canonical dual window: overlap-add of windowed frames over the sum of squared windows, which is
    the least-squares solution for zero padding. With reflected edges the padding's share is folded back onto the
    samples that it mirrors, so that the same holds.

    A signal is kept *framed*: with its padding, and zeros up to a whole number of hops.

    Parameters
    ----------
    params : StftParams
    n_samples : int
        Length of the signals.
    dtype : np.float32 or np.float64
        Precision of signals; spectra are complex of twice its size.

    References
    ----------
    Griffin and Lim 1984, eq. 6 (least-squares inverse); Masuyama et al. 2024, eq. 4 (P_C).
    """

    def __init__(self, params: StftParams, n_samples: int, dtype: type[np.floating[Any]] = np.float32) -> None:
        self.params = params
        self.n_samples = n_samples
        self.n_frames = params.n_frames(n_samples)
        self.window = Stft(params, dtype).window
        self._mirrored = self._mirror() if params.pad_mode == "reflect" and params.pad else None
        self._gain = self._dual_gain()

    def blocks(self) -> list[slice]:
        """Return the frames as slices of one block each, in order."""
        starts = range(0, self.n_frames, BLOCK_FRAMES)
        return [slice(start, min(start + BLOCK_FRAMES, self.n_frames)) for start in starts]

    def framed(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return a signal ``(n_samples,)`` with its padding."""
        total = self._empty()
        total[self._own] = y
        self._pad(total)
        return total

    def samples(self, framed: NDArray[Any]) -> NDArray[Any]:
        """Return the signal ``(n_samples,)`` of a framed one."""
        return framed[self._own].copy()

    def analyse(self, framed: NDArray[Any], block: slice) -> NDArray[Any]:
        """Return the spectrum ``(n_block_frames, n_bins)`` of one block of a framed signal."""
        windows = np.lib.stride_tricks.sliding_window_view(framed, self.params.n_fft)[:: self.params.hop_length]
        return np.asarray(scipy.fft.rfft(windows[block] * self.window, axis=-1, overwrite_x=True))

    def synthesise(self, spectrum_of: Callable[[slice], NDArray[Any]]) -> NDArray[Any]:
        """Return the framed signal nearest to a spectrum that is asked for block by block."""
        total = self._empty()
        for block in self.blocks():
            frames = scipy.fft.irfft(spectrum_of(block), n=self.params.n_fft, axis=-1)
            frames *= self.window
            self._overlap_add(frames, block.start, total)
        self._settle(total)
        return total

    def sweep(self, framed: NDArray[Any], update: Update) -> NDArray[Any]:
        """Take every block through STFT, `update` and iSTFT while it is in cache; return the new framed signal.

        `update(Z, block)` gets the block's spectrum, may overwrite it, and returns what is projected next.
        """
        return self.synthesise(lambda block: update(self.analyse(framed, block), block))

    def __call__(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return P_C(X) of a whole spectrum ``(n_frames, n_bins)``."""
        framed = self.synthesise(lambda block: X[block])
        return self.analyse(framed, slice(0, self.n_frames))

    @property
    def _own(self) -> slice:
        return slice(self.params.pad, self.params.pad + self.n_samples)

    def _empty(self) -> NDArray[Any]:
        p = self.params
        hops = self.n_frames + -(-p.n_fft // p.hop_length)
        return np.zeros(max(hops * p.hop_length, self.n_samples + 2 * p.pad), dtype=self.window.dtype)

    def _overlap_add(self, frames: NDArray[Any], start: int, total: NDArray[Any]) -> None:
        # Hop j of all frames lies on consecutive hops of the signal: n_fft / hop_length shifted adds.
        hop = self.params.hop_length
        hops = total[: total.size // hop * hop].reshape(-1, hop)
        for j in range(-(-self.params.n_fft // hop)):
            part = frames[:, j * hop : (j + 1) * hop]
            hops[start + j : start + j + len(frames), : part.shape[1]] += part

    def _dual_gain(self) -> NDArray[Any]:
        weight = self._empty()
        squared = self.window * self.window
        for block in self.blocks():
            frames = np.broadcast_to(squared, (block.stop - block.start, squared.size))
            self._overlap_add(frames, block.start, weight)
        self._fold(weight)
        own = weight[self._own]
        faint = own <= _FAINT * own.max(initial=0.0)
        return np.asarray(np.divide(1, own, out=np.zeros_like(own), where=~faint))

    def _settle(self, total: NDArray[Any]) -> None:
        self._fold(total)
        total[self._own] *= self._gain
        self._pad(total)

    def _mirror(self) -> NDArray[np.int64]:
        # Which place of the framed signal each padding sample copies: left edge, then right.
        pad = self.params.pad
        source = np.pad(np.arange(self.n_samples), pad, mode="reflect") + pad
        return np.concatenate([source[:pad], source[pad + self.n_samples :]])

    def _fold(self, total: NDArray[Any]) -> None:
        if self._mirrored is not None:
            pad, end = self.params.pad, self._own.stop
            edges = np.concatenate([total[:pad], total[end : end + pad]])
            np.add.at(total, self._mirrored, edges)

    def _pad(self, total: NDArray[Any]) -> None:
        pad, end = self.params.pad, self._own.stop
        total[:pad] = 0
        total[end:] = 0
        if self._mirrored is not None:
            total[:pad] = total[self._mirrored[:pad]]
            total[end : end + pad] = total[self._mirrored[pad:]]
