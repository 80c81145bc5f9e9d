"""A reference and an estimate of it, and what several metrics share, computed once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.mel import magnitude_spec, mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.resample import resample
from melmill.stages.numeric.stft import Stft
from melmill.stages.score import spectral, stoi
from melmill.stages.score.status import Status

SILENCE = 2.0**-15
"""A signal that stays within one step of 16-bit PCM of its mean is silent."""

LOUDEST = 1e6
"""Beyond 120 dB over full scale a signal has diverged; its energy would soon leave float32."""

Both = tuple[NDArray[np.float32], NDArray[np.float32]]


class Pair:
    """A reference and an estimate, with the spectra that the metrics compare, each made when first asked for.

    Parameters
    ----------
    reference, estimate : ndarray of float32 in [-1, 1], shape (n_samples,)
    reference_sr, estimate_sr : int
        Hz.
    spec : MelSpec
        The STFT and the mel of the spectral metrics; signals at another rate are resampled to ``spec.sr``.
    """

    def __init__(
        self,
        *,
        reference: NDArray[np.float32],
        reference_sr: int,
        estimate: NDArray[np.float32],
        estimate_sr: int,
        spec: MelSpec,
    ) -> None:
        self._reference, self._reference_sr = reference, reference_sr
        self._estimate, self._estimate_sr = estimate, estimate_sr
        self._spec = magnitude_spec(spec)
        self._at: dict[int, Both] = {}

    @cached_property
    def status(self) -> Status:
        """Why no metric can compare the two, or ok.

        Lengths may differ by one hop, what framing rounds off; more is an error.
        """
        if not (self._reference.size and self._estimate.size):
            return Status.TOO_SHORT
        if not (_is_sound(self._reference) and _is_sound(self._estimate)):
            return Status.NON_FINITE
        if _is_silent(self._reference):
            return Status.SILENT_REFERENCE
        if _is_silent(self._estimate):
            return Status.SILENT_ESTIMATE
        common = self._reference_sr * self._estimate_sr  # in integers, so that one hop is one hop
        apart = abs(self._reference.size * self._estimate_sr - self._estimate.size * self._reference_sr)
        return Status.OK if apart * self._spec.sr <= self._spec.hop_length * common else Status.ERROR

    @property
    def lowest_sr(self) -> int:
        """The lower of the two rates, Hz: nothing is heard above half of it."""
        return min(self._reference_sr, self._estimate_sr)

    @property
    def duration_s(self) -> float:
        """Length of the reference, s."""
        return self._reference.size / self._reference_sr

    def at(self, sr: int) -> Both:
        """Return reference and estimate at `sr` Hz, cut to the shorter."""
        if sr not in self._at:
            reference = resample(self._reference, self._reference_sr, sr)
            estimate = resample(self._estimate, self._estimate_sr, sr)
            n = min(reference.size, estimate.size)
            self._at[sr] = reference[:n], estimate[:n]
        return self._at[sr]

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
        """Linear mels ``(n_mels, n_frames)`` of reference and estimate, ``E |X|**power``."""
        reference, estimate = (mel_spectrogram(y, self._spec) for y in self.waveforms)
        return reference, estimate

    @cached_property
    def log_mels(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Log mels ``(n_mels, n_frames)``, in nepers of magnitude."""
        reference, estimate = (spectral.log_mel(M, self._spec.power) for M in self.mels)
        return reference, estimate

    @cached_property
    def envelopes(self) -> stoi.Envelopes | None:
        """What STOI and ESTOI compare."""
        return stoi.envelopes(*self.at(self._estimate_sr), self._estimate_sr)

    @cached_property
    def _stft(self) -> Stft:
        return Stft(self._spec.stft)


def _is_sound(y: NDArray[np.float32]) -> bool:
    return bool(np.max(np.abs(y)) <= LOUDEST)  # false for NaN, too


def _is_silent(y: NDArray[np.float32]) -> bool:
    return bool(np.max(np.abs(y - np.mean(y, dtype=np.float64))) < SILENCE)
