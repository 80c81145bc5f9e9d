"""The networks that raise a WaveNet's mel to the rate of its samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from melmill.stages.vocode.layers.basic import Conv1d, Conv2d, ConvTranspose2d, Ends

Activation = Callable[[], nn.Module]


class Upsampler(nn.Module):
    """Raise a mel to the rate of the samples, and take its context off.

    The mel has the shape ``(batch, n_mels, n_frames)``.

    Attributes
    ----------
    context : int
        Frames at each end that get no samples.
    """

    context = 0


class Smoothed(Upsampler):
    """Repeat frames and smooth the steps, once for every scale.

    Parameters
    ----------
    scales : sequence of int
        Factors whose product is the hop. A kernel spans ``2 * scale + 1`` places.
    rows : int
        Mel bands that a kernel spans.
    activation : callable or None
        Makes the layer that follows each kernel; None: there is none.
    context : int
        Frames at each end that only the smoothing sees.
    """

    def __init__(self, scales: Sequence[int], rows: int, activation: Activation | None, context: int = 0) -> None:
        super().__init__()
        self.context, self.hop_length = context, math.prod(scales)
        self.up_layers = nn.ModuleList()
        for scale in scales:
            smooth = Conv2d(1, 1, (rows, 2 * scale + 1), padding=((rows - 1) // 2, scale), bias=False)
            self.up_layers.extend([_Repeat(scale), smooth, *([] if activation is None else [activation()])])

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return ``(batch, n_mels, n_samples)``."""
        x, ends = mel[:, None], Ends(lengths, mel.shape[-1])
        for layer in self.up_layers:
            if isinstance(layer, _Repeat):
                ends = ends.stretched(layer.scale)
            x = layer(ends.cut(x[:, 0])[:, None] if isinstance(layer, Conv2d) else x)
        cut = self.context * self.hop_length
        return x[:, 0, :, cut : x.shape[-1] - cut]


class MixedFirst(Upsampler):
    """Mix the bands of neighbouring frames before upsampling.

    The kernel of that layer takes the context off.

    Parameters
    ----------
    n_mels, context : int
    upsample : Smoothed
    """

    def __init__(self, n_mels: int, context: int, upsample: Smoothed) -> None:
        super().__init__()
        self.context = context
        self.conv_in = Conv1d(n_mels, n_mels, 2 * context + 1, bias=False)
        self.upsample = upsample

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return ``(batch, n_mels, n_samples)``."""
        upsampled: Tensor = self.upsample(self.conv_in(mel), None if lengths is None else lengths - 2 * self.context)
        return upsampled


class Transposed(Upsampler):
    """Apply transposed convolutions whose kernels are as long as their strides (2018).

    So frames don't mix.

    Parameters
    ----------
    scales : sequence of int
    rows : int
    activation : callable
    """

    def __init__(self, scales: Sequence[int], rows: int, activation: Activation) -> None:
        super().__init__()
        self.up_layers = nn.ModuleList()
        for scale in scales:
            layer = ConvTranspose2d(1, 1, (rows, scale), stride=(1, scale), padding=((rows - 1) // 2, 0))
            self.up_layers.extend([layer, activation()])

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return ``(batch, n_mels, n_samples)``."""
        x = mel[:, None]
        for layer in self.up_layers:
            x = layer(x)
        return x[:, 0]


class _Repeat(nn.Module):
    """Repeat every frame `scale` times."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.scale, dim=-1)
