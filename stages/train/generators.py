"""Fresh generators to train, and the configurations that their weights are published with."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from melmill.stages.contract import StageFiles
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train.recipe import Generator, Size
from melmill.stages.vocode.files.checkpoint import read_files
from melmill.stages.vocode.files.companions import OWN
from melmill.stages.vocode.loaded import load
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


def begun(files: StageFiles, spec: MelSpec, frozen: Sequence[str], rate: float) -> Fresh:
    """Return the generator of a checkpoint, to train further on mels of a spec.

    Parameters
    ----------
    files : mapping of str to StageFile
        The checkpoint's, by role.
    spec : MelSpec
        The mels to learn from.
    frozen : sequence of str
        Patterns of names of tensors that stay as they are, such as ``ups.*``.
    rate : float
        Learning rate to start from.

    Raises
    ------
    ParameterError
        A pattern matches no tensor, or all are frozen.
    """
    checkpoint = read_files(files)
    model = load(checkpoint).model
    model.spec = spec
    model.train().requires_grad_(True)
    names = dict(model.named_parameters())
    for pattern in frozen:
        held = fnmatch.filter(names, pattern)
        if not held:
            raise ParameterError("frozen", f"{pattern!r} matches no tensor: they read like {next(iter(names))!r}")
        for name in held:
            names[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise ParameterError("frozen", f"must leave a tensor to train, got {list(frozen)!r}, which match all")
    return Fresh(model=model, config={**checkpoint.config, OWN: {"mel": spec.as_dict()}}, learning_rate=rate)


def draw_weights(model: nn.Module, draw: Callable[[torch.Tensor], object]) -> None:
    """Draw the weights of convolutions and linear maps, whose biases become zeros.

    As made, they hold no values yet.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
            draw(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
