"""A WaveNet one sample at a time: every layer keeps the inputs that its dilated taps look back at."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Samples whose conditioning is projected at once, for all layers: 24 layers of 256 gates hold 12 MiB.
_BLOCK = 512


class Stepper:
    """Return the output parameters of a sample, given the sample before it.

    The past before the first sample is zeros, as the padding of the convolutions.

    Parameters
    ----------
    first : Conv1d
    layers : iterable of WaveNet layers
    last : iterable of Conv1d
        Each after a ReLU. All kernels are 1 but those of the layers' dilated convolutions.
    condition : Tensor of float32, shape (batch, n_mels, n_samples)
    """

    def __init__(self, first: nn.Conv1d, layers: Iterable[Any], last: Iterable[nn.Conv1d], condition: Tensor) -> None:
        layers = list(layers)
        self._first = _dense(first)
        self._last = [_dense(layer) for layer in last]
        self._layers = [_LayerSteps(layer, condition) for layer in layers]
        self._projection = torch.cat([layer.conv1x1c.weight[:, :, 0] for layer in layers])
        self._biases = torch.cat([_bias(layer.conv) + _bias(layer.conv1x1c) for layer in layers])
        self._condition = condition
        self._block = condition[..., :0]

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Return parameters ``(batch, n_outputs)`` of the network's input ``(batch, n_inputs)`` at step `t`.

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
        """Return what the mel adds to every layer's gates, ``(block, n_layers, batch, gate)``, biases included."""
        block = self._condition[..., start : start + _BLOCK]
        gates = self._projection @ block + self._biases[:, None]
        batch, _, n_steps = gates.shape
        return gates.reshape(batch, len(self._layers), -1, n_steps).permute(3, 1, 0, 2).contiguous()


class _LayerSteps:
    """One layer's weights as matrices, and the inputs that it still needs, as a ring."""

    def __init__(self, layer: Any, condition: Tensor) -> None:  # noqa: ANN401 - a WaveNet layer
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
