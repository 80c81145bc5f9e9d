"""Spectra of recordings at other speeds, levels and timbres, for the training of a prior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.mel import from_bands, to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.stft import hann, window_norm

# Ripples of a random filter over all frequencies, from a slope to four half waves.
_N_RIPPLES = 4
# Frames more than a segment at its highest speed needs: the resampler is not exact at its ends.
_SPARE_FRAMES = 2


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Say by how much segments are changed.

    Parameters
    ----------
    speed : float
        Speeds lie between this and its inverse, pitch with them. 1: as recorded.
    gain_db : float
        The loudest band of a segment lies up to so much below full scale, dB.
    tilt_db : float
        Spread of a random filter, dB: its standard deviation over frequencies is about this.
    """

    speed: float
    gain_db: float
    tilt_db: float


class Spectra:
    """Make spectra and mels of segments of recordings.

    Parameters
    ----------
    spec : MelSpec
    change : Augmentation
    segment_frames : int
        Frames of a segment.
    device : torch.device
    """

    def __init__(self, spec: MelSpec, change: Augmentation, segment_frames: int, device: torch.device) -> None:
        self.spec, self.change, self.segment_frames, self.device = spec, change, segment_frames, device
        self.window = torch.from_numpy(hann(spec.stft).astype(np.float32)).to(device)
        self.E = torch.from_numpy(np.array(mel_bank(spec).T)).to(device)
        silence = np.zeros((spec.n_mels, 1), dtype=np.float32)
        self.floor = torch.from_numpy(to_linear(from_bands(silence, spec), spec)[:, 0]).to(device)
        self._eps = spec.eps * window_norm(spec) ** 2
        self._least = spec.energy_floor * window_norm(spec) ** 2

    @property
    def feed_frames(self) -> int:
        """Frames of the audio that `drawn` needs, for a segment at any speed."""
        own = self.segment_frames - 1 + self.spec.n_fft / self.spec.hop_length
        return math.ceil(own * self.change.speed) + _SPARE_FRAMES

    def drawn(self, audio: NDArray[np.float32], rng: np.random.Generator) -> Tensor:
        """Return the spectra of segments, each changed by draws of its own.

        Parameters
        ----------
        audio : ndarray of float32, shape (B, feed_frames * hop_length)
        rng : Generator

        Returns
        -------
        complex Tensor, shape (B, segment_frames, n_bins)
        """
        bound = math.log(self.change.speed)
        speeds = np.exp(rng.uniform(-bound, bound, size=len(audio)))
        n_samples = (self.segment_frames - 1) * self.spec.hop_length + self.spec.n_fft
        cut = np.stack([_at_speed(y, float(s), n_samples) for y, s in zip(audio, speeds, strict=True)])
        filters = _filters(rng, len(audio), self.spec.stft.n_bins, self.change.tilt_db)
        return self.spectra(torch.from_numpy(cut).to(self.device)) * torch.from_numpy(filters).to(self.device)[:, None]

    def spectra(self, y: Tensor) -> Tensor:
        """Return the spectra ``(B, n_frames, n_bins)`` of the frames that lie within signals ``(B, n_samples)``."""
        D: Tensor = torch.fft.rfft(y.unfold(1, self.spec.n_fft, self.spec.hop_length) * self.window)
        return D

    def bands(self, A: Tensor) -> Tensor:
        """Return the linear mel ``(B, T, n_mels)`` of a magnitude ``(B, T, n_bins)``.

        It is `to_linear` of the mel: what its floor hides stays at the floor.
        """
        S = A
        if self._eps or self._least:
            S = (A.square().clamp(min=self._least) + self._eps).sqrt()
        if self.spec.power != 1.0:
            S = S**self.spec.power
        return torch.maximum(S @ self.E, self.floor)

    def gains(self, rng: np.random.Generator, n: int) -> Tensor:
        """Return factors for the magnitudes of `n` segments whose loudest band is full."""
        drawn = 10.0 ** (-rng.uniform(0.0, self.change.gain_db, size=n) / 20.0)
        return torch.from_numpy(drawn.astype(np.float32)).to(self.device)


def magnitude(D: Tensor) -> Tensor:
    """Return the magnitude of a spectrum, faster than torch's own, which guards against overflow."""
    return (D.real.square() + D.imag.square()).sqrt()


def _at_speed(y: NDArray[np.float32], speed: float, n_samples: int) -> NDArray[np.float32]:
    """Return the middle `n_samples` of a recording played faster or slower."""
    import soxr

    if speed != 1.0:
        y = np.asarray(soxr.resample(y, speed, 1.0, quality="HQ"), dtype=np.float32)
    start = (y.size - n_samples) // 2
    return y[start : start + n_samples]


def _filters(rng: np.random.Generator, n: int, n_bins: int, tilt_db: float) -> NDArray[np.float32]:
    """Return random smooth gains ``(n, n_bins)``."""
    ripples = np.cos(np.pi * np.outer(1 + np.arange(_N_RIPPLES), np.linspace(0.0, 1.0, n_bins)))
    heights = rng.standard_normal((n, _N_RIPPLES)) / (1 + np.arange(_N_RIPPLES))
    # A cosine has a variance of a half.
    total = math.sqrt(0.5 * sum((1 + i) ** -2 for i in range(_N_RIPPLES)))
    return np.asarray(10.0 ** (tilt_db / 20.0 * (heights @ ripples) / total), dtype=np.float32)
