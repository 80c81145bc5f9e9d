"""WaveGrad (Chen et al. 2021) in the layout of the lmnt checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.layers.basic import Conv1d, Ends
from melmill.stages.vocode.layers.diffusion import Diffusion, recipe_spec
from melmill.stages.vocode.layers.schedule import signal_levels
from melmill.stages.vocode.network import Checkpoint, with_weights
from melmill.stages.vocode.settings import whole, wholes

# Factors of the published model by hop. Neither the weights nor the parameters hold them.
_FACTORS = {300: (5, 5, 3, 2, 2)}
_TRAINING = np.linspace(1e-6, 0.01, 1000).tolist()
_SLOPE = 0.2


class WaveGrad(Diffusion):
    """Find the noise by a U-net: down from the waveform, up from the mel.

    Its time is ``sqrt(alphabar)``.

    Parameters
    ----------
    down : sequence of int
        Channels of the waveform at every rate, beginning with that of the samples.
    up : sequence of int
        Channels of the mel at every rate, beginning with that of the frames. There is one more than
        in `down`.
    factors : sequence of int
        Factors from each rate to the next, beginning with that of the frames. Their product is the
        hop.
    spec : MelSpec
    """

    family: ClassVar[str] = "wavegrad"
    sample_bytes: ClassVar[int] = 8000

    def __init__(self, down: Sequence[int], up: Sequence[int], factors: Sequence[int], spec: MelSpec) -> None:
        super().__init__()
        self.spec, self.factors = spec, tuple(factors)
        self.downsample = nn.ModuleList([Conv1d(1, down[0], 5, padding=2)])
        self.downsample.extend(_Down(*sizes) for sizes in zip(down[:-1], down[1:], self.factors[:0:-1], strict=True))
        self.film = nn.ModuleList(_Film(*sizes) for sizes in zip(down, up[:0:-1], strict=True))
        self.upsample = nn.ModuleList(
            _Up(low, high, factor, (1, 2, 1, 2) if i < 2 else (1, 2, 4, 8))
            for i, (low, high, factor) in enumerate(zip(up[:-1], up[1:], factors, strict=True))
        )
        self.first_conv = Conv1d(spec.n_mels, up[0], 3, padding=1)
        self.last_conv = Conv1d(up[-1], 1, 3, padding=1)

    def times(self, betas: Sequence[float]) -> Sequence[float]:
        """Return ``sqrt(alphabar)`` of every step."""
        levels: list[float] = signal_levels(betas).tolist()
        return levels

    def condition(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the mel's first hidden layer ``(batch, channels, n_frames)``."""
        ends = Ends(lengths, mel.shape[-1])
        return ends.cut(self.first_conv(ends.cut(mel)))

    def denoise(self, y: Tensor, condition: Tensor, time: float, lengths: Tensor | None = None) -> Tensor:
        """Return the noise ``(batch, n_samples)`` in `y` at signal level `time`."""
        frames = Ends(lengths, condition.shape[-1])
        rates = [frames.stretched(rate) for rate in np.cumprod(self.factors).tolist()]
        modulations = []
        x = rates[-1].cut(y[:, None])
        for film, layer, ends in zip(self.film, self.downsample, reversed(rates), strict=True):
            x = ends.cut(layer(x) if isinstance(layer, Conv1d) else layer(x, ends))
            modulations.append(film(x, time, ends))
        x = condition
        for layer, modulation, ends in zip(self.upsample, reversed(modulations), rates, strict=True):
            x = layer(x, *modulation, ends)
        noise: Tensor = self.last_conv(x)
        return noise[:, 0]


