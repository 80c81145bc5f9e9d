"""A recording, a reconstruction of it, and what several metrics need of both, computed once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.mel import magnitude_spec, mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.resample import resample
from melmill.stages.numeric.stft import Stft
from melmill.stages.score.status import Status

SILENCE = 2.0**-15
"""A signal that stays within one step of 16-bit PCM around its mean is silent."""

LOUDEST = 1e6
"""A signal more than 120 dB over full scale has diverged; its energy would soon leave float32."""

Both = tuple[NDArray[np.float32], NDArray[np.float32]]
Resampler = Callable[[NDArray[np.float32], int, int], NDArray[np.float32]]
T = TypeVar("T")


class Pair:
    """Hold a reference and an estimate, with the spectra that metrics compare.

    Everything is computed when it is first asked for, and then kept.

    Parameters
    ----------
    reference, estimate : ndarray of float32, shape (n_samples,)
        Full scale is 1. Without a reference, metrics that need none can still be measured.
    reference_sr, estimate_sr : int
        Rates, Hz.
    spec : MelSpec
        STFT and mel of the spectral metrics. Signals at another rate are resampled to ``spec.sr``.
    cut : bool
        Compare signals whose lengths differ by more than a hop over the shorter of the two.
    text : str
        Transcript of the reference; empty if there is none.
    """

    def __init__(
        self,
        *,
        reference: NDArray[np.float32] | None,
        reference_sr: int,
        estimate: NDArray[np.float32],
        estimate_sr: int,
        spec: MelSpec,
        cut: bool = False,
        text: str = "",
    ) -> None:
        self.text = text
        self.has_reference = reference is not None
        self._reference = np.empty(0, dtype=np.float32) if reference is None else reference
        self._reference_sr = reference_sr
        self._estimate, self._estimate_sr = estimate, estimate_sr
        self._spec = magnitude_spec(spec)
        self._cut = cut
        self._at: dict[tuple[int, Resampler], Both] = {}
        self._shared: dict[Callable[[Pair], object], object] = {}

    @cached_property
    def status(self) -> Status:
        """Why no metric can compare the two; ok where they can be compared.

        Framing rounds lengths, so they may differ by one hop. A larger difference is an error,
        unless the signals are to be cut.
        """
        if not self.has_reference:
            return Status.MISSING_REFERENCE
        if not (self._reference.size and self._estimate.size):
            return Status.TOO_SHORT
        if not (_is_sound(self._reference) and _is_sound(self._estimate)):
            return Status.NON_FINITE
        if _is_silent(self._reference):
            return Status.SILENT_REFERENCE
        if _is_silent(self._estimate):
            return Status.SILENT_ESTIMATE
        fit = self._cut or within_a_hop(
            self._reference.size, self._reference_sr, self._estimate.size, self._estimate_sr, self._spec
        )
        return Status.OK if fit else Status.ERROR

    @cached_property
    def estimate_status(self) -> Status:
        """Why no metric can judge the estimate alone; ok where they can."""
        if not self._estimate.size:
            return Status.TOO_SHORT
        if not _is_sound(self._estimate):
            return Status.NON_FINITE
        return Status.SILENT_ESTIMATE if _is_silent(self._estimate) else Status.OK

    @property
    def lowest_sr(self) -> int:
        """Lower of the two rates, Hz: the pair has no common content above half of it."""
        return min(self._reference_sr, self._estimate_sr)

    @property
    def estimate_sr(self) -> int:
        """Rate of the estimate, Hz."""
        return self._estimate_sr

    @property
    def estimate_duration_s(self) -> float:
        """Duration of the estimate, s."""
        return self._estimate.size / self._estimate_sr

    def once(self, make: Callable[[Pair], T]) -> T:
        """Return ``make(self)``, computed once for all metrics that ask for it.

        Parameters
        ----------
        make : callable
            A function of a module; what it returned is kept by the function itself.
        """
        if make not in self._shared:
            self._shared[make] = make(self)
        return cast("T", self._shared[make])

    def at(self, sr: int) -> Both:
        """Return reference and estimate ``(n_samples,)`` at `sr` Hz, cut to the shorter."""
        reference, estimate = self.whole(sr)
        n = min(reference.size, estimate.size)
        return reference[:n], estimate[:n]

    def estimate_at(self, sr: int, by: Resampler = resample) -> NDArray[np.float32]:
        """Return the estimate ``(n_samples,)`` at `sr` Hz, at its own length.

        Parameters
        ----------
        sr : int
        by : callable
            What resamples it, as `melmill.stages.numeric.resample.resample` does.
        """
        return self.whole(sr, by)[1]

    def whole(self, sr: int, by: Resampler = resample) -> Both:
        """Return reference and estimate ``(n_samples,)`` at `sr` Hz, each at its own length."""
        if (sr, by) not in self._at:
            reference = by(self._reference, self._reference_sr, sr) if self.has_reference else self._reference
            self._at[sr, by] = reference, by(self._estimate, self._estimate_sr, sr)
        return self._at[sr, by]

    @property
    def waveforms(self) -> Both:
        """Reference and estimate ``(n_samples,)`` at the rate of the spec."""
        return self.at(self._spec.sr)

    @property
    def n_frames(self) -> int:
        """Number of frames of the spectra."""
        return self._spec.n_frames(self.waveforms[0].size)

    @cached_property
    def full_scale(self) -> float:
        """Magnitude that a sine of amplitude 1 peaks at."""
        return float(np.sum(self._stft.window, dtype=np.float64)) / 2.0

    @cached_property
    def magnitudes(self) -> Both:
        """Magnitude spectra ``(n_frames, n_bins)`` of reference and estimate."""
        reference, estimate = (np.abs(self._stft.forward(y)) for y in self.waveforms)
        return reference, estimate

    @cached_property
    def mels(self) -> Both:
        """Linear mels ``E |X|**power`` ``(n_mels, n_frames)`` of reference and estimate."""
        reference, estimate = (mel_spectrogram(y, self._spec) for y in self.waveforms)
        return reference, estimate

    @property
    def power(self) -> float:
        """Exponent of the magnitudes under the mels: 1 or 2 as a rule."""
        return self._spec.power

    @cached_property
    def _stft(self) -> Stft:
        return Stft(self._spec.stft)


def within_a_hop(n: int, sr: int, other_n: int, other_sr: int, spec: MelSpec) -> bool:
    """Return whether lengths of `n` samples at `sr` Hz and of another signal fit within one hop."""
    # In integers, so that one hop is exactly one hop.
    return abs(n * other_sr - other_n * sr) * spec.sr <= spec.hop_length * sr * other_sr


def _is_sound(y: NDArray[np.float32]) -> bool:
    return bool(np.max(np.abs(y)) <= LOUDEST)  # False for NaN too


def _is_silent(y: NDArray[np.float32]) -> bool:
    return bool(np.max(np.abs(y - np.mean(y, dtype=np.float64))) < SILENCE)
