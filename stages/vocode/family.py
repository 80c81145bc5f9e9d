"""The contract of a vocoder family: what its files hold, the model they become, and how the two are matched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from melmill.stages.numeric.errors import Unusable
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError as VocoderError

Noise = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What the files of a vocoder hold, before any model.

    Parameters
    ----------
    name : str
        File name, for messages.
    state : mapping of str to Tensor
        Tensors under the model's own names: containers opened, ``module.`` prefixes dropped, weight norm of both key
        forms folded; float16 and bfloat16 as float32.
    config : mapping
        Of the configuration beside the weights or inside them; empty where there is none.
    layout : str
        The container as found: ``generator``, ``model_g``, ``model``, ``state_dict``, ``bare``; ``torchscript``,
        ``pt2`` or ``onnx`` for a program, which then is in `program`.
    mel : MelSpec or None
        The mel that the user says it needs, above what `config` says.
    stats : mapping of str to Tensor
        ``mean`` and ``scale`` ``(n_mels,)`` of a recipe that normalises its mels; empty where there are none.
    schedule : sequence of float
        Noise variance of each step, the cleanest first, of a file of its own; empty where there is none.
    program : bytes
        The whole file, for the layouts that are programs; `state` is empty then.
    """

    name: str
    state: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "bare"
    mel: MelSpec | None = None
    stats: Mapping[str, Tensor] = field(default_factory=dict)
    schedule: Sequence[float] = ()
    program: bytes = b""

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor; raise VocoderError where there is none of that name."""
        if key not in self.state:
            raise VocoderError(f"{self.name}: no tensor {key!r} among its {len(self.state)}: is it another family's?")
        return tuple(self.state[key].shape)

    def count(self, pattern: str) -> int:
        """Return how many of ``pattern.format(0)``, ``pattern.format(1)``, ... exist, up to the first gap.

        >>> Checkpoint(name="g", state={"ups.0.weight": torch.ones(1), "ups.1.weight": torch.ones(1)}).count(
        ...     "ups.{}.weight"
        ... )
        2
        """
        n = 0
        while pattern.format(n) in self.state:
            n += 1
        return n


class Vocoder(nn.Module, ABC):
    """A mel in, a waveform out: float32, in eval mode, without gradients.

    Attributes
    ----------
    spec : MelSpec
        The mel that it needs.
    silence : float
        The mel value that batches are padded with.
    least_frames : int
        Of a mel that it takes.
    """

    family: ClassVar[str]
    spec: MelSpec
    silence: float
    least_frames: int = 1

    @abstractmethod
    def n_samples(self, n_frames: int) -> int:
        """Return the number of samples that come of a mel of `n_frames`."""

    def check_length(self, n_frames: int) -> None:
        """Raise Unusable where a mel has too few frames; on the host, as asking a device would wait for it."""
        if n_frames < self.least_frames:
            raise Unusable(
                f"too short for {self.family}: a mel of {n_frames} frames, but its layers reflect their input, which "
                f"takes at least {self.least_frames}"
            )

    def noise(self, n_frames: int, generator: torch.Generator) -> Noise:
        """Draw what `forward` needs for one mel of `n_frames`, in the official order, shapes without a batch axis."""
        return ()

    def drawn(self, mel: Tensor, generator: torch.Generator) -> Noise:
        """Return what `forward` needs beside one mel ``(n_mels, n_frames)``: noise or a start, without a batch axis."""
        return self.noise(mel.shape[1], generator)

    def takes(self, n_frames: int, noise: Noise) -> bool:
        """Tell whether noise that was given, not drawn, has shapes that fit a mel of `n_frames`."""
        drawn = self.noise(n_frames, torch.Generator())
        return [draw.shape for draw in noise] == [draw.shape for draw in drawn]

    @abstractmethod
    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms of a batch.

        Parameters
        ----------
        mel : Tensor of float32, shape (batch, n_mels, n_frames)
        lengths : Tensor of int64, shape (batch,), or None
            Frames of each, the rest is padding; None: all are whole. An utterance in a padded batch equals itself
            alone to rounding; what comes out past its end is arbitrary.
        noise : sequence of Tensor, shape (batch, ...)
            As `drawn` gives, padded at the ends of axes and stacked.

        Returns
        -------
        Tensor of float32, shape (batch, n_samples)
        """


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of vocoders.

    Parameters
    ----------
    name : str
    recognises : callable
        Tell by the keys (or the layout) alone whether a checkpoint is of this family.
    build : callable
        Make the model and load the weights strictly; raise VocoderError naming the first tensor that does not fit.
    """

    name: str
    recognises: Callable[[Checkpoint], bool]
    build: Callable[[Checkpoint], Vocoder]


V = TypeVar("V", bound=Vocoder)


def with_weights(model: V, checkpoint: Checkpoint, state: Mapping[str, Tensor] | None = None) -> V:
    """Load a checkpoint's tensors into a model that was made for them, ready for inference.

    Parameters
    ----------
    model : Vocoder
        Its `state_dict` says which tensors there must be.
    checkpoint : Checkpoint
    state : mapping of str to Tensor or None
        The tensors under the model's names, where these are not the checkpoint's.

    Raises
    ------
    VocoderError
        A tensor is missing, has another shape, or has no place in the model: the first one is named.
    """
    state = checkpoint.state if state is None else state
    wanted = model.state_dict()
    for key, tensor in wanted.items():
        _check_tensor(key, tensor, state, checkpoint)
    extra = [key for key in state if key not in wanted]
    if extra:
        raise VocoderError(
            f"{checkpoint.name}: unexpected tensor {extra[0]!r} of shape {_shape(state[extra[0]])}, "
            f"{len(extra)} such in all: a {model.family} of this configuration has no place for it. "
            "Check the configuration and the family"
        )
    model.load_state_dict(dict(state))
    return model.eval().requires_grad_(False)


def _check_tensor(key: str, wanted: Tensor, state: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    if key not in state:
        raise VocoderError(
            f"{checkpoint.name}: tensor {key!r} of shape {_shape(wanted)} is missing: the configuration implies it. "
            "Check that the configuration is this checkpoint's own"
        )
    if state[key].shape != wanted.shape:
        raise VocoderError(
            f"{checkpoint.name}: tensor {key!r} has shape {_shape(state[key])}, but the configuration implies "
            f"{_shape(wanted)}. Give the configuration that the checkpoint was trained with"
        )


def _shape(tensor: Tensor) -> str:
    return "(" + ", ".join(map(str, tensor.shape)) + ")"
