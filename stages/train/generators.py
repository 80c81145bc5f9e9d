"""Fresh generators to train, and the configurations that their weights are published with."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train.recipe import Generator, Size
from melmill.stages.vocode.files.companions import OWN
from melmill.stages.vocode.network import Vocoder
from melmill.stages.vocode.registry import family


@dataclass(frozen=True, kw_only=True, eq=False)
class Fresh:
    """Hold a generator that has learnt nothing yet.

    Parameters
    ----------
    model : Vocoder
        In training mode.
    config : mapping
        What is published beside its weights, as plain values.
    learning_rate : float
        Rate to start from.
    """

    model: Vocoder
    config: Mapping[str, Any]
    learning_rate: float


def fresh(name: Generator, size: Size, spec: MelSpec, seed: int) -> Fresh:
    """Make a generator with random weights.

    The function `fresh` of its family's training module makes it.

    Parameters
    ----------
    name : {"vocos", "hifigan", "unfolded"}
        Of a family that can be trained.
    size : {"small", "base"}
        ``base`` is the published one.
    spec : MelSpec
        The mel that it is made for.
    seed : int

    Raises
    ------
    ParameterError
        The family can't be trained.
    """
    training = family(name).training
    if training is None:
        raise ParameterError("generator", f"{name!r} can't be trained")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: Fresh = importlib.import_module(training.module).fresh(size, spec)
    made.model.train().requires_grad_(True)
    config = {**made.config, OWN: {"mel": spec.as_dict()}}
    return Fresh(model=made.model, config=config, learning_rate=made.learning_rate)


def draw_weights(model: nn.Module, draw: Callable[[torch.Tensor], object]) -> None:
    """Draw the weights of convolutions and linear maps, whose biases become zeros.

    As made, they hold no values yet.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
            draw(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
