"""The network of WaveNet (van den Oord et al. 2016), conditioned on mels.

It computes all steps at once, or sample by sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.wavenet.outputs import Output
from melmill.stages.vocode.families.wavenet.upsampling import Upsampler
from melmill.stages.vocode.layers.basic import Conv1d
from melmill.stages.vocode.network import Noise, Vocoder

# The recipes' pre-emphasis.
_EMPHASIS = 0.85

# Samples whose conditioning is projected at once, for all layers: 24 layers of 256 gates hold 12
# MiB.
_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a WaveNet.

    Parameters
    ----------
    residual, gate, skip, out : int
        Channels of the layers' input, of their convolution (half of it gates the other half), of
        their skip output, and of the network's output.
    kernel : int
        Kernel of the dilated convolutions.
    layers, stacks : int
        Number of layers, and how many times their dilations start at 1 and double.
    condition_bias : bool
        The projections of the mel have a bias.
    """

    residual: int
    gate: int
    skip: int
    out: int
    kernel: int
    layers: int
    stacks: int
    condition_bias: bool


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Say what a recipe does to recordings and mels before a WaveNet learns them.

    Parameters
    ----------
    gain : float
        Factor of the recordings.
    emphasised : bool
        The recordings are pre-emphasised: ``y[n] - 0.85 y[n - 1]``.
    mean, scale : Tensor of float32, shape (n_mels,), or None
        The mels are normalised: ``(M - mean) / scale``.
    """

    gain: float = 1.0
    emphasised: bool = False
    mean: Tensor | None = None
    scale: Tensor | None = None


class WaveNet(Vocoder):
    """Draw a waveform sample by sample, each given those before it and the mel.

    The network sees `context` frames before and after those that it makes samples of. The recipe
    repeats the first and the last frame that often. The network makes the signal that the recipe
    trains on; `restored` undoes the recipe.

    Parameters
    ----------
    sizes : Sizes
    output : Output
        Meaning of the last layer.
    upsampler : Upsampler
    spec : MelSpec
        The mel before the recipe's normalisation.
    recipe : Preprocessing
    """

    family: ClassVar[str] = "wavenet"
    mean: Tensor | None
    scale: Tensor | None

    def __init__(
        self, sizes: Sizes, output: Output, upsampler: Upsampler, spec: MelSpec, recipe: Preprocessing
    ) -> None:
        super().__init__()
        self.sizes, self.output, self.recipe = sizes, output, recipe
        self.spec = spec
        self.register_buffer("mean", recipe.mean, persistent=False)
        self.register_buffer("scale", recipe.scale, persistent=False)
        self.upsample_net = upsampler
        self.context = upsampler.context
        self.first_conv = Conv1d(output.n_inputs, sizes.residual, 1)
        per_stack = sizes.layers // sizes.stacks
        self.conv_layers = nn.ModuleList(_Layer(spec.n_mels, sizes, 2 ** (i % per_stack)) for i in range(sizes.layers))
        self.last_conv_layers = nn.Sequential(
            nn.ReLU(), Conv1d(sizes.skip, sizes.skip, 1), nn.ReLU(), Conv1d(sizes.skip, sizes.out, 1)
        )

    def n_samples(self, n_frames: int) -> int:
        """Return how many samples a mel of `n_frames` gives, its context included in the frames."""
        return max(0, n_frames - 2 * self.context) * self.spec.hop_length

    def noise(self, n_frames: int, generator: torch.Generator) -> Noise:
        """Draw what the output distribution needs, samples along the first axis."""
        return self.output.noise(self.n_samples(n_frames), generator)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms of a batch, in [-1, 1]; see `Vocoder`.

        Raises
        ------
        VocoderError
            The draws are not what the output distribution needs, or the mel is no longer than its
            context.
        """
        condition = self.condition(mel, lengths)
        self._check(noise, condition.shape[-1])
        layers = [layer for layer in self.conv_layers if isinstance(layer, _Layer)]
        last = [layer for layer in self.last_conv_layers if isinstance(layer, Conv1d)]
        stepper = Stepper(self.first_conv, layers, last, condition)
        x = self.output.first(len(mel), mel.device)
        samples = []
        for t in range(condition.shape[-1]):
            sample = self.output.sample(stepper(x, t), tuple(draws[:, t] for draws in noise))
            samples.append(sample)
            x = self.output.read(sample)
        return self.output.heard(torch.stack(samples, dim=1))

    def teacher_forced(self, samples: Tensor, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the output parameters of all steps at once, where the past is known.

        They have the shape ``(batch, out, n_samples)``.

        Parameters
        ----------
        samples : Tensor, shape (batch, n_samples)
            The sample before each step's own: float32 in [-1, 1], or classes as int64.
        mel : Tensor of float32, shape (batch, n_mels, n_frames)
        lengths : Tensor of int64, shape (batch,), or None
        """
        condition = self.condition(mel, lengths)
        x = self.first_conv(self.output.read(samples).transpose(1, 2))
        skips = torch.zeros((), device=mel.device)
        for layer in self.conv_layers:
            x, skip = layer(x, condition)
            skips = skips + skip
        parameters: Tensor = self.last_conv_layers(skips * math.sqrt(1.0 / len(self.conv_layers)))
        return parameters

    def condition(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the mel at the rate of the samples, ``(batch, n_mels, n_samples)``."""
        if mel.shape[-1] <= 2 * self.context:
            raise VocoderError(
                f"wavenet: a mel of {mel.shape[-1]} frames is all context: {self.context} at each end make no samples. "
                "Repeat its first and last frame that often"
            )
        if self.mean is not None and self.scale is not None:
            mel = (mel - self.mean[:, None]) / self.scale[:, None]
        upsampled: Tensor = self.upsample_net(mel, lengths)
        return upsampled

    def restored(self, y: Tensor) -> Tensor:
        """Undo pre-emphasis and gain of what the network makes, ``(..., n_samples)``."""
        if self.recipe.emphasised:
            from scipy.signal import lfilter  # here, as it is slow to import

            y = torch.from_numpy(lfilter([1.0], [1.0, -_EMPHASIS], y.double().numpy(force=True))).to(y)
        return y / self.recipe.gain

    def _check(self, noise: Sequence[Tensor], n_samples: int) -> None:
        needed = [(n_samples, *draws.shape[1:]) for draws in self.output.noise(1, torch.Generator())]
        shapes = [tuple(draws.shape[1:]) for draws in noise]
        if shapes != needed:
            raise VocoderError(f"wavenet: the output distribution needs draws of shapes {needed}, got {shapes}")


class _Layer(nn.Module):
    """Apply a gated, dilated, causal convolution; return a residual and a skip output."""

    def __init__(self, n_mels: int, sizes: Sizes, dilation: int) -> None:
        super().__init__()
        self.conv = Conv1d(sizes.residual, sizes.gate, sizes.kernel, dilation=dilation)
        self.conv1x1c = Conv1d(n_mels, sizes.gate, 1, bias=sizes.condition_bias)
        self.conv1x1_out = Conv1d(sizes.gate // 2, sizes.residual, 1)
        self.conv1x1_skip = Conv1d(sizes.gate // 2, sizes.skip, 1)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        past = (self.conv.kernel_size[0] - 1) * self.conv.dilation[0]
        content, gate = (self.conv(pad(x, (past, 0))) + self.conv1x1c(condition)).chunk(2, dim=1)
        y = content.tanh() * gate.sigmoid()
        return (self.conv1x1_out(y) + x) * math.sqrt(0.5), self.conv1x1_skip(y)


class Stepper:
    """Return the output parameters of one sample after the other, each given the sample before it.

    Every layer keeps the inputs that its dilated taps look back at. Before the first sample they
    are zeros, as the padding of the convolutions is.

    Parameters
    ----------
    first : Conv1d
    layers : sequence of _Layer
    last : sequence of Conv1d
        Each follows a ReLU. All kernels are 1 but those of the layers' dilated convolutions.
    condition : Tensor of float32, shape (batch, n_mels, n_samples)
    """

    def __init__(
        self, first: nn.Conv1d, layers: Sequence[_Layer], last: Sequence[nn.Conv1d], condition: Tensor
    ) -> None:
        self._first = _dense(first)
        self._last = [_dense(layer) for layer in last]
        self._layers = [_LayerSteps(layer, condition) for layer in layers]
        self._projection = torch.cat([layer.conv1x1c.weight[:, :, 0] for layer in layers])
        self._biases = torch.cat([_bias(layer.conv) + _bias(layer.conv1x1c) for layer in layers])
        self._condition = condition
        self._block = condition[..., :0]

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Return parameters ``(batch, n_outputs)`` of the network's input at step `t`.

        The input has the shape ``(batch, n_inputs)``.

        Steps come in order, from 0 on.
        """
        if t % _BLOCK == 0:
            self._block = self._projected(t)
        x = torch.addmm(self._first[1], x, self._first[0])
        skips = x.new_zeros(())
        for layer, gates in zip(self._layers, self._block[t % _BLOCK], strict=True):
            x, skip = layer(x, gates, t)
            skips = skips + skip
        y = skips * math.sqrt(1.0 / len(self._layers))
        for weight, bias in self._last:
            y = torch.addmm(bias, torch.relu(y), weight)
        return y

    def _projected(self, start: int) -> Tensor:
        """Return what the mel adds to every layer's gates, biases included.

        It has the shape ``(block, n_layers, batch, gate)``.
        """
        block = self._condition[..., start : start + _BLOCK]
        gates = self._projection @ block + self._biases[:, None]
        batch, _, n_steps = gates.shape
        return gates.reshape(batch, len(self._layers), -1, n_steps).permute(3, 1, 0, 2).contiguous()


class _LayerSteps:
    """Hold one layer's weights as matrices, and the inputs that it still needs in a ring buffer."""

    def __init__(self, layer: _Layer, condition: Tensor) -> None:
        conv = layer.conv
        self._dilation, self._n_back = conv.dilation[0], conv.kernel_size[0] - 1
        size = (self._n_back * self._dilation, len(condition), conv.in_channels)
        self._ring = torch.zeros(size, dtype=condition.dtype, device=condition.device)
        self._taps = conv.weight.permute(2, 1, 0).reshape(-1, conv.out_channels)
        self._heads = torch.cat([layer.conv1x1_out.weight, layer.conv1x1_skip.weight])[:, :, 0].T.contiguous()
        self._head_bias = torch.cat([_bias(layer.conv1x1_out), _bias(layer.conv1x1_skip)])
        self._n_residual = conv.in_channels

    def __call__(self, x: Tensor, gates: Tensor, t: int) -> tuple[Tensor, Tensor]:
        if self._n_back:
            places = [(t - back * self._dilation) % len(self._ring) for back in range(self._n_back, 0, -1)]
            past = torch.cat([*(self._ring[place] for place in places), x], dim=1)
            self._ring[t % len(self._ring)] = x
        else:
            past = x
        content, gate = torch.addmm(gates, past, self._taps).chunk(2, dim=1)
        heads = torch.addmm(self._head_bias, content.tanh() * gate.sigmoid(), self._heads)
        return (heads[:, : self._n_residual] + x) * math.sqrt(0.5), heads[:, self._n_residual :]


def _dense(layer: nn.Conv1d) -> tuple[Tensor, Tensor]:
    """Return a convolution of kernel 1 as matrix ``(in, out)`` and bias."""
    return layer.weight[:, :, 0].T.contiguous(), _bias(layer)


def _bias(layer: nn.Conv1d) -> Tensor:
    return layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias
