"""Unfolded inversion: a start by signal processing, then learned steps, each ending in a waveform.

The start is what `invert` makes without iterations: non-negative least squares for the magnitude,
PGHI for the phase. A step gets the waveform's spectrum, the advance of its phase from frame to
frame, and the distance of its mel from the one wanted. It answers with a factor of the magnitude
and a turn of the phase for every bin. So a network only learns what an iteration of Griffin-Lim or
ADMM does by projection.

A window that reaches past an end of the utterance holds silence there. Training cuts such frames
off, since the silence is not in its segments. So no answer is learned for them. With ``ends: mel``
in the configuration, the mel itself answers there: by the ratio of the bands wanted to those that
are there, without a turn.

References
----------
Masuyama et al., "Deep Griffin-Lim iteration", ICASSP 2019: a network after each projection.
Siuzdak, "Vocos", ICLR 2024: ConvNeXt blocks at the frame rate that predict spectra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from melmill.stages.invert.inversion import solve
from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.mel import to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.solver import Recipe
from melmill.stages.numeric.stft import hann
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.layers.basic import Conv1d, Ends, Linear
from melmill.stages.vocode.layers.spectral import EPS, Block, synthesised
from melmill.stages.vocode.network import Checkpoint, Noise, Vocoder, with_weights

_FAINTEST = 1e-5
# A step's factor of a magnitude is at most this power of e.
_BOUND = 6.0
# The mel's own factor is bounded more closely: where a band is empty it knows nothing.
_MOST_BY_MEL = 2.0


@dataclass(frozen=True, kw_only=True)
class UnfoldedSizes:
    """Hold the sizes of the layers.

    Parameters
    ----------
    width, hidden : int
        Channels outside and inside the blocks.
    n_blocks : int
        Blocks of a step.
    n_steps : int
    """

    width: int
    hidden: int
    n_blocks: int
    n_steps: int


class _Step(nn.Module):
    """Answer a log factor and an angle for every bin of a spectrum."""

    def __init__(self, sizes: UnfoldedSizes, n_mels: int, n_bins: int) -> None:
        super().__init__()
        self.embed = Conv1d(2 * n_mels + 3 * n_bins, sizes.width, 3, padding=1)
        self.norm = nn.LayerNorm(sizes.width, eps=EPS)
        self.blocks = nn.ModuleList(Block(sizes.width, sizes.hidden, scaled=True) for _ in range(sizes.n_blocks))
        self.last_norm = nn.LayerNorm(sizes.width, eps=EPS)
        self.out = Linear(sizes.width, 2 * n_bins)

    def forward(self, features: Tensor, ends: Ends) -> tuple[Tensor, Tensor]:
        x = self.norm(self.embed(ends.cut(features)).transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x, ends)
        log_factor, angle = self.out(self.last_norm(x.transpose(1, 2))).float().transpose(1, 2).chunk(2, dim=1)
        return log_factor.clamp(-_BOUND, _BOUND), angle


class Unfolded(Vocoder):
    """Improve a start step by step; see the module."""

    family: ClassVar[str] = "unfolded"

    def __init__(self, sizes: UnfoldedSizes, spec: MelSpec, *, ends_by_mel: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.ends_by_mel = ends_by_mel
        n_bins = spec.stft.n_bins
        self.steps = nn.ModuleList(_Step(sizes, spec.n_mels, n_bins) for _ in range(sizes.n_steps))
        # These follow from the spec and are not kept with the weights.
        self.window: Tensor
        self.bank: Tensor
        self.advance: Tensor
        self.register_buffer("window", torch.from_numpy(hann(spec.stft).astype(np.float32)), persistent=False)
        self.register_buffer("bank", torch.from_numpy(np.array(mel_bank(spec))), persistent=False)
        expected = -2.0 * np.pi * spec.hop_length * np.arange(n_bins) / spec.n_fft
        self.register_buffer("advance", torch.from_numpy(np.exp(1j * expected).astype(np.complex64)), persistent=False)

    def n_samples(self, n_frames: int) -> int:
        """Return how many samples a mel of `n_frames` gives."""
        return (n_frames - 1) * self.spec.hop_length

    def drawn(self, mel: Tensor, generator: torch.Generator) -> Noise:
        """Return the start, a waveform ``(n_samples,)``, and the wanted linear mel.

        The mel has the shape ``(n_mels, n_frames)``.
        """
        del generator
        M = mel.numpy()
        n_samples = self.n_samples(mel.shape[1])
        # Segments may have ranges that no whole mel has, so the range is not judged here.
        start = Recipe(method=None, n_iter=0)
        y = solve(M, self.spec, start, n_samples).y if n_samples else np.zeros(0, dtype=np.float32)
        return torch.from_numpy(y), torch.from_numpy(to_linear(M, self.spec))

    def takes(self, n_frames: int, noise: Noise) -> bool:
        """Tell whether a start and a linear mel have shapes that fit a mel of `n_frames`."""
        shapes = [(self.n_samples(n_frames),), (self.spec.n_mels, n_frames)]
        return [tuple(given.shape) for given in noise] == shapes

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms ``(batch, n_samples)`` of mels, given their starts.

        The mels have the shape ``(batch, n_mels, n_frames)``.
        """
        y, wanted = noise
        ends = Ends(lengths, mel.shape[2])
        samples = Ends(None if lengths is None else (lengths - 1) * self.spec.hop_length, y.shape[1])
        if y.shape[1] == 0:
            return y
        half = self.spec.n_fft // 2
        cut = self._cut_by_ends(ends, mel.shape[2], y.device) if self.ends_by_mel else None
        for step in self.steps:
            with torch.autocast(y.device.type, enabled=False):
                D = self._spectrum(y)
                features, magnitude, direction = self._seen(D, wanted)
            log_factor, angle = step(features, ends)
            if cut is not None:
                log_factor = torch.where(cut, self._log_ratio(magnitude, wanted), log_factor)
                angle = torch.where(cut, 0.0, angle)
            D = direction * torch.polar(magnitude * log_factor.exp(), angle)
            y = samples.cut(synthesised(D, self.window, self.spec.hop_length, half, ends)[:, None])[:, 0]
        return y

    def _cut_by_ends(self, ends: Ends, n_frames: int, device: torch.device) -> Tensor:
        """Return a mask ``(batch or 1, 1, n_frames)``: True where a window reaches past an end."""
        reach = -(-self.spec.n_fft // 2 // self.spec.hop_length)
        frame = torch.arange(n_frames, device=device)
        length = torch.tensor([n_frames], device=device) if ends.lengths is None else ends.lengths
        return ((frame < reach) | (frame >= length[:, None] - reach))[:, None]

    def _log_ratio(self, magnitude: Tensor, wanted: Tensor) -> Tensor:
        """Return the log of wanted over present bands, for each bin the mean of its bands."""
        present = self.bank @ magnitude**self.spec.power
        log_ratio = wanted.clamp(min=_FAINTEST).log() - present.clamp(min=_FAINTEST).log()
        weight = self.bank.sum(dim=0).clamp(min=torch.finfo(self.bank.dtype).tiny)
        log_factor = (self.bank.T @ log_ratio) / (weight[:, None] * self.spec.power)
        return log_factor.clamp(-_MOST_BY_MEL, _MOST_BY_MEL)

    def _spectrum(self, y: Tensor) -> Tensor:
        spec = self.spec
        D: Tensor = torch.stft(
            y, spec.n_fft, spec.hop_length, window=self.window, pad_mode="constant", return_complex=True
        )
        return D

    def _seen(self, D: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a step's features, and the magnitude and direction of every bin."""
        magnitude = D.abs().clamp(min=_FAINTEST)
        direction = D / magnitude
        # Advance of the phase since the last frame, beyond that of a sinusoid in the middle of the
        # bin.
        turned = torch.zeros_like(direction)
        turned[..., 1:] = direction[..., 1:] * direction[..., :-1].conj() * self.advance[:, None]
        log_wanted = wanted.clamp(min=_FAINTEST).log()
        log_mel = (self.bank @ magnitude**self.spec.power).clamp(min=_FAINTEST).log()
        parts = [log_wanted, log_wanted - log_mel, magnitude.log(), turned.real, turned.imag]
        return torch.cat(parts, dim=1), magnitude, direction


def fits(spec: MelSpec) -> str | None:
    """Return why there can't be such a vocoder for a mel; None where there can."""
    if spec.center is not True:
        return f"center is {spec.center!r}, but only centred frames (center: true) are inverted by learned steps"
    return None


def build(checkpoint: Checkpoint) -> Unfolded:
    """Make the model of a checkpoint. The tensors say the sizes, the configuration says the mel."""
    spec = checkpoint.mel
    if spec is None:
        raise VocoderError(f"{checkpoint.name}: its configuration does not say its mel: put config.json beside it")
    reason = fits(spec)
    if reason is not None:
        raise VocoderError(f"{checkpoint.name}: {reason}")
    sizes = UnfoldedSizes(
        width=checkpoint.shape("steps.0.norm.weight")[0],
        hidden=checkpoint.shape("steps.0.blocks.0.pwconv1.weight")[0],
        n_blocks=checkpoint.count("steps.0.blocks.{}.norm.weight"),
        n_steps=checkpoint.count("steps.{}.norm.weight"),
    )
    by = checkpoint.config.get("ends", "network")
    if by not in ("network", "mel"):
        raise VocoderError(f"{checkpoint.name}: 'ends' of its configuration must be 'network' or 'mel', got {by!r}")
    return with_weights(Unfolded(sizes, spec, ends_by_mel=by == "mel"), checkpoint)
