"""The network of WaveNet (van den Oord et al. 2016) conditioned on mels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from melmill.stages.dsp.melspec import MelSpec
from melmill.stages.vocoders.family import Noise, Vocoder, VocoderError
from melmill.stages.vocoders.layers import Conv1d
from melmill.stages.vocoders.mels import silence_of
from melmill.stages.vocoders.wavenet_outputs import Output
from melmill.stages.vocoders.wavenet_steps import Stepper
from melmill.stages.vocoders.wavenet_upsample import Upsampler

# Of the recipes' pre-emphasis.
_EMPHASIS = 0.85


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a WaveNet.

    Parameters
    ----------
    residual, gate, skip, out : int
        Channels of the layers' input, of what their convolution gives (half of it gates the other), of what they hand
        to the end, and of the output.
    kernel : int
        Of the dilated convolutions.
    layers, stacks : int
        Layers, and how many times their dilations start at 1 and double.
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
    """What a recipe does to recordings and mels before a WaveNet learns them.

    Parameters
    ----------
    gain : float
        That recordings are multiplied by.
    emphasised : bool
        Recordings are pre-emphasised, ``y[n] - 0.85 y[n - 1]``.
    mean, scale : Tensor of float32, shape (n_mels,), or None
        Of the mels: ``(M - mean) / scale``.
    """

    gain: float = 1.0
    emphasised: bool = False
    mean: Tensor | None = None
    scale: Tensor | None = None


class WaveNet(Vocoder):
    """Draw a waveform sample by sample, each given those before it and the mel.

    The network hears `context` frames before and after those that it makes samples of, so that mels need so many
    more at each end: the recipe repeats the first and the last. What it makes is the signal that the recipe trains
    on; `restored` gives what the recording was.

    Parameters
    ----------
    sizes : Sizes
    output : Output
        What the last layer means.
    upsampler : Upsampler
    spec : MelSpec
        Before the recipe's normalisation.
    recipe : Preprocessing
    """

    family = "wavenet"
    mean: Tensor | None
    scale: Tensor | None

    def __init__(
        self, sizes: Sizes, output: Output, upsampler: Upsampler, spec: MelSpec, recipe: Preprocessing
    ) -> None:
        super().__init__()
        self.sizes, self.output, self.recipe = sizes, output, recipe
        self.spec, self.silence = spec, silence_of(spec)
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
        """Return the number of samples that come of a mel of `n_frames`, its context among them."""
        return max(0, n_frames - 2 * self.context) * self.spec.hop_length

    def noise(self, n_frames: int, generator: torch.Generator) -> Noise:
        """Draw what the output distribution needs, samples along the first axis."""
        return self.output.noise(self.n_samples(n_frames), generator)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms of a batch, in [-1, 1]; see `Vocoder`.

        Raises
        ------
        VocoderError
            The draws are not what the output distribution needs, or the mel is no longer than its context.
        """
        condition = self.condition(mel, lengths)
        self._check(noise, condition.shape[-1])
        stepper = Stepper(self.first_conv, self.conv_layers, self._last(), condition)
        x = self.output.first(len(mel), mel.device)
        samples = []
        for t in range(condition.shape[-1]):
            sample = self.output.sample(stepper(x, t), tuple(draws[:, t] for draws in noise))
            samples.append(sample)
            x = self.output.read(sample)
        return self.output.heard(torch.stack(samples, dim=1))

    def teacher_forced(self, samples: Tensor, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the output parameters ``(batch, out, n_samples)`` of every step at once, where its past is known.

        Parameters
        ----------
        samples : Tensor, shape (batch, n_samples)
            What each step hears, the sample before its own: float32 in [-1, 1], or classes as int64.
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
        """Return what the recording was of what the network makes ``(..., n_samples)``: emphasis and gain undone."""
        if self.recipe.emphasised:
            from scipy.signal import lfilter  # here, as it is slow to import

            y = torch.from_numpy(lfilter([1.0], [1.0, -_EMPHASIS], y.double().numpy(force=True))).to(y)
        return y / self.recipe.gain

    def _last(self) -> Iterator[Conv1d]:
        return (layer for layer in self.last_conv_layers if isinstance(layer, Conv1d))

    def _check(self, noise: Sequence[Tensor], n_samples: int) -> None:
        needed = [(n_samples, *draws.shape[1:]) for draws in self.output.noise(1, torch.Generator())]
        found = [tuple(draws.shape[1:]) for draws in noise]
        if found != needed:
            raise VocoderError(f"wavenet: the output distribution needs draws of shapes {needed}, got {found}")


class _Layer(nn.Module):
    """A gated, dilated, causal convolution with a residual and a skip output."""

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
