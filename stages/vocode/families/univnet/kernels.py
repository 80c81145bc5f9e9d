"""Location-variable convolutions: a small network predicts kernels for every frame of the mel.

References
----------
Zeng et al., "LVCNet: Efficient Condition-Dependent Modeling Network for Waveform Generation",
    ICASSP 2021, section 2.
Jang et al., "UnivNet", Interspeech 2021, section 2.1 and figure 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad

from melmill.stages.vocode.layers.basic import Conv1d, ConvTranspose1d, Ends, same_padding


@dataclass(frozen=True, kw_only=True)
class LvcSizes:
    """Hold the sizes of all levels.

    Parameters
    ----------
    n_mels, width : int
        Bands of the mel; channels of the signal at every level.
    dilations : tuple of int
        Dilations of the convolutions of a level. A location-variable convolution follows each.
    kernel : int
        Kernel of both.
    hidden, n_residuals, hidden_kernel, input_kernel : int
        Sizes of the network that predicts kernels: channels, residual blocks, their kernel, and
        that of the first layer.
    slope : float
        Slope of all leaky rectifiers.
    """

    n_mels: int
    width: int
    dilations: tuple[int, ...]
    kernel: int
    hidden: int
    n_residuals: int
    hidden_kernel: int
    input_kernel: int
    slope: float


def location_variable(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """Convolve the samples of every frame with the kernel of that frame.

    Parameters
    ----------
    x : Tensor, shape (batch, channels_in, n_frames * hop_length)
        Zeros come before and after it.
    kernels : Tensor, shape (batch, channels_in, channels_out, kernel_size, n_frames)
    bias : Tensor, shape (batch, channels_out, n_frames)

    Returns
    -------
    Tensor, shape (batch, channels_out, n_frames * hop_length)

    >>> x, kernels = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.tensor([1.0, 10.0]).expand(1, 1, 1, 1, 2)
    >>> location_variable(x, kernels, torch.zeros(1, 1, 2)).tolist()
    [[[1.0, 2.0, 30.0, 40.0]]]
    """
    kernel_size, n_frames = kernels.shape[3:]
    hop_length, margin = x.shape[2] // n_frames, same_padding(kernel_size)
    stretches = pad(x, (margin, margin)).unfold(2, hop_length + 2 * margin, hop_length).unfold(3, kernel_size, 1)
    y = torch.einsum("bilsk,biokl->bols", stretches, kernels)
    return (y + bias[..., None]).flatten(2)


class _KernelPredictor(nn.Module):
    """Predict the kernels and biases of a level's location-variable convolutions from the mel."""

    def __init__(self, sizes: LvcSizes) -> None:
        super().__init__()
        self.sizes = sizes
        hidden, kernel, n_layers = sizes.hidden, sizes.hidden_kernel, len(sizes.dilations)
        outs = 2 * sizes.width * n_layers
        # Numbers are places in the official sequences.
        self.input_conv = nn.ModuleDict({"0": _conv(sizes.n_mels, hidden, sizes.input_kernel)})
        self.residual_convs = nn.ModuleList(
            nn.ModuleDict({"1": _conv(hidden, hidden, kernel), "3": _conv(hidden, hidden, kernel)})
            for _ in range(sizes.n_residuals)
        )
        self.kernel_conv = _conv(hidden, sizes.width * outs * sizes.kernel, kernel)
        self.bias_conv = _conv(hidden, outs, kernel)

    def forward(self, mel: Tensor, ends: Ends) -> tuple[Tensor, Tensor]:
        """Return the kernels and the biases of all layers.

        Kernels have the shape ``(batch, layer, in, out, kernel, n_frames)``, and biases
        ``(batch, layer, out, n_frames)``.
        """
        sizes = self.sizes
        c = leaky_relu(self.input_conv["0"](ends.cut(mel)), sizes.slope)
        for convs in self.residual_convs:
            y = c
            for conv in convs.children():
                y = leaky_relu(conv(ends.cut(y)), sizes.slope)
            c = c + y
        c = ends.cut(c)
        layers, width = len(sizes.dilations), sizes.width
        kernels = self.kernel_conv(c).unflatten(1, (layers, width, 2 * width, sizes.kernel))
        return kernels, self.bias_conv(c).unflatten(1, (layers, 2 * width))


class LvcBlock(nn.Module):
    """Upsample, then add gated pairs of a dilated and a location-variable convolution."""

    def __init__(self, sizes: LvcSizes, rate: int) -> None:
        super().__init__()
        self.slope = sizes.slope
        self.kernel_predictor = _KernelPredictor(sizes)
        odd, width = rate % 2, sizes.width
        self.convt_pre = nn.ModuleDict({"1": ConvTranspose1d(width, width, 2 * rate, rate, rate // 2 + odd, odd)})
        self.conv_blocks = nn.ModuleList(
            nn.ModuleDict({"1": _conv(width, width, sizes.kernel, dilation)}) for dilation in sizes.dilations
        )

    def forward(self, x: Tensor, ends: Ends, mel: Tensor, mel_ends: Ends) -> tuple[Tensor, Ends]:
        """Return the upsampled signal and its ends."""
        up = self.convt_pre["1"]
        x = up(ends.cut(leaky_relu(x, self.slope)))
        ends = ends.after(up, x)
        kernels, biases = self.kernel_predictor(mel, mel_ends)
        for conv, kernel, bias in zip(self._convs(), kernels.unbind(1), biases.unbind(1), strict=True):
            y = leaky_relu(conv(ends.cut(leaky_relu(x, self.slope))), self.slope)
            gate, value = location_variable(ends.cut(y), kernel, bias).chunk(2, dim=1)
            x = x + torch.sigmoid(gate) * torch.tanh(value)
        return x, ends

    def _convs(self) -> Sequence[nn.Module]:
        return [block.get_submodule("1") for block in self.conv_blocks]


def _conv(before: int, after: int, kernel: int, dilation: int = 1) -> Conv1d:
    return Conv1d(before, after, kernel, dilation=dilation, padding=same_padding(kernel, dilation))
