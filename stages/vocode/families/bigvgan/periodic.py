"""Snake activations, computed at twice the rate so that their harmonics don't alias.

References
----------
Lee et al., "BigVGAN", ICLR 2023, section 3.2 and figure 1. The filters, Kaiser-windowed sincs, are
    in the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d, pad

from melmill.stages.vocode.layers.basic import Ends

# Ratio of the oversampling, and length of its filters.
_RATIO = 2
_TAPS = 12
# Keeps the division finite, as the official code does.
_TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class Snake:
    """Say which activation it is, and whether its parameters are logarithms.

    It is ``snake`` or ``snakebeta``.
    """

    kind: str
    log_scale: bool


class _Act(nn.Module):
    """Compute ``x + sin^2(alpha x) / beta`` with parameters for each channel.

    In ``snake`` beta is alpha.
    """

    def __init__(self, width: int, snake: Snake) -> None:
        super().__init__()
        self.log_scale = snake.log_scale
        self.alpha = nn.Parameter(torch.empty(width))
        self.beta = nn.Parameter(torch.empty(width)) if snake.kind == "snakebeta" else None

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha[:, None]
        beta = alpha if self.beta is None else self.beta[:, None]
        if self.log_scale:
            alpha, beta = alpha.exp(), beta.exp()
        return x + (beta + _TINY).reciprocal() * torch.sin(x * alpha).square()


class _Filter(nn.Module):
    """Hold a filter under the official name."""

    def __init__(self) -> None:
        super().__init__()
        self.filter: Tensor
        self.register_buffer("filter", torch.empty(1, 1, _TAPS))


class _Downsample(nn.Module):
    """Hold the second filter under the official name."""

    def __init__(self) -> None:
        super().__init__()
        self.lowpass = _Filter()


class PeriodicActivation(nn.Module):
    """Double the rate, apply Snake and halve the rate.

    The ends are extended by their last values.
    """

    def __init__(self, width: int, snake: Snake) -> None:
        super().__init__()
        self.act = _Act(width, snake)
        self.upsample = _Filter()
        self.downsample = _Downsample()

    def forward(self, x: Tensor, ends: Ends) -> Tensor:
        """Return the activations of `x` ``(batch, width, length)``, of the same shape."""
        doubled = ends.stretched(_RATIO)
        y = doubled.held(self.act(self._up(ends.held(x))))
        return self._down(y)

    def _up(self, x: Tensor) -> Tensor:
        margin = _TAPS // _RATIO - 1
        cut = margin * _RATIO + (_TAPS - _RATIO) // 2
        taps = _RATIO * self.upsample.filter.expand(x.shape[1], -1, -1)
        x = pad(x, (margin, margin), mode="replicate")
        return conv_transpose1d(x, taps, stride=_RATIO, groups=x.shape[1])[..., cut:-cut]

    def _down(self, x: Tensor) -> Tensor:
        x = pad(x, (_TAPS // 2 - 1, _TAPS // 2), mode="replicate")
        taps = self.downsample.lowpass.filter.expand(x.shape[1], -1, -1)
        return conv1d(x, taps, stride=_RATIO, groups=x.shape[1])
