"""What the stages that train share, without torch: ports, checks, identity, and how they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from melmill.stages.contract import Input, Kind, Mel, Product, Waveform
from melmill.stages.numeric.checks import check_int
from melmill.stages.numeric.errors import ContractError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Made = TypeVar("Made", bound=DataclassInstance)

INPUTS: Mapping[str, Input] = {
    "from": Input(kinds=frozenset({Kind.MEL})),
    "audio": Input(kinds=frozenset({Kind.WAVEFORM})),
}

# Values that counts of every training can have.
_COUNTS: Mapping[str, range] = {
    **dict.fromkeys(("steps", "save_every"), range(1, 1_000_000_001)),
    **dict.fromkeys(("batch_size", "segment_frames"), range(1, 65_537)),
    "held_out": range(1_000_001),
    "threads": range(1, 4_097),
}

# These fields say where it is computed and when it is saved, not what is learnt.
_NOT_IDENTITY = ("device", "threads", "save_every")


class TrainingFields(Protocol):
    """Fields that every stage that trains has."""

    uses: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def steps(self) -> int:
        """Steps to take."""
        ...

    @property
    def seed(self) -> int:
        """Seed of all draws, and of who is held out."""
        ...

    @property
    def held_out(self) -> int:
        """Speakers that are not trained with."""
        ...

    @property
    def save_every(self) -> int:
        """Steps between two saved states."""
        ...


@dataclass(frozen=True, kw_only=True)
class Session:
    """Say how a training is conducted, besides its recipe.

    Parameters
    ----------
    uses : str
        The stage that trains.
    name : str
        Name of what is trained, for its page and card.
    recipe : mapping of str to object
        What decides the result, for its page and card.
    steps, seed : int
        Steps to take; the seed that chooses who is held out.
    held_out : int
        Number of speakers that are not trained with.
    save_every : int
        Steps between two saved states. A check goes with each.
    """

    uses: str
    name: str
    recipe: Mapping[str, object]
    steps: int
    seed: int
    held_out: int
    save_every: int


def check_counts(stage: TrainingFields, own: Mapping[str, range]) -> None:
    """Raise ParameterError where a count is out of range: one that all trainings have, or a stage's own."""
    for name, allowed in {**_COUNTS, **own}.items():
        check_int(name, getattr(stage, name), at_least=allowed.start, at_most=allowed[-1])
    check_int("seed", stage.seed, at_least=0)


def learnt(stage: TrainingFields) -> Mapping[str, Any]:
    """Return the fields of a stage that decide what is learnt."""
    return {name: value for name, value in asdict(stage).items() if name not in _NOT_IDENTITY}


def fitting_mel(inputs: Mapping[str, Sequence[Product]]) -> Mel:
    """Return the mel of a training's inputs; raise ContractError where the recordings don't fit it."""
    (made,), (audio,) = inputs["from"], inputs["audio"]
    if not isinstance(made, Mel) or not isinstance(audio, Waveform):
        raise ContractError(f"'from' must be a mel and 'audio' recordings, got {made!r} and {audio!r}")
    if audio.sr != made.sr:
        raise ContractError(f"'audio' has {audio.sr} Hz, but the mels are of {made.sr} Hz: ingest at sr: {made.sr}")
    made.spec.check_invertible()  # a training changes the levels of mels
    if made.spec.below_max is not None or made.spec.per_utterance is not None:
        raise ContractError(
            "a training cuts segments, but below_max and per_utterance look at whole utterances: extract without them"
        )
    return made


def mel_of(inputs: Mapping[str, Product]) -> Mel:
    """Return the mel that a training reads."""
    made = inputs["from"]
    if not isinstance(made, Mel):
        raise ContractError(f"'from' must be a mel, got {made!r}")
    return made


def recipe_of(stage: TrainingFields, cls: type[Made]) -> Made:
    """Return a stage's fields as a recipe."""
    return cls(**{name: getattr(stage, name) for name in cls.__dataclass_fields__})


def session_of(stage: TrainingFields, name: str, recipe: DataclassInstance) -> Session:
    """Return how a stage trains something of a name."""
    return Session(
        uses=stage.uses,
        name=name,
        recipe={
            field: value
            for field, value in asdict(recipe).items()
            if field != "device" and (value or field not in ("init", "frozen"))
        },
        steps=stage.steps,
        seed=stage.seed,
        held_out=stage.held_out,
        save_every=stage.save_every,
    )
