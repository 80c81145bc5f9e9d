"""What is known about one family of vocoders, without importing its network."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from melmill.stages.numeric.errors import StageError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from melmill.stages.vocode.network import Checkpoint, Vocoder


@dataclass(frozen=True, kw_only=True)
class Training:
    """Say how `train_vocoder` trains a family.

    Parameters
    ----------
    module : str
        Module that has a function ``fresh(size, spec)``, imported when a training begins. It
        returns a `melmill.stages.train.generators.Fresh`.
    refuses : callable
        Return why it can't learn from mels of a spec, after the generator's name; None where it
        can.
    """

    module: str
    refuses: Callable[[MelSpec], str | None]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Describe a family of vocoders: its stage, its checkpoints and its network.

    The constant ``FAMILY`` of a folder in ``families/``, or what an entry point of the group
    ``melmill.vocoders`` names. A plan imports it, so its module must not import torch.

    Parameters
    ----------
    name : str
        Of the family, of its stage in ``pipeline.yaml``, and of its folder or entry point.
    about : str
        One line for the documentation of the stage, with the paper.
    network : str
        Module that has a function ``build(checkpoint)``. It returns a `Vocoder` or raises
        VocoderError. The module is imported when a vocoder of the family is first made.
    recognises : callable
        Tell by the names of the tensors, or by the layout, whether a checkpoint is of this family.
    one_pass : bool
        The network runs once an utterance. Only such vocoders take `precision` and `compile`:
        repeated steps add their errors up, and a compiler would unroll them.
    options : type of dataclass or None
        A frozen, keyword-only dataclass of the fields that the stage has besides those of all
        vocoders. It checks itself. `Vocoder.configure` gets an instance. None: there are no such
        fields.
    training : Training or None
        None: it can't be trained here.
    """

    name: str
    about: str
    network: str
    recognises: Callable[[Checkpoint], bool]
    one_pass: bool = True
    options: type[DataclassInstance] | None = None
    training: Training | None = None

    def build(self, checkpoint: Checkpoint) -> Vocoder:
        """Make the model of a checkpoint, ready for inference.

        Raises
        ------
        VocoderError
            The checkpoint is not whole, or it does not fit its configuration or its mel. The
            message names the first tensor or setting that is wrong, as far as that is known.
        """
        from melmill.stages.vocode.network import Ceiling  # here, as it imports torch

        module = importlib.import_module(self.network)
        try:
            with Ceiling(checkpoint):
                made: Vocoder = module.build(checkpoint)
        except StageError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            # Whatever a setting or a tensor of another form makes of the code that builds the network.
            raise VocoderError(
                f"{checkpoint.name}: its tensors and its configuration make no {self.name} "
                f"({type(error).__name__}: {' '.join(str(error).split())}). "
                "Give the configuration that the checkpoint was trained with"
            ) from error
        return made


def needs_log_mels(spec: MelSpec) -> str | None:
    """Return why a generator that learns from log mels refuses those of a spec.

    None: it takes them.
    """
    if spec.log is None:
        return "learns from log mels, but the mel has log: null: extract with log: ln and floor: 1.0e-5"
    return None
