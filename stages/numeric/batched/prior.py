"""The network of a prior in torch: what `melmill.stages.numeric.compiled.prior` computes, to train.

Tensors are ``(B, T, C)``: segment, frame, and band, channel or bin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from melmill.stages.numeric.compiled.prior import (
    FLOOR,
    GATE,
    GATE_REACH,
    HIGHEST,
    N_UPDATES,
    NORM_EPS,
    row_sums,
    spreading,
)
from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import Prior, Sizes

# Added to the mel of a guess before it divides.
_TINY = 1e-8

# Spread of the weights of the last layer when it is drawn: a fresh network hardly corrects.
_SMALL = 0.02
# Weight of a block beside what it is added to, when it is drawn.
_FIRST_SCALE = 0.3


class Gate(torch.autograd.Function):
    """The gate of a block, x (1 + u / sqrt(1 + u^2)) / 2 with a polynomial u of x, and its slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - as torch takes it
        """Return the gated values."""
        a, b, c, d = GATE
        near = x.clamp(-GATE_REACH, GATE_REACH)
        square = near * near
        u = (square * d).add_(c).mul_(square).add_(b).mul_(square).add_(a).mul_(near)
        root = (u * u).add_(1.0).rsqrt_()
        half = u.mul_(root).mul_(0.5).add_(0.5)
        ctx.save_for_backward(x, half, root)
        gated: Tensor = x * half
        return gated

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401 - as torch takes it
        """Return the gradient of the input."""
        a, b, c, d = GATE
        x, half, root = ctx.saved_tensors
        square = (x * x).clamp_(max=GATE_REACH**2)
        slope = (square * (7 * d)).add_(5 * c).mul_(square).add_(3 * b).mul_(square).add_(a)
        slope.mul_(root).mul_(root).mul_(root).mul_(x).mul_(0.5)
        slope.mul_(x.abs() < GATE_REACH)
        gradient: Tensor = slope.add_(half).mul_(gradients[0])
        return gradient


class Block(nn.Module):
    """A block of ConvNeXt over time, in the names of `Sizes.shapes`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, kernel = sizes.width, sizes.kernel
        self.time = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.up = nn.Linear(width, sizes.hidden)
        self.down = nn.Linear(sizes.hidden, width)
        self.scale = nn.Parameter(torch.full((width,), _FIRST_SCALE))

    def forward(self, h: Tensor) -> Tensor:
        """Return the block's output ``(B, T, width)``."""
        seen = self.time(h.transpose(1, 2)).transpose(1, 2)
        inner = cast("Tensor", Gate.apply(self.up(self.norm(seen))))  # type: ignore[no-untyped-call]
        added: Tensor = self.scale * self.down(inner)
        return h + added


class PriorNetwork(nn.Module):
    """Guess the log magnitude of mels; its tensors have the names of `Sizes.shapes`.

    Parameters
    ----------
    spec : MelSpec
    sizes : Sizes
    """

    spread: Tensor
    sums: Tensor

    def __init__(self, spec: MelSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec, self.sizes = spec, sizes
        self.embed = nn.Conv1d(spec.n_mels, sizes.width, sizes.kernel, padding=sizes.kernel // 2)
        self.embed_norm = nn.LayerNorm(sizes.width, eps=NORM_EPS)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.n_blocks))
        self.out_norm = nn.LayerNorm(sizes.width, eps=NORM_EPS)
        self.head = nn.Linear(sizes.width, sizes.head) if sizes.head else None
        self.out = nn.Linear(sizes.head or sizes.width, spec.stft.n_bins)
        nn.init.normal_(self.out.weight, std=_SMALL)
        nn.init.zeros_(self.out.bias)
        for name, values in (("spread", spreading(spec).T), ("sums", row_sums(spec))):
            self.register_buffer(name, torch.from_numpy(np.array(values, dtype=np.float32)), persistent=False)

    def forward(self, m: Tensor) -> Tensor:
        """Return the log magnitude ``(B, T, n_bins)`` of linear mels ``(B, T, n_mels)``, nepers.

        A mel's loudest value is 1; the magnitude is ``A / top**(1/p)`` then.
        """
        level = m / self.sums
        if self.spec.power != 1.0:
            level = level ** (1.0 / self.spec.power)
        x = torch.log(level + FLOOR)
        h = self.embed_norm(self.embed(x.transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            h = block(h)
        h = self.out_norm(h)
        if self.head is not None:
            h = cast("Tensor", Gate.apply(self.head(h)))  # type: ignore[no-untyped-call]
        guess: Tensor = self.out(h) + x @ self.spread
        return guess.clamp(max=HIGHEST)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return the weights as `melmill.stages.numeric.prior.Prior` holds them, rounded to half precision."""
        state = self.state_dict()
        return {
            name: state[name].detach().cpu().half().float().reshape(shape).numpy()
            for name, shape in self.sizes.shapes(self.spec).items()
        }

    def take(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Take over the weights that a `Prior` holds."""
        own = self.state_dict()
        self.load_state_dict(
            {name: torch.from_numpy(np.array(values)).reshape(own[name].shape) for name, values in weights.items()}
        )

    @torch.no_grad()
    def begin_from(self, prior: Prior) -> None:
        """Compute what a prior computes, whose sizes are these but for the head.

        A head that the prior lacks passes its input on: the gates of x and -x differ by x. So it has
        at least two channels for each of the network's. The others are as they were drawn, and
        count for nothing.
        """
        weights = dict(prior.weights)
        if self.head is not None and not prior.sizes.head:
            width, drawn = self.sizes.width, self.head.weight.cpu().numpy()
            eye, out = np.eye(width, dtype=np.float32), weights["out.weight"]
            rest = len(drawn) - 2 * width
            weights["head.weight"] = np.concatenate([eye, -eye, drawn[2 * width :]])
            weights["head.bias"] = np.zeros(len(drawn), dtype=np.float32)
            weights["out.weight"] = np.concatenate([out, -out, np.zeros((len(out), rest), dtype=np.float32)], axis=1)
        self.take(weights)


class Bank(NamedTuple):
    """A bank E ``(n_bins, n_mels)``, transposed, and what its updates divide by and keep."""

    E: Tensor
    over_sum: Tensor
    kept: Tensor
    power: float


def bank_of(spec: MelSpec, device: torch.device) -> Bank:
    """Return the bank of a spec on a device."""
    E = torch.from_numpy(np.array(mel_bank(spec).T)).to(device)
    total = E.sum(dim=1)
    over_sum = torch.where(total > 0, 1.0 / total.clamp(min=torch.finfo(total.dtype).tiny), 0.0)
    return Bank(E=E, over_sum=over_sum, kept=(total <= 0).to(E.dtype), power=spec.power)


def agreeing(Y: Tensor, m: Tensor, bank: Bank, n_updates: int = N_UPDATES) -> Tensor:
    """Return a magnitude ``(B, T, n_bins)`` nearer to its mel ``(B, T, n_mels)``.

    Updates ``S <- S * E^T (M / E S) / E^T 1`` of ``S = Y**p``, through which gradients flow.
    """
    S = Y if bank.power == 1.0 else Y**bank.power
    for _ in range(n_updates):
        ratio = m / (S @ bank.E + _TINY)
        S = S * ((ratio @ bank.E.T) * bank.over_sum + bank.kept)
    return S if bank.power == 1.0 else S ** (1.0 / bank.power)
