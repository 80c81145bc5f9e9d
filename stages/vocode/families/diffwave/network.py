"""DiffWave (Kong et al. 2021) in the layout of the lmnt checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu, silu

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.layers.basic import Conv1d, ConvTranspose2d, Ends, Linear
from melmill.stages.vocode.layers.diffusion import Diffusion, recipe_spec
from melmill.stages.vocode.layers.schedule import checked_betas, training_times
from melmill.stages.vocode.network import Checkpoint, with_weights
from melmill.stages.vocode.settings import layer_count, whole

# Parameters of the published model, where a checkpoint has none.
_TRAINING = np.linspace(1e-4, 0.05, 50).tolist()
_CYCLE = 10


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Hold the sizes of a DiffWave.

    Parameters
    ----------
    channels : int
        Channels of the residual layers.
    n_features, embedding : int
        Number of sinusoids that encode a step, and width of the dense layers that follow.
    n_layers, cycle : int
        Number of residual layers, and how many of them double the dilation before it starts again.
    kernels : tuple of (int, int)
        Kernels of the upsampler's layers, over mel bands and frames. Strides over frames are half
        as long.
    """

    channels: int
    n_features: int
    embedding: int
    n_layers: int
    cycle: int
    kernels: tuple[tuple[int, int], ...]

    @property
    def hop_length(self) -> int:
        """Samples of a frame."""
        return math.prod(width // 2 for _, width in self.kernels)


class DiffWave(Diffusion):
    """Find the noise by dilated, gated convolutions. The time is a place in the training schedule.

    Parameters
    ----------
    sizes : Sizes
    training : sequence of float
        Noise variances of the training schedule, in order of diffusion.
    spec : MelSpec
    """

    family: ClassVar[str] = "diffwave"
    sample_bytes: ClassVar[int] = 6000

    def __init__(self, sizes: Sizes, training: Sequence[float], spec: MelSpec) -> None:
        super().__init__()
        self.spec, self.training_betas = spec, checked_betas(training)
        self.input_projection = Conv1d(1, sizes.channels, 1)
        self.diffusion_embedding = _Embedding(sizes.n_features, sizes.embedding, len(self.training_betas))
        self.spectrogram_upsampler = _Upsampler(sizes.kernels)
        self.residual_layers = nn.ModuleList(
            _Layer(spec.n_mels, sizes.channels, sizes.embedding, 2 ** (i % sizes.cycle)) for i in range(sizes.n_layers)
        )
        self.skip_projection = Conv1d(sizes.channels, sizes.channels, 1)
        self.output_projection = Conv1d(sizes.channels, 1, 1)

    def times(self, betas: Sequence[float]) -> Sequence[float]:
        """Return the places of the steps in the training schedule."""
        return training_times(betas, self.training_betas)

    def condition(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the mel at the rate of the samples, ``(batch, n_mels, n_samples)``."""
        upsampled: Tensor = self.spectrogram_upsampler(mel, Ends(lengths, mel.shape[-1]))
        return upsampled

    def denoise(self, y: Tensor, condition: Tensor, time: float, lengths: Tensor | None = None) -> Tensor:
        """Return the noise in `y` at place `time` of the training schedule.

        It has the shape ``(batch, n_samples)``.
        """
        ends = Ends(None if lengths is None else lengths * self.spec.hop_length, y.shape[-1])
        step = self.diffusion_embedding(torch.tensor([time], dtype=y.dtype, device=y.device))
        x = relu(self.input_projection(y[:, None]))
        skips = torch.zeros_like(x)
        for layer in self.residual_layers:
            x, skip = layer(x, step, condition, ends)
            skips = skips + skip
        noise: Tensor = self.output_projection(relu(self.skip_projection(skips / math.sqrt(len(self.residual_layers)))))
        return noise[:, 0]


class _Embedding(nn.Module):
    """Embed a place in the training schedule by sinusoids and two dense layers.

    The embedding is linear between whole steps.
    """

    table: Tensor

    def __init__(self, n_features: int, embedding: int, n_steps: int) -> None:
        super().__init__()
        half = n_features // 2
        turns = torch.arange(n_steps)[:, None] * 10.0 ** (torch.arange(half)[None] * 4.0 / (half - 1))
        self.register_buffer("table", torch.cat([turns.sin(), turns.cos()], dim=1), persistent=False)
        self.projection1 = Linear(n_features, embedding)
        self.projection2 = Linear(embedding, embedding)

    def forward(self, place: Tensor) -> Tensor:
        below, above = place.floor().long(), place.ceil().long()
        x = self.table[below] + (self.table[above] - self.table[below]) * (place - below)[:, None]
        return silu(self.projection2(silu(self.projection1(x))))


class _Upsampler(nn.Module):
    """Raise a mel to the rate of the samples by transposed convolutions over bands and frames."""

    def __init__(self, kernels: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            ConvTranspose2d(1, 1, (rows, width), stride=(1, width // 2), padding=((rows - 1) // 2, width // 4))
            for rows, width in kernels
        )

    def forward(self, mel: Tensor, ends: Ends) -> Tensor:
        x = mel
        for layer in (self.conv1, self.conv2):
            x = leaky_relu(layer(ends.cut(x)[:, None])[:, 0], 0.4)
            ends = ends.stretched(layer.stride[1])
        return x


class _Layer(nn.Module):
    """Add the output of a gated, dilated convolution (Kong et al. 2021, figure 2)."""

    def __init__(self, n_mels: int, channels: int, embedding: int, dilation: int) -> None:
        super().__init__()
        self.dilated_conv = Conv1d(channels, 2 * channels, 3, padding=dilation, dilation=dilation)
        self.diffusion_projection = Linear(embedding, channels)
        self.conditioner_projection = Conv1d(n_mels, 2 * channels, 1)
        self.output_projection = Conv1d(channels, 2 * channels, 1)

    def forward(self, x: Tensor, step: Tensor, condition: Tensor, ends: Ends) -> tuple[Tensor, Tensor]:
        y = ends.cut(x + self.diffusion_projection(step)[..., None])
        gate, content = (self.dilated_conv(y) + self.conditioner_projection(condition)).chunk(2, dim=1)
        residual, skip = self.output_projection(gate.sigmoid() * content.tanh()).chunk(2, dim=1)
        return (x + residual) / math.sqrt(2.0), skip


def build(checkpoint: Checkpoint) -> DiffWave:
    """Make the model of a checkpoint."""
    if not any(key.startswith("spectrogram_upsampler.") for key in checkpoint.state):
        raise VocoderError(
            f"{checkpoint.name} is an unconditional DiffWave (no tensor 'spectrogram_upsampler.*'): it reads no mel"
        )
    config, sizes = checkpoint.config, _sizes(checkpoint)
    n_mels = whole(checkpoint, config, "n_mels", checkpoint.shape("residual_layers.0.conditioner_projection.weight")[1])
    spec = recipe_spec(checkpoint, "diffwave", n_mels, sizes.hop_length)
    model = DiffWave(sizes, config.get("noise_schedule", _TRAINING), spec)
    model.betas = config.get("inference_noise_schedule") or model.training_betas
    return with_weights(model, checkpoint)


def _sizes(checkpoint: Checkpoint) -> Sizes:
    config = checkpoint.config
    embedding, n_features = checkpoint.shape("diffusion_embedding.projection1.weight")
    sizes = Sizes(
        channels=whole(checkpoint, config, "residual_channels", checkpoint.shape("input_projection.weight")[0]),
        n_features=n_features,
        embedding=embedding,
        n_layers=layer_count(
            checkpoint, config, "residual_layers", checkpoint.count("residual_layers.{}.dilated_conv.weight")
        ),
        cycle=whole(checkpoint, config, "dilation_cycle_length", _CYCLE),
        kernels=tuple(_kernel(checkpoint, f"spectrogram_upsampler.{layer}.weight") for layer in ("conv1", "conv2")),
    )
    if config.get("hop_samples", sizes.hop_length) != sizes.hop_length:
        raise VocoderError(
            f"{checkpoint.name}: the kernels of 'spectrogram_upsampler', {sizes.kernels}, make {sizes.hop_length} "
            f"samples of a frame, but the config says hop_samples={config['hop_samples']!r}"
        )
    return sizes


def _kernel(checkpoint: Checkpoint, key: str) -> tuple[int, int]:
    *_, rows, width = checkpoint.shape(key)
    if width % 4:
        raise VocoderError(
            f"{checkpoint.name}: {key!r} spans {width} frames, expected a multiple of 4: twice an even stride"
        )
    return rows, width
