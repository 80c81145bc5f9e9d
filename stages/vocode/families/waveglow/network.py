"""WaveGlow: affine couplings and 1x1 convolutions turn noise into sound.

Each inverts what was trained.

References
----------
Prenger, Valle, Catanzaro, "WaveGlow: A Flow-based Generative Network for Speech Synthesis", ICASSP
    2019, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.waveglow import WaveGlowOptions
from melmill.stages.vocode.families.waveglow.sizes import (
    WaveGlowSizes,
    fused,
    read_mel,
    read_sigma,
    read_sizes,
)
from melmill.stages.vocode.layers.basic import Conv1d, ConvTranspose1d, Ends, checked, same_padding
from melmill.stages.vocode.network import Checkpoint, Noise, Vocoder, with_weights

# No trained matrix has an inverse that loses more than half of float64's digits.
_WORST_CONDITION = 1e8


class _WaveNet(nn.Module):
    """Predict a coupling from the mel by dilated gated convolutions (equation 5).

    The convolutions are not causal.
    """

    def __init__(self, n_half: int, sizes: WaveGlowSizes) -> None:
        super().__init__()
        width, kernel, last = sizes.width, sizes.kernel, sizes.n_layers - 1
        self.start = Conv1d(n_half, width, 1)
        self.end = Conv1d(width, 2 * n_half, 1)
        self.cond_layer = Conv1d(sizes.n_mels * sizes.n_group, 2 * width * sizes.n_layers, 1)
        self.in_layers = nn.ModuleList(
            Conv1d(width, 2 * width, kernel, padding=same_padding(kernel, 2**i), dilation=2**i)
            for i in range(sizes.n_layers)
        )
        # The last layer has only a skip output.
        self.res_skip_layers = nn.ModuleList(
            Conv1d(width, 2 * width if i < last else width, 1) for i in range(sizes.n_layers)
        )

    def forward(self, x: Tensor, mel: Tensor, ends: Ends) -> tuple[Tensor, Tensor]:
        """Return shift and logarithm of scale, each of the shape of `x`.

        That is ``(batch, n_half, length)``.
        """
        x = self.start(x)
        total = torch.zeros_like(x)
        conditions = self.cond_layer(mel).chunk(len(self.in_layers), dim=1)
        for dilated, pointwise, condition in zip(self.in_layers, self.res_skip_layers, conditions, strict=True):
            value, gate = (dilated(ends.cut(x)) + condition).chunk(2, dim=1)
            y = pointwise(torch.tanh(value) * torch.sigmoid(gate))
            skip = y[:, -x.shape[1] :]
            total = total + skip
            if y.shape[1] > skip.shape[1]:
                x = x + y[:, : x.shape[1]]
        shift, log_scale = self.end(total).chunk(2, dim=1)
        return shift, log_scale


class _Invertible(nn.Module):
    """Run a 1x1 convolution backwards. Its inverse is made once, when the weights are loaded."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = Conv1d(width, width, 1, bias=False)
        self.inverse: Tensor
        self.register_buffer("inverse", torch.empty(width, width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution turns into `x`."""
        return conv1d(x, self.inverse[:, :, None])


class WaveGlow(Vocoder):
    """Turn noise into sound, with the samples of a group in its channels.

    Some channels join on the way.

    Attributes
    ----------
    sigma : float
        Standard deviation of the noise: 1 as trained, less for a calmer voice (0.6 in the paper).
    """

    family: ClassVar[str] = "waveglow"
    sample_bytes: ClassVar[int] = 3000

    def __init__(self, sizes: WaveGlowSizes, spec: MelSpec, sigma: float) -> None:
        super().__init__()
        self.spec, self.sizes, self.sigma = spec, sizes, sigma
        self.upsample = ConvTranspose1d(sizes.n_mels, sizes.n_mels, sizes.up_kernel, sizes.rate)
        self.WN = nn.ModuleList(_WaveNet(width // 2, sizes) for width in sizes.widths)
        self.convinv = nn.ModuleList(_Invertible(width) for width in sizes.widths)

    def configure(self, options: WaveGlowOptions) -> None:
        """Take over the standard deviation that a pipeline asks for."""
        if options.sigma is not None:
            self.sigma = options.sigma

    def n_samples(self, n_frames: int) -> int:
        """Return how many samples a mel of `n_frames` gives."""
        return self._n_groups(n_frames) * self.sizes.n_group

    def _n_groups(self, n_frames: int) -> int:
        return n_frames * self.sizes.rate // self.sizes.n_group

    def noise(self, n_frames: int, generator: torch.Generator) -> Noise:
        """Draw standard normal noise.

        It is for the last flow, then for each early output, the last one first.
        """
        length = self._n_groups(n_frames)
        return tuple(torch.randn(width, length, generator=generator) for width in self.sizes.draws)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms ``(batch, n_samples)`` of mels ``(batch, n_mels, n_frames)``.

        Raises
        ------
        VocoderError
            `noise` has other shapes than the method `noise` draws.
        """
        batch, _, n_frames = mel.shape
        length = self._n_groups(n_frames)
        z = list(checked(self.family, noise, [(batch, width, length) for width in self.sizes.draws]))
        ends = Ends(None if lengths is None else lengths * self.sizes.rate // self.sizes.n_group, length)
        condition = self._condition(mel)
        x = self.sigma * z.pop(0)
        for flow in reversed(range(len(self.WN))):
            kept, changed = x.chunk(2, dim=1)
            shift, log_scale = self.WN[flow](kept, condition, ends)
            x = self.convinv[flow](torch.cat([kept, (changed - shift) / torch.exp(log_scale)], dim=1))
            if self.sizes.joining[flow]:
                x = torch.cat([self.sigma * z.pop(0), x], dim=1)
        return x.transpose(1, 2).flatten(1)

    def _condition(self, mel: Tensor) -> Tensor:
        """Return the upsampled mel ``(batch, n_mels * n_group, length)``.

        Its channels hold the samples of a group.
        """
        n_group = self.sizes.n_group
        x: Tensor = self.upsample(mel)[:, :, : mel.shape[2] * self.sizes.rate]
        return x.unfold(2, n_group, n_group).transpose(2, 3).flatten(1, 2)


def build(checkpoint: Checkpoint) -> WaveGlow:
    """Make the model of a checkpoint, with today's layers or the separate ones of 2018."""
    checkpoint = fused(checkpoint)
    sizes = read_sizes(checkpoint)
    model = with_weights(WaveGlow(sizes, read_mel(checkpoint, sizes), read_sigma(checkpoint)), checkpoint)
    for flow in range(len(sizes.widths)):
        model.get_buffer(f"convinv.{flow}.inverse").copy_(_inverse(checkpoint, f"convinv.{flow}.conv.weight"))
    return model


def _inverse(checkpoint: Checkpoint, key: str) -> Tensor:
    matrix = checkpoint.state[key][:, :, 0].double()
    if not torch.linalg.cond(matrix) < _WORST_CONDITION:
        raise VocoderError(
            f"{checkpoint.name}: tensor {key!r} can't be inverted: the file is damaged or was never trained"
        )
    inverse: Tensor = torch.linalg.inv(matrix)
    return inverse.float()
