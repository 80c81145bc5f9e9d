"""What a family's network is made from, and what it must do: `Checkpoint` and `Vocoder`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from melmill.stages.numeric.errors import Unusable
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.storage.utterance import silence

Noise = tuple[Tensor, ...]

# Values of what a network has besides its weights, such as windows: 128 MiB of float32.
_SPARE_VALUES = 1 << 25


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Hold what the files of a vocoder say, before there is a model.

    Parameters
    ----------
    name : str
        File name, for messages.
    state : mapping of str to Tensor
        Tensors under the model's own names. Containers are opened, prefixes of wrappers dropped
        and weight norm of both key forms folded. float16 and bfloat16 became float32.
    config : mapping
        Settings from the configuration beside the weights or inside them; empty where there is
        none.
    layout : str
        The container as found: ``generator``, ``model_g``, ``model``, ``state_dict`` or ``bare``. A
        program has the layout ``torchscript``, ``pt2`` or ``onnx``.
    mel : MelSpec or None
        The mel that the user says the vocoder needs. It overrides `config`.
    stats : mapping of str to Tensor
        ``mean`` and ``scale`` ``(n_mels,)`` of a recipe that normalises its mels; empty where there
        are none.
    schedule : sequence of float
        Noise variance of each step, the cleanest first, from a file of its own; empty where there
        is none.
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
        """Return how many of ``pattern.format(0)``, ``pattern.format(1)``, ... exist.

        The first gap ends the count.

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
    """Turn mels into waveforms: float32, in eval mode, without gradients.

    Attributes
    ----------
    family : str
        Name of its family.
    spec : MelSpec
        The mel that it needs.
    least_frames : int
        Fewest frames of a mel that its layers take.
    context : int
        Frames that it needs at each end of a mel beyond those that it makes samples of.
    sample_bytes : int
        Memory that a sample of output takes on its way, bytes, at the published sizes. Batches are
        sized by it.
    """

    family: ClassVar[str]
    sample_bytes: ClassVar[int] = 2000
    spec: MelSpec
    least_frames: int = 1
    context: int = 0

    @property
    def silence(self) -> float | NDArray[np.float64]:
        """The mel value of digital silence, which batches are padded with; see `storage.utterance.silence`."""
        return silence(self.spec.as_dict())

    @abstractmethod
    def n_samples(self, n_frames: int) -> int:
        """Return how many samples a mel of `n_frames` gives, its context included in the frames."""

    def check_length(self, n_frames: int) -> None:
        """Raise Unusable where a mel has too few frames.

        This works on the host, as asking a device would wait for it.
        """
        if n_frames < self.least_frames:
            raise Unusable(
                f"too short for {self.family}: a mel of {n_frames} frames, but its layers reflect their input, which "
                f"takes at least {self.least_frames}"
            )

    def configure(self, options: Any) -> None:  # noqa: ANN401 - each family has options of its own
        """Take over the family's options, as a pipeline sets them.

        An option that is None keeps what the files say.
        """

    def noise(self, n_frames: int, generator: torch.Generator) -> Noise:
        """Draw what `forward` needs for one mel of `n_frames`, in the official order.

        Shapes have no batch axis.
        """
        return ()

    def drawn(self, mel: Tensor, generator: torch.Generator) -> Noise:
        """Return what `forward` needs with one mel ``(n_mels, n_frames)``: noise or a start.

        It has no batch axis.
        """
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
            Frames of each; what follows is padding. None: all are whole. An utterance in a padded
            batch equals itself alone, to rounding. Samples past its end are arbitrary.
        noise : sequence of Tensor, shape (batch, ...)
            As `drawn` gives, padded at the ends of axes and stacked.

        Returns
        -------
        Tensor of float32, shape (batch, n_samples)
        """

    def restored(self, y: Tensor) -> Tensor:
        """Undo what the recipe did to recordings before training.

        A waveform ``(n_samples,)`` keeps its shape. It is on the CPU.
        """
        return y


V = TypeVar("V", bound=Vocoder)


class Ceiling(TorchFunctionMode):
    """Refuse a network of far more values than its checkpoint fills, before they take memory.

    Parameters
    ----------
    checkpoint : Checkpoint
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self._name = checkpoint.name
        self._n_held = sum(tensor.numel() for tensor in checkpoint.state.values())
        self._n_left = _SPARE_VALUES + 4 * self._n_held

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Count the values of a tensor that is made; raise VocoderError where they are too many."""
        if func is torch.empty:
            shape = args[0] if args and isinstance(args[0], Sequence) else args
            self._n_left -= math.prod(shape)
            if self._n_left < 0:
                raise VocoderError(
                    f"{self._name}: its configuration implies a tensor of shape {tuple(shape)}, but the file holds "
                    f"only {self._n_held:,} values: give the configuration that the checkpoint was trained with"
                )
        return func(*args, **(kwargs or {}))


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
        A tensor is missing, has another shape, or has no place in the model. The message names the
        first one.
    """
    state = checkpoint.state if state is None else state
    wanted = model.state_dict()
    for key, tensor in wanted.items():
        if key not in state:
            raise VocoderError(
                f"{checkpoint.name}: tensor {key!r} of shape {_shape(tensor)} is missing: the configuration implies "
                "it. Check that the configuration is this checkpoint's own"
            )
        if state[key].shape != tensor.shape:
            raise VocoderError(
                f"{checkpoint.name}: tensor {key!r} has shape {_shape(state[key])}, but the configuration implies "
                f"{_shape(tensor)}. Give the configuration that the checkpoint was trained with"
            )
    extra = [key for key in state if key not in wanted]
    if extra:
        raise VocoderError(
            f"{checkpoint.name}: unexpected tensor {extra[0]!r} of shape {_shape(state[extra[0]])}, "
            f"{len(extra)} such in all: a {model.family} of this configuration has no place for it. "
            "Check the configuration and the family"
        )
    model.load_state_dict(dict(state))
    return model.eval().requires_grad_(False)


def _shape(tensor: Tensor) -> str:
    return "(" + ", ".join(map(str, tensor.shape)) + ")"