class _Down(nn.Module):
    """Take every `factor`-th sample."""

    def __init__(self, low: int, high: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.residual_dense = Conv1d(low, high, 1)
        self.conv = nn.ModuleList(Conv1d(high if i else low, high, 3, dilation=2**i, padding=2**i) for i in range(3))

    def forward(self, x: Tensor, ends: Ends) -> Tensor:
        x = x[..., :: self.factor]
        residual: Tensor = self.residual_dense(x)
        for layer in self.conv:
            x = layer(ends.cut(leaky_relu(x, _SLOPE)))
        return x + residual


class _Film(nn.Module):
    """Make a shift and a scale from the waveform at one rate and the signal level.

    This is section 4 of Chen et al. 2021.
    """

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.input_conv = Conv1d(low, low, 3, padding=1)
        self.output_conv = Conv1d(low, 2 * high, 3, padding=1)

    def forward(self, x: Tensor, level: float, ends: Ends) -> tuple[Tensor, Tensor]:
        x = leaky_relu(self.input_conv(x), _SLOPE)
        shift, scale = self.output_conv(ends.cut(x + _encoding(level, x))).chunk(2, dim=1)
        return shift, scale


def _encoding(level: float, like: Tensor) -> Tensor:
    """Return sinusoids of a signal level, with frequencies of 1 to 1e-4 radians.

    They have the shape ``(channels, 1)``.
    """
    half = like.shape[1] // 2
    place = torch.arange(half, dtype=like.dtype, device=like.device) / half
    turn = torch.tensor(level, dtype=like.dtype, device=like.device) * torch.exp(-math.log(1e4) * place)
    return torch.cat([turn.sin(), turn.cos()])[:, None]


class _Up(nn.Module):
    """Repeat samples; the waveform modulates the input of all convolutions except the first."""

    def __init__(self, low: int, high: int, factor: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.factor = factor
        layers = [Conv1d(high if i else low, high, 3, dilation=d, padding=d) for i, d in enumerate(dilations)]
        self.block1 = Conv1d(low, high, 1)
        self.block2 = nn.ModuleList(layers[:2])
        self.block3 = nn.ModuleList(layers[2:])

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor, ends: Ends) -> Tensor:
        def modulated(x: Tensor) -> Tensor:
            return ends.cut(leaky_relu(shift + scale * x, _SLOPE))

        x = x.repeat_interleave(self.factor, dim=-1)
        x = self.block1(x) + self.block2[1](modulated(self.block2[0](leaky_relu(x, _SLOPE))))
        return ends.cut(x + self.block3[1](modulated(self.block3[0](modulated(x)))))


def build(checkpoint: Checkpoint) -> WaveGrad:
    """Make the model of a checkpoint."""
    n_rates = checkpoint.count("film.{}.input_conv.weight")
    down = [checkpoint.shape(f"film.{i}.input_conv.weight")[0] for i in range(n_rates)]
    up = [checkpoint.shape("first_conv.weight")[0]]
    up += [checkpoint.shape(f"upsample.{i}.block1.weight")[0] for i in range(n_rates)]
    factors = _factors(checkpoint, n_rates)
    n_mels = whole(checkpoint, checkpoint.config, "n_mels", checkpoint.shape("first_conv.weight")[1])
    model = WaveGrad(down, up, factors, recipe_spec(checkpoint, "wavegrad", n_mels, math.prod(factors)))
    said = [checkpoint.config.get(name) for name in ("inference_noise_schedule", "noise_schedule")]
    model.betas = next(betas for betas in (checkpoint.schedule, *said, _TRAINING) if betas)
    return with_weights(model, checkpoint)


def _factors(checkpoint: Checkpoint, n_rates: int) -> tuple[int, ...]:
    hop = whole(checkpoint, checkpoint.config, "hop_samples", 300)
    if checkpoint.config.get("factors", _FACTORS.get(hop)) is None:
        raise VocoderError(
            f"{checkpoint.name}: hop_samples={hop}, but the weights don't say its factors (the published 300 "
            "is 5 * 5 * 3 * 2 * 2): add `factors`, from the mel on, to the config"
        )
    factors = wholes(checkpoint, checkpoint.config, "factors", _FACTORS.get(hop, ()))
    if math.prod(factors) != hop or len(factors) != n_rates:
        raise VocoderError(
            f"{checkpoint.name}: factors {list(factors)} have the product {math.prod(factors)}, expected "
            f"hop_samples={hop} as {n_rates} factors, one for each 'film' of the weights"
        )
    return factors
