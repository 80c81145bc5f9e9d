"""UnivNet, c16 and c32: location-variable convolutions upsample noise.

The mel makes their kernels.

References
----------
Jang, Lim, Yoon, Kim, Kim, "UnivNet: A Neural Vocoder with Multi-Resolution Spectrogram
    Discriminators for High-Fidelity Waveform Generation", Interspeech 2021, section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.univnet import FAMILY
from melmill.stages.vocode.families.univnet.kernels import LvcBlock, LvcSizes
from melmill.stages.vocode.layers.basic import Conv1d, Ends, check_length, checked, inside, reflected
from melmill.stages.vocode.network import Checkpoint, Noise, Vocoder, with_weights
from melmill.stages.vocode.settings import conv_shape, half_kernel, number, section, tacotron_mel, whole, wholes

# The official inference appends frames of this value and drops their samples, so that the end has
# no artefacts.
_EXTRA_FRAMES = 10
_EXTRA_VALUE = -11.5129
# Official values, where neither the configuration nor the weights say them.
_SLOPE = 0.2
_END_KERNEL = 7
_MARGIN = _END_KERNEL // 2


class UnivNet(Vocoder):
    """Upsample noise at the mel's frame rate level by level, by kernels that the mel makes."""

    family: ClassVar[str] = "univnet"
    sample_bytes: ClassVar[int] = 4000

    def __init__(self, sizes: LvcSizes, rates: Sequence[int], noise_dim: int, spec: MelSpec) -> None:
        super().__init__()
        self.spec, self.slope = spec, sizes.slope
        self.noise_dim, self.hop_length = noise_dim, math.prod(rates)
        self.conv_pre = Conv1d(noise_dim, sizes.width, _END_KERNEL)
        self.res_stack = nn.ModuleList(LvcBlock(sizes, rate) for rate in rates)
        self.conv_post = nn.ModuleDict({"1": Conv1d(sizes.width, 1, _END_KERNEL)})

    def n_samples(self, n_frames: int) -> int:
        """Return how many samples a mel of `n_frames` gives."""
        return n_frames * self.hop_length

    def noise(self, n_frames: int, generator: torch.Generator) -> Noise:
        """Draw normal noise for the mel and the silence after it.

        It has the shape ``(noise_dim, n_frames + 10)``.
        """
        return (torch.randn(self.noise_dim, n_frames + _EXTRA_FRAMES, generator=generator),)

    def takes(self, n_frames: int, noise: Noise) -> bool:
        """Tell whether noise is one z of at least the mel's frames."""
        return [draw.shape[:-1] for draw in noise] == [(self.noise_dim,)] and noise[0].shape[-1] >= n_frames

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms ``(batch, n_samples)`` of mels ``(batch, n_mels, n_frames)``.

        `noise` is one z ``(batch, noise_dim, n)``. Where z has more frames than the mel, as many
        frames of silence extend the mel, and their samples are dropped. Official inference has ten,
        the official forward pass none.

        Raises
        ------
        VocoderError
            The noise is not one z of at least the mel's frames.
        Unusable
            A mel and its extension are too short to reflect.
        """
        n_frames = mel.shape[2]
        n_extended = max([n_frames, *(z.shape[-1] for z in noise)])
        (z,) = checked(self.family, noise, [(mel.shape[0], self.noise_dim, n_extended)])
        mel, ends = _extended(mel, lengths, n_extended - n_frames)
        if n_extended - n_frames < _MARGIN:
            check_length(self.family, n_extended, ends.lengths, _MARGIN + 1)
        x, x_ends = self.conv_pre(reflected(z, _MARGIN, ends)), ends
        for block in self.res_stack:
            x, x_ends = block(x, x_ends, mel, ends)
        y = self.conv_post["1"](reflected(leaky_relu(x, self.slope), _MARGIN, x_ends))
        return torch.tanh(y[:, 0, : self.n_samples(n_frames)])


def _extended(mel: Tensor, lengths: Tensor | None, n_extra: int) -> tuple[Tensor, Ends]:
    """Return mels with silence after the end of each, and their new ends."""
    n_frames = mel.shape[2]
    mask = inside(lengths, n_frames)
    if mask is not None:
        mel = mel.masked_fill(~mask, _EXTRA_VALUE)
    longer = None if lengths is None else lengths + n_extra
    return pad(mel, (0, n_extra), value=_EXTRA_VALUE), Ends(longer, n_frames + n_extra)


def build(checkpoint: Checkpoint) -> UnivNet:
    """Make the model of a checkpoint."""
    if not FAMILY.recognises(checkpoint):
        raise VocoderError(
            f"{checkpoint.name}: is no UnivNet: expected tensors such as 'res_stack.0.kernel_predictor.kernel_conv."
            f"weight', got {', '.join(map(repr, list(checkpoint.state)[:3]))}"
        )
    gen = section(checkpoint, "gen")
    rates = wholes(checkpoint, gen, "strides", _rates(checkpoint))
    sizes = _sizes(checkpoint)
    noise_dim = whole(checkpoint, gen, "noise_dim", conv_shape(checkpoint, "conv_pre.weight")[1])
    spec = tacotron_mel(
        checkpoint,
        section(checkpoint, "audio"),
        preset("univnet"),
        n_mels=sizes.n_mels,
        hop_length=math.prod(rates),
    )
    return with_weights(UnivNet(sizes, rates, noise_dim, spec), checkpoint)


def _rates(checkpoint: Checkpoint) -> list[int]:
    pattern = "res_stack.{}.convt_pre.1.weight"
    return [half_kernel(checkpoint, pattern.format(level)) for level in range(checkpoint.count(pattern))]


def _sizes(checkpoint: Checkpoint) -> LvcSizes:
    """Return the sizes that the configuration says; where it is silent, those of the weights."""
    gen, audio, first = section(checkpoint, "gen"), section(checkpoint, "audio"), "res_stack.0."
    hidden, n_mels, input_kernel = conv_shape(checkpoint, f"{first}kernel_predictor.input_conv.0.weight")
    hidden_kernel = conv_shape(checkpoint, f"{first}kernel_predictor.kernel_conv.weight")[2]
    n_layers = checkpoint.count(first + "conv_blocks.{}.1.weight")
    return LvcSizes(
        n_mels=whole(checkpoint, audio, "n_mel_channels", n_mels),
        width=whole(checkpoint, gen, "channel_size", conv_shape(checkpoint, "conv_pre.weight")[0]),
        dilations=wholes(checkpoint, gen, "dilations", [3**layer for layer in range(n_layers)]),
        kernel=conv_shape(checkpoint, f"{first}conv_blocks.0.1.weight")[2],
        hidden=hidden,
        n_residuals=checkpoint.count(first + "kernel_predictor.residual_convs.{}.1.weight"),
        hidden_kernel=whole(checkpoint, gen, "kpnet_conv_size", hidden_kernel),
        input_kernel=input_kernel,
        slope=number(checkpoint, gen, "lReLU_slope", _SLOPE),
    )
