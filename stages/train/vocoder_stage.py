"""The stage `train_vocoder`: aligned mels and recordings in, a vocoder out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from melmill.stages.contract import Input, Product, StageFiles, Trained, TrainedVocoder, TrainingData, TrainingPlace
from melmill.stages.invert.inversion import DEVICES, Device
from melmill.stages.numeric.checks import check_float, check_int, check_texts
from melmill.stages.numeric.contract import differences
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train.recipe import DISCRIMINATORS, GENERATORS, SIZES, Generator, Recipe, Size
from melmill.stages.train.stage import INPUTS, check_counts, fitting_mel, learnt, mel_of, recipe_of, session_of
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.companions import CONFIG, WEIGHTS, candidates
from melmill.stages.vocode.registry import family
from melmill.stages.vocode.shipped import located
from melmill.stages.vocode.stage import KnownFiles

_PRECISIONS = ("float32", "bfloat16", "float16")
_LAST_STEP = 1_000_000_000
FINE_TUNED = ("bigvgan", "hifigan", "univnet", "vocos")
"""Families whose checkpoints a training can begin with."""

# Fields of the mel that a checkpoint gets used to: mels of acoustic models are framed by their code.
_FRAMING = ("center", "pad_mode", "eps", "frames", "last_frame", "window")
# Fields that are in no key without a checkpoint.
_OF_INIT = ("init", "init_config", "init_discriminators", "frozen", "_known", "_files")
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
    init : str or None
        Checkpoint to begin with, a path or any URL that fsspec knows: of HiFi-GAN, BigVGAN, Vocos
        or UnivNet. It says the generator and its sizes, in place of `generator` and `size`. The
        result has its layout. Without a `learning_rate` a tenth of the usual one is taken.
    init_config : str or None
        Its configuration. None: what it says itself, then what lies beside it.
    init_discriminators : str or None
        Discriminators of the same training, as HiFi-GAN and BigVGAN write beside a generator
        (``do_02500000``), or a checkpoint of UnivNet. They learn by least squares, as there. None:
        fresh ones.
    frozen : tuple of str
        Patterns of names of its tensors that stay as they are, such as ``ups.*``.
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
    init: str | None = field(default=None, metadata={"place": True})
    init_config: str | None = field(default=None, metadata={"place": True})
    init_discriminators: str | None = field(default=None, metadata={"place": True})
    frozen: tuple[str, ...] = ()
    _known: KnownFiles | None = field(default=None, init=False)
    _files: StageFiles | None = field(default=None, init=False, repr=False, compare=False)

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
        for name in ("init_config", "init_discriminators", "frozen"):
            if getattr(self, name) and self.init is None:
                raise ParameterError(name, "is for a checkpoint to begin with: give init too")
        if self.init_discriminators and self.adversarial_from is None:
            raise ParameterError("init_discriminators", "needs adversarial_from: the step at which they join")
        if self.frozen:
            check_texts("frozen", self.frozen, "ups.*")

    def identity(self) -> Mapping[str, Any]:
        """Return the fields that decide what is learnt. A checkpoint is known by its digest."""
        own = {name: value for name, value in learnt(self).items() if name not in _OF_INIT}
        if self.init is None:
            return own
        given = ("discriminator_width",) if self.init_discriminators else ()
        own = {name: value for name, value in own.items() if name not in ("generator", "size", *given)}
        return {**own, "init": self.digest, "frozen": sorted(set(self.frozen))}

    @property
    def digest(self) -> str:
        """SHA-256 of the checkpoint's files; empty before they were read."""
        return "" if self._known is None else self._known.digest

    def files(self) -> Mapping[str, Sequence[str]]:
        """Return where the checkpoint and its companion files may be; see `FileStage`."""
        if self.init is None:
            return {}
        if self._known is not None:
            return {role: (url,) for role, url in self._known.urls.items()}
        others = {} if self.init_discriminators is None else {DISCRIMINATORS: (self.init_discriminators,)}
        return {**candidates(located(self.init), self.init_config), **others}

    def prepared(self, files: StageFiles, digest: str) -> TrainVocoder:
        """Return the stage with what it needs to know of its checkpoint.

        Raises
        ------
        VocoderError
            A file is missing or can't be read, or the files don't fit together.
        ParameterError
            The checkpoint is of a family that can't be fine-tuned.
        """
        from melmill.stages.train.discriminators import given_discriminators  # here, as they import torch
        from melmill.stages.vocode.files.checkpoint import read_files
        from melmill.stages.vocode.loaded import load

        asked = {WEIGHTS: self.init, CONFIG: self.init_config, DISCRIMINATORS: self.init_discriminators}
        for role, url in asked.items():
            if url is not None and role not in files:
                raise VocoderError(f"{url!r} does not exist or is a folder: name the file of the {role}")
        checkpoint = read_files(files)
        voc = load(checkpoint)
        if voc.family not in FINE_TUNED:
            raise ParameterError(
                "init", f"must be a checkpoint of {', '.join(FINE_TUNED)}, got {voc.name}, which is a {voc.family}"
            )
        if DISCRIMINATORS in files:
            given_discriminators(files[DISCRIMINATORS], checkpoint.config)
        urls = {role: file.url for role, file in files.items()}
        stage = copy(self)
        known = KnownFiles(digest=digest, name=voc.name, family=voc.family, spec=voc.spec, urls=urls)
        object.__setattr__(stage, "_known", known)
        return stage

    def trained(self, product: Trained, name: str, digest: str) -> TrainVocoder:
        """Raise ContractError: a training begins with a file."""
        raise ContractError(f"train_vocoder can't begin with {name!r}, which trains {product.called}: export it first")

    def opened(self, read: Callable[[], StageFiles]) -> TrainVocoder:
        """Return the stage with the bytes of its checkpoint; see `FileStage`."""
        stage = copy(self)
        object.__setattr__(stage, "_files", read())
        return stage

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Describe the vocoder.

        Raises
        ------
        ContractError
            Mel, recordings and generator don't fit each other.
        """
        spec = fitting_mel(inputs).spec
        name = self.generator if self._known is None else self._known.family
        if self._known is not None:
            _check_init(self._known, spec)
        training = family(name).training
        reason = None if training is None else training.refuses(spec)
        if reason is not None:
            raise ContractError(f"generator: {name} {reason}")
        shortest = -(-2 * spec.n_fft // spec.hop_length)
        if self.segment_frames < shortest:
            raise ParameterError(
                "segment_frames",
                f"must be at least {shortest}, twice the FFT size of {spec.n_fft}, got {self.segment_frames!r}",
            )
        return TrainedVocoder(family=name, spec=spec)

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
        if self._known is not None:
            recipe = replace(recipe, init=f"{self._known.name}, sha256 {self._known.digest[:16]}")
        name = f"{self.generator} {self.size}" if self._known is None else f"{self._known.family} fine-tuned"
        session = session_of(self, name, recipe)
        return train(VocoderTrainer(recipe, mel_of(inputs).spec, self._files), session, data, place)


def _check_init(known: KnownFiles, spec: MelSpec) -> None:
    """Raise ContractError where mels are not those of a checkpoint, framing aside."""
    wrong = [one for one in differences(spec, known.spec) if one.field not in _FRAMING]
    if wrong:
        differing = "; ".join(f"{one.field} is {one.a!r}, needed {one.b!r}" for one in wrong)
        raise ContractError(f"init: {known.name} was trained with another mel: {differing}")
