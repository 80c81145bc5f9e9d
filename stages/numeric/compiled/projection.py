"""The projection onto consistent spectra."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.framing import framing, padded, tiled, untiled
from melmill.stages.numeric.lanes.sweep import Sweep, analyse, from_lanes, sweep, synthesise, to_lanes
from melmill.stages.numeric.lanes.vector import LANES
from melmill.stages.numeric.melspec import Precision, StftParams


class Projection:
    """Project spectra onto those of signals of one length: P_C(X) = STFT(iSTFT(X)).

    The inverse uses the canonical dual window: overlap-add of windowed frames over the sum of
    squared windows. This is the least-squares solution for zero padding. With reflected edges the
    padding's share is folded back onto the samples that it mirrors, so that the same holds.

    Parameters
    ----------
    params : StftParams
    n_samples : int
        Length of the signals.
    dtype : {"float32", "float64"}
        Precision of all that is computed.

    Attributes
    ----------
    sweep : Sweep
        Holds the current signal. Spectra are in lane layout, see `melmill.stages.numeric.lanes`.

    References
    ----------
    Griffin and Lim 1984, eq. 6 (least-squares inverse); Masuyama et al. 2024, eq. 4 (P_C).
    """

    def __init__(self, params: StftParams, n_samples: int, dtype: Precision = "float32") -> None:
        self.params, self.n_samples, self.dtype = params, n_samples, dtype
        self.n_frames = params.n_frames(n_samples)
        self.sweep: Sweep = sweep(framing(params, n_samples, dtype), params.n_fft)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a magnitude in lane layout; a spectrum has 2 parts before the last axis."""
        return -(-self.n_frames // LANES), self.params.n_bins, LANES

    @property
    def samples(self) -> NDArray[np.floating]:
        """The current signal ``(n_samples,)``."""
        return untiled(self.sweep.signal)[self.params.pad : self.params.pad + self.n_samples].copy()

    @samples.setter
    def samples(self, y: NDArray[np.floating]) -> None:
        self.sweep.signal[...] = tiled(padded(y, self.params, self.dtype), self.params.hop_length)

    def analyse(self) -> NDArray[np.floating]:
        """Return the current signal's spectra ``(n_groups, n_bins, 2, LANES)``."""
        groups, bins, lanes = self.shape
        Z = np.empty((groups, bins, 2, lanes), dtype=self.dtype)
        analyse(self.sweep, Z)
        return Z

    def synthesise(self, X: NDArray[np.floating]) -> None:
        """Make the current signal the nearest to spectra in lane layout."""
        synthesise(self.sweep, X)

    def __call__(self, X: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
        """Return P_C(X) of a complex spectrum ``(n_bins, n_frames)``, of that shape."""
        self.synthesise(np.stack([to_lanes(X.real), to_lanes(X.imag)], axis=2).astype(self.dtype))
        Z = self.analyse()
        return from_lanes(Z[:, :, 0], self.n_frames) + 1j * from_lanes(Z[:, :, 1], self.n_frames)
