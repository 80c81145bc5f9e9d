"""The stage `train_vocoder`: aligned mels and recordings in, a vocoder out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from melmill.stages.contract import Input, Product, TrainedVocoder, TrainingData, TrainingPlace
from melmill.stages.invert.inversion import DEVICES, Device
from melmill.stages.numeric.checks import check_float, check_int
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.train.recipe import GENERATORS, SIZES, Generator, Recipe, Size
from melmill.stages.train.stage import INPUTS, check_counts, fitting_mel, learnt, mel_of, recipe_of, session_of
from melmill.stages.vocode.registry import family

_PRECISIONS = ("float32", "bfloat16", "float16")
_LAST_STEP = 1_000_000_000
_COUNTS = {"discriminator_width": range(1, 4_097)}


@dataclass(frozen=True, kw_only=True)
class TrainVocoder:
    """Train a vocoder on segments of a corpus, by spectral losses and discriminators.

    Parameters
    ----------
    generator : {"vocos", "hifigan", "unfolded"}
        ``"vocos"`` and ``"hifigan"`` are the published networks, for log mels. ``"unfolded"``
        learns a few steps from a PGHI start and needs far less training.
    size : {"small", "base"}
        ``"base"`` is the published one.
    steps : int
    batch_size, segment_frames : int
        Segments of a step, and frames of a segment.
    learning_rate : float or None
        Rate to start from; None: the generator's usual one.
    adversarial_from : int or None
        Step at which the discriminators join; None: they never do.
    discriminator_width : int
        Channels of the discriminators' first layers.
    phase_aug : bool
        Turn phases alike in the two signals that discriminators compare (PhaseAug).
    ema : float
        Decay of the averaged weights. The averaged weights are kept.
    held_out : int
        Speakers that are not trained with; the vocoder is judged on them. A fifth of all speakers
        at most.
    precision : {"float32", "bfloat16", "float16"}
        Precision of convolutions and matrix products.
    save_every : int
        Steps between two saved states, from which a later run resumes.
    seed : int
    device : {"cpu", "cuda"}
    threads : int
        CPU threads that it uses.
    """

    uses: ClassVar[str] = "train_vocoder"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = INPUTS

    generator: Generator = "vocos"
    size: Size = "base"
    steps: int = 200_000
    batch_size: int = 16
    segment_frames: int = 64
    learning_rate: float | None = None
    adversarial_from: int | None = 0
    discriminator_width: int = 32
    phase_aug: bool = False
    ema: float = 0.999
    held_out: int = 4
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    save_every: int = 1000
    seed: int = 0
    device: Device = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        """Check every field."""
        choices = {"generator": GENERATORS, "size": SIZES, "precision": _PRECISIONS, "device": DEVICES}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ParameterError(name, f"must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        check_counts(self, _COUNTS)
        if self.adversarial_from is not None:
            check_int("adversarial_from", self.adversarial_from, at_least=0, at_most=_LAST_STEP)
        if self.learning_rate is not None:
            check_float("learning_rate", self.learning_rate, above=0)
        check_float("ema", self.ema, at_least=0, below=1)

    def identity(self) -> Mapping[str, Any]:
        """Return the fields that decide what is learnt."""
        return learnt(self)

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Describe the vocoder.

        Raises
        ------
        ContractError
            Mel, recordings and generator don't fit each other.
        """
        spec = fitting_mel(inputs).spec
        training = family(self.generator).training
        reason = None if training is None else training.refuses(spec)
        if reason is not None:
            raise ContractError(f"generator: {self.generator} {reason}")
        shortest = -(-2 * spec.n_fft // spec.hop_length)
        if self.segment_frames < shortest:
            raise ParameterError(
                "segment_frames",
                f"must be at least {shortest}, twice the FFT size of {spec.n_fft}, got {self.segment_frames!r}",
            )
        return TrainedVocoder(family=self.generator, spec=spec)

    def train(self, data: TrainingData, place: TrainingPlace, inputs: Mapping[str, Product]) -> Mapping[str, bytes]:
        """Train, resuming from what `place` holds; return the vocoder's files by name.

        Raises
        ------
        DeviceMissing
            This process lacks the device.
        StageError
            There is nothing to train with, the training diverged, or `place` holds the state of
            another training.
        """
        from melmill.stages.train.loop import train  # here, as they import torch
        from melmill.stages.train.vocoder_trainer import VocoderTrainer

        recipe = recipe_of(self, Recipe)
        session = session_of(self, f"{self.generator} {self.size}", recipe)
        return train(VocoderTrainer(recipe, mel_of(inputs).spec), session, data, place)
