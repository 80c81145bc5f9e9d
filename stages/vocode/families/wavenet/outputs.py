"""What a WaveNet's last layer means: how a sample is drawn, fed back and turned into sound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.network import Noise

# Uniform draws stay this far from 0 and 1 so that their logarithms are finite.
_MARGIN = 1e-5

# Generation starts from this class, whatever the number of classes.
_FIRST_CLASS = 127


class Output(Protocol):
    """Say how samples are drawn and read."""

    @property
    def n_inputs(self) -> int:
        """Channels of the network's first layer."""
        ...

    def noise(self, n_samples: int, generator: torch.Generator) -> Noise:
        """Draw what `sample` needs for `n_samples` steps."""
        ...

    def first(self, batch: int, device: torch.device) -> Tensor:
        """Return what the network reads before the first sample, ``(batch, n_inputs)``."""
        ...

    def sample(self, parameters: Tensor, draws: Noise) -> Tensor:
        """Return one sample ``(batch,)`` of parameters and of one step's draws.

        They have the shapes ``(batch, n_outputs)`` and ``(batch, ...)``.
        """
        ...

    def read(self, samples: Tensor) -> Tensor:
        """Return samples ``(...)`` as the network reads them, ``(..., n_inputs)``."""
        ...

    def heard(self, samples: Tensor) -> Tensor:
        """Return samples as a waveform in [-1, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """Let samples be numbers in [-1, 1].

    Parameters
    ----------
    mu : int or None
        The network works on mu-law values of this mu; None: on plain ones.
    """

    n_inputs = 1
    mu: int | None = None

    def first(self, batch: int, device: torch.device) -> Tensor:
        """Return silence."""
        return torch.zeros(batch, 1, device=device)

    def read(self, samples: Tensor) -> Tensor:
        """Add the channel axis."""
        return samples[..., None]

    def heard(self, samples: Tensor) -> Tensor:
        """Expand mu-law values."""
        return samples if self.mu is None else expanded(samples, self.mu)


@dataclass(frozen=True, kw_only=True)
class Logistic(Scalar):
    """Draw from a mixture of logistic distributions (Salimans et al. 2017).

    Its parameters are logits, means and log scales.

    Parameters
    ----------
    n_mixtures : int
    log_scale_min : float or None
        Smaller log scales are raised to it (2018); None: they stay.
    """

    n_mixtures: int
    log_scale_min: float | None = None

    def noise(self, n_samples: int, generator: torch.Generator) -> Noise:
        """Draw uniform numbers for the mixture and for the sample.

        They have the shapes ``(n_samples, n_mixtures)`` and ``(n_samples,)``.
        """
        return _uniform((n_samples, self.n_mixtures), generator), _uniform((n_samples,), generator)

    def sample(self, parameters: Tensor, draws: Noise) -> Tensor:
        """Choose a component by the Gumbel trick and invert its distribution."""
        mean, log_scale = _chosen(parameters, draws[0])
        u = draws[1]
        if self.log_scale_min is not None:
            log_scale = log_scale.clamp(min=self.log_scale_min)
        return (mean + log_scale.exp() * (u.log() - (1.0 - u).log())).clamp(-1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Gaussian(Scalar):
    """Draw from a mixture of `n_mixtures` normal distributions.

    A single one may come without a logit.
    """

    n_mixtures: int

    def noise(self, n_samples: int, generator: torch.Generator) -> Noise:
        """Draw normal numbers ``(n_samples,)``, after uniform ones where there is a choice.

        The uniform ones have the shape ``(n_samples, n_mixtures)``.
        """
        choice = () if self.n_mixtures == 1 else (_uniform((n_samples, self.n_mixtures), generator),)
        return *choice, torch.randn(n_samples, generator=generator, device=generator.device)

    def sample(self, parameters: Tensor, draws: Noise) -> Tensor:
        """Choose a component by the Gumbel trick and scale the normal draw."""
        if self.n_mixtures == 1:
            mean, log_scale = parameters[:, -2], parameters[:, -1]
        else:
            mean, log_scale = _chosen(parameters, draws[0])
        return (mean + log_scale.exp() * draws[-1]).clamp(-1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """Let samples be classes: mu-law values of mu = `n_classes` - 1.

    Parameters
    ----------
    n_classes : int
        At least 128: generation starts from class 127.
    """

    n_classes: int

    def __post_init__(self) -> None:
        """Check that the first class exists."""
        if self.n_classes <= _FIRST_CLASS:
            raise VocoderError(f"wavenet: {self.n_classes} classes, expected at least {_FIRST_CLASS + 1}")

    @property
    def n_inputs(self) -> int:
        """One channel a class."""
        return self.n_classes

    def noise(self, n_samples: int, generator: torch.Generator) -> Noise:
        """Draw uniform numbers ``(n_samples,)``."""
        return (_uniform((n_samples,), generator),)

    def first(self, batch: int, device: torch.device) -> Tensor:
        """Return the class that the official code starts from."""
        return self.read(torch.full((batch,), _FIRST_CLASS, device=device))

    def sample(self, parameters: Tensor, draws: Noise) -> Tensor:
        """Return the class whose share of the probability the draw falls into."""
        shares = parameters.softmax(dim=-1).cumsum(dim=-1)
        return (shares <= draws[0][:, None] * shares[:, -1:]).sum(dim=-1).clamp(max=self.n_classes - 1)

    def read(self, samples: Tensor) -> Tensor:
        """Return one-hot vectors."""
        return torch.nn.functional.one_hot(samples, self.n_classes).float()

    def heard(self, samples: Tensor) -> Tensor:
        """Spread the classes over [-1, 1] and expand."""
        mu = self.n_classes - 1
        return expanded(2.0 * samples.float() / mu - 1.0, mu)


def expanded(y: Tensor, mu: int) -> Tensor:
    """Undo the mu-law, ``sign(y) ((1 + mu)^|y| - 1) / mu`` (ITU-T G.711, continuous).

    >>> expanded(torch.tensor([-1.0, 0.0, 0.5]), 255)
    tensor([-1.0000,  0.0000,  0.0588])
    """
    return y.sign() * torch.expm1(y.abs() * math.log1p(mu)) / mu


def _uniform(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    draws = torch.rand(size, generator=generator, device=generator.device)
    return _MARGIN + (1.0 - 2.0 * _MARGIN) * draws


def _chosen(parameters: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and log scale of the component that the uniform draws choose."""
    logits, means, log_scales = parameters.chunk(3, dim=-1)
    component = (logits - (-u.log()).log()).argmax(dim=-1, keepdim=True)
    return means.gather(-1, component)[:, 0], log_scales.gather(-1, component)[:, 0]
