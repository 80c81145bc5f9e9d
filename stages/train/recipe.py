"""The parameters of trainings, without torch, so that a plan needs none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from melmill.stages.numeric.prior import Sizes

Generator = Literal["vocos", "hifigan", "unfolded"]
GENERATORS: tuple[Generator, ...] = ("vocos", "hifigan", "unfolded")
Size = Literal["small", "base"]
SIZES: tuple[Size, ...] = ("small", "base")
Precision = Literal["float32", "bfloat16", "float16"]

# Role of the discriminators' file among those that a training begins with.
DISCRIMINATORS = "discriminators"

# In place of a prior's name: a training begins with weights drawn at random.
RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hold the parameters of a vocoder's training.

    `melmill.stages.train.vocoder_stage.TrainVocoder` documents and checks them.
    """

    generator: Generator
    size: Size
    steps: int
    batch_size: int
    segment_frames: int
    learning_rate: float | None
    adversarial_from: int | None
    discriminator_width: int
    phase_aug: bool
    ema: float
    seed: int
    precision: Precision
    device: str
    init: str | None = None
    frozen: tuple[str, ...] = ()

    def is_adversarial(self, step: int) -> bool:
        """Tell whether discriminators take part in a step, counted from 0."""
        return self.adversarial_from is not None and step >= self.adversarial_from


@dataclass(frozen=True, kw_only=True)
class PriorRecipe:
    """Hold the parameters of a prior's training.

    `melmill.stages.train.prior_stage.TrainPrior` documents and checks them.
    """

    width: int
    n_blocks: int
    kernel: int
    head: int
    begin: str
    steps: int
    batch_size: int
    segment_frames: int
    learning_rate: float
    compressed: float
    log: float
    squared: float
    n_updates: int
    unrolled: int
    speed: float
    gain_db: float
    tilt_db: float
    ema: float
    seed: int
    device: str

    def sizes(self) -> Sizes:
        """Return the sizes of the network. They are checked."""
        return Sizes(
            width=self.width, hidden=2 * self.width, n_blocks=self.n_blocks, kernel=self.kernel, head=self.head
        )
