"""The discriminators that a generator learns from: of periods of the waveform, and of spectra.

References
----------
Kong, Kim, Bae, "HiFi-GAN", NeurIPS 2020, section 2.3 (multi-period discriminator).
Jang et al., "UnivNet", Interspeech 2021, section 2.2 (multi-resolution spectrogram discriminator).
Lee et al., "PhaseAug: A Differentiable Augmentation for Speech Synthesis to Simulate One-to-Many
    Mapping", ICASSP 2023.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad
from torch.nn.utils.parametrizations import weight_norm

_SLOPE = 0.1
_PERIODS = (2, 3, 5, 7, 11)
_RESOLUTIONS = (512, 1024, 2048)
_MULTIPLES = (1, 2, 4, 8, 8)
_DEPTH = 4
_PHASE_N_FFT = 1024


class _Period(nn.Module):
    """Judge a waveform by convolutions along its periods, folded to `period` columns."""

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(width * multiple for multiple in _MULTIPLES)]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), ((3 if i < 4 else 1), 1), padding=(2, 0)))
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.post = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the judgement and the features of waveforms ``(batch, n_samples)``."""
        x = pad(y, (0, -y.shape[1] % self.period))
        return _judged(self.convs, self.post, x.view(x.shape[0], 1, -1, self.period))


class _Resolution(nn.Module):
    """Judge a waveform by convolutions over the magnitudes of its STFT of `n_fft`."""

    def __init__(self, n_fft: int, width: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(width if i else 1, width, (9, 3), (2, 1), padding=(4, 1))) for i in range(_DEPTH)
        )
        self.post = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the judgement and the features of waveforms ``(batch, n_samples)``."""
        window = torch.hann_window(self.n_fft, device=y.device)
        with torch.autocast(y.device.type, enabled=False):
            D = torch.stft(
                y.float(), self.n_fft, self.n_fft // 4, window=window, pad_mode="constant", return_complex=True
            )
            # The square root makes quiet harmonics stand out.
            x = D.abs().clamp(min=1e-7).sqrt()
        return _judged(self.convs, self.post, x[:, None])


def _judged(convs: nn.ModuleList, post: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    features = []
    for conv in convs:
        x = leaky_relu(conv(x), _SLOPE)
        features.append(x)
    judgement: Tensor = post(x)
    return judgement.flatten(1), features


class Discriminators(nn.Module):
    """Judge waveforms by all discriminators together.

    Parameters
    ----------
    width : int
        Channels of the first layers; 32 in the papers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            [*(_Period(period, width) for period in _PERIODS), *(_Resolution(n_fft, width) for n_fft in _RESOLUTIONS)]
        )

    def forward(self, y: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Return each discriminator's judgement and features of waveforms.

        The waveforms have the shape ``(batch, n_samples)``.
        """
        judged: Sequence[tuple[Tensor, list[Tensor]]] = [part(y) for part in self.parts]
        return [judgement for judgement, _ in judged], [features for _, features in judged]


def phase_rotated(signals: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Return waveforms whose bins' phases are turned at random, alike in all `signals`.

    The waveforms have the shape ``(batch, n_samples)``.

    A discriminator that sees both signals turned can't punish a phase that the mel does not
    determine (PhaseAug). An angle is drawn for each utterance and bin, and smoothed over the bins.
    """
    batch, n_samples = signals[0].shape
    window = torch.hann_window(_PHASE_N_FFT, device=signals[0].device)
    angles = (torch.rand(batch, _PHASE_N_FFT // 2 + 1, 1, generator=generator) * 2 - 1) * torch.pi
    # Neighbours turn nearly alike: white angles would smear every onset over a frame.
    smooth = torch.cumsum(angles, dim=1) / (_PHASE_N_FFT // 2) ** 0.5
    turn = torch.polar(torch.ones_like(smooth), smooth).to(signals[0].device)
    turned = []
    for y in signals:
        D = torch.stft(
            y.float(), _PHASE_N_FFT, _PHASE_N_FFT // 4, window=window, pad_mode="constant", return_complex=True
        )
        turned.append(torch.istft(D * turn, _PHASE_N_FFT, _PHASE_N_FFT // 4, window=window, length=n_samples))
    return turned
