"""The losses of a vocoder's training: spectral ones, and those that discriminators make.

References
----------
Yamamoto, Song, Kim, "Parallel WaveGAN", ICASSP 2020, equations 4 to 6 (spectral convergence, log
    magnitudes).
Kong, Kim, Bae, "HiFi-GAN", NeurIPS 2020, equations 1 to 7 (least squares, mel, adversarial and
    feature matching losses).
Siuzdak, "Vocos", ICLR 2024, section 3.4 (hinge losses).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, relu

Features = Sequence[Sequence[Tensor]]

# Windows of the spectral losses, samples. The hop is a quarter of each.
WINDOWS = (256, 512, 1024, 2048)
_FAINTEST = 1e-5


def magnitudes(y: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Return magnitudes of waveforms ``(batch, n_samples)``, at least 1e-5.

    They have the shape ``(batch, 1 + n_fft / 2, n_frames)``.
    """
    window = torch.hann_window(n_fft, device=y.device)
    D = torch.stft(y.float(), n_fft, hop_length, window=window, pad_mode="constant", return_complex=True)
    return D.abs().clamp(min=_FAINTEST)


def spectral_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Return spectral convergence plus mean distance of log magnitudes, averaged over `WINDOWS`.

    Parameters
    ----------
    estimate, target : Tensor of float, shape (batch, n_samples)
    """
    total = estimate.new_zeros(())
    for n_fft in WINDOWS:
        A, B = (magnitudes(y, n_fft, n_fft // 4) for y in (estimate, target))
        convergence = (A - B).norm() / B.norm()
        total = total + convergence + l1_loss(A.log(), B.log())
    return total / len(WINDOWS)


def mel_loss(estimate: Tensor, target: Tensor, bank: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Return the mean distance of log mels under `bank` ``(n_mels, 1 + n_fft / 2)``."""
    A, B = ((bank @ magnitudes(y, n_fft, hop_length)).clamp(min=_FAINTEST).log() for y in (estimate, target))
    return l1_loss(A, B)


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor], *, squares: bool = False) -> Tensor:
    """Return the loss of discriminators' judgements of recordings and of generated audio.

    It is that of hinges, or of least squares.
    """
    if squares:
        losses = [((1 - r) ** 2).mean() + (f**2).mean() for r, f in zip(real, fake, strict=True)]
    else:
        losses = [relu(1 - r).mean() + relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).mean()


def generator_loss(fake: Sequence[Tensor], *, squares: bool = False) -> Tensor:
    """Return the loss of a generator from the discriminators' judgements of what it made."""
    return torch.stack([((1 - f) ** 2).mean() if squares else relu(1 - f).mean() for f in fake]).mean()


def feature_loss(real: Features, fake: Features) -> Tensor:
    """Return the mean distance of discriminators' features of recordings and generated audio."""
    pairs = [(r, f) for rs, fs in zip(real, fake, strict=True) for r, f in zip(rs, fs, strict=True)]
    return torch.stack([l1_loss(f, r.detach()) for r, f in pairs]).mean()
