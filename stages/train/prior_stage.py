"""The stage `train_prior`: aligned mels and recordings in, a prior for inverters out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from melmill.stages.contract import Input, Product, TrainedPrior, TrainingData, TrainingPlace
from melmill.stages.invert.inversion import DEVICES, Device, check_prior
from melmill.stages.invert.priors import shipped_names, shipped_prior
from melmill.stages.numeric.checks import check_choice, check_float
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.mel import to_linear
from melmill.stages.numeric.prior import Prior, Sizes
from melmill.stages.train.recipe import RANDOM, PriorRecipe
from melmill.stages.train.stage import INPUTS, check_counts, fitting_mel, learnt, mel_of, recipe_of, session_of

_COUNTS = dict.fromkeys(("n_updates", "unrolled"), range(101))
_WEIGHTS = ("compressed", "log", "squared")
_HIGHEST_SPEED = 2.0
_LARGEST_DB = 100.0


@dataclass(frozen=True, kw_only=True)
class TrainPrior:
    """Train a prior, which guesses the magnitude that a mel was made of, on segments of a corpus.

    Parameters
    ----------
    width, n_blocks, kernel : int
        Channels of the network, a multiple of 8; its blocks; and the frames that each convolution
        over time sees, odd. Inverting takes longer the larger they are.
    head : int
        Channels of a layer between the last block and the bins, a multiple of 8. It lets a frame's
        harmonics be something else than a sum of as many patterns as there are channels. 0: none.
    begin : str
        What it begins with: "random", or the name of a prior that comes with melmill for such mels, of
        the same sizes. That may lack the head.
    steps : int
    batch_size, segment_frames : int
        Segments of a step, and frames of a segment.
    learning_rate : float
        The highest rate. It rises to that over the first 30 % of the steps, and sinks after it.
    compressed, log, squared : float
        Weights of the losses: mean difference of the square roots of the magnitudes, of their
        logs, and mean squared difference of the square roots. 0 leaves a loss out.
    n_updates : int
        Multiplicative updates that make a guess agree with the mel before the losses see it.
    unrolled : int
        Iterations of fast Griffin-Lim, from the true phase, before the losses see a guess. 0: none.
    speed : float
        Recordings are played at speeds between this and its inverse, pitch with them. 1: as they are.
    gain_db : float
        The loudest band of a segment lies up to so much below that of its utterance, dB.
    tilt_db : float
        Spread of a random smooth filter on each segment, dB. 0: none.
    ema : float
        Decay of the averaged weights. The averaged weights are kept.
    held_out : int
        Speakers that are not trained with; the prior is judged on them. A fifth of all speakers at
        most.
    save_every : int
        Steps between two saved states, from which a later run resumes.
    seed : int
    device : {"cpu", "cuda"}
    threads : int
        CPU threads that it uses.
    """

    uses: ClassVar[str] = "train_prior"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = INPUTS

    width: int = 160
    n_blocks: int = 3
    kernel: int = 7
    head: int = 320
    begin: str = RANDOM
    steps: int = 20_000
    batch_size: int = 16
    segment_frames: int = 64
    learning_rate: float = 1.5e-3
    compressed: float = 10.0
    log: float = 0.1
    squared: float = 0.0
    n_updates: int = 0
    unrolled: int = 0
    speed: float = 1.25
    gain_db: float = 20.0
    tilt_db: float = 3.0
    ema: float = 0.999
    held_out: int = 4
    save_every: int = 500
    seed: int = 0
    device: Device = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        """Check every field."""
        check_choice("begin", self.begin, (RANDOM, *shipped_names()))
        sizes = recipe_of(self, PriorRecipe).sizes()
        if self.begin != RANDOM:
            _check_grown(sizes, shipped_prior(self.begin))
        check_choice("device", self.device, DEVICES)
        check_counts(self, _COUNTS)
        check_float("learning_rate", self.learning_rate, above=0)
        for name in _WEIGHTS:
            check_float(name, getattr(self, name), at_least=0)
        if not any(getattr(self, name) for name in _WEIGHTS):
            raise ParameterError("compressed", f"must be above 0, or log or squared, got {self.compressed!r}")
        check_float("speed", self.speed, at_least=1, at_most=_HIGHEST_SPEED)
        for name in ("gain_db", "tilt_db"):
            check_float(name, getattr(self, name), at_least=0, at_most=_LARGEST_DB)
        check_float("ema", self.ema, at_least=0, below=1)

    def identity(self) -> Mapping[str, Any]:
        """Return the fields that decide what is learnt. A prior is known by its digest."""
        own = learnt(self)
        return own if self.begin == RANDOM else {**own, "begin": shipped_prior(self.begin).digest}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Describe the prior.

        Raises
        ------
        ContractError
            Mel and recordings don't fit each other, or no mel of this spec can be undone.
        """
        spec = fitting_mel(inputs).spec
        if self.begin != RANDOM:
            check_prior(self.begin, shipped_prior(self.begin).spec, spec)
        if spec.wave:
            raise ContractError("a prior learns from recordings as they are: extract its mels without wave")
        to_linear(np.empty((spec.n_mels, 0)), spec)  # raises where no mel of this spec can be undone
        shortest = 2 * -(-spec.n_fft // spec.hop_length) + 1
        if self.unrolled and self.segment_frames < shortest:
            raise ParameterError(
                "segment_frames",
                f"must be at least {shortest} with unrolled, so that frames lie within, got {self.segment_frames!r}",
            )
        return TrainedPrior(spec=spec)

    def train(self, data: TrainingData, place: TrainingPlace, inputs: Mapping[str, Product]) -> Mapping[str, bytes]:
        """Train, resuming from what `place` holds; return the prior's file and others by name.

        Raises
        ------
        DeviceMissing
            This process lacks the device.
        StageError
            There is nothing to train with, the training diverged, or `place` holds the state of
            another training.
        """
        from melmill.stages.train.loop import train  # here, as they import torch
        from melmill.stages.train.prior_trainer import PriorTrainer

        recipe = recipe_of(self, PriorRecipe)
        return train(PriorTrainer(recipe, mel_of(inputs).spec), session_of(self, "prior", recipe), data, place)


def _check_grown(sizes: Sizes, prior: Prior) -> None:
    """Refuse sizes that can't compute what a prior computes."""
    for name, needed in prior.sizes.as_dict().items():
        value = getattr(sizes, name)
        if value != needed:
            raise ParameterError(name, f"must be {needed}, as of the prior that it begins with, got {value!r}")
    if sizes.head != prior.sizes.head and sizes.head < 2 * sizes.width:
        raise ParameterError("head", f"must be 0, or at least {2 * sizes.width} with begin, got {sizes.head!r}")
