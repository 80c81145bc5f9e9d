"""What a stage does with the utterances of a shard: decode their files, or process their arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from melmill.flows.pipeline.stage_files import ready
from melmill.flows.tasks.trained import TrainedFiles
from melmill.stages.contract import (
    FileStage,
    IngestStage,
    Item,
    OfUtterance,
    Outcome,
    Processor,
    Product,
    Stage,
    each,
    rejection,
)
from melmill.storage.utterance import Utterance

ItemT = TypeVar("ItemT", bound=OfUtterance)
ItemT_contra = TypeVar("ItemT_contra", bound=OfUtterance, contravariant=True)

# Returns one outcome per item, in order.
Process = Callable[[Sequence[ItemT]], Sequence[Outcome]]


def outcome_of(process: Process[ItemT], item: ItemT) -> Outcome:
    """Return the outcome of one item; an exception becomes a rejection."""
    try:
        (outcome,) = process([item])
    except Exception as error:
        return Outcome(rejected=rejection(error))
    return outcome


class Work(Protocol[ItemT_contra]):
    """The work of a stage on items; it can be pickled and opened in another process."""

    def opened(self) -> Callable[[Sequence[ItemT_contra]], Sequence[Outcome]]:
        """Return what processes items in this process."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceItem:
    """An utterance with the bytes of its file, on its way into an ingest stage."""

    utterance: Utterance
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Ingesting:
    """Decode the files of utterances."""

    stage: IngestStage

    def opened(self) -> Process[SourceItem]:
        """Return what decodes one file after the other."""
        return lambda items: each(items, lambda item: self.stage.ingest(item.utterance, item.data))


@dataclass(frozen=True, kw_only=True)
class Processing:
    """Process arrays of utterances.

    Parameters
    ----------
    stage : Stage
    inputs : mapping of str to Product
        The product at each port.
    product : Product
        What the stage makes.
    trained : TrainedFiles or None
        Files of the training at one of the ports, which the stage computes with.
    processor : Processor or None
        What processes in place of the stage.
    """

    stage: Stage
    inputs: Mapping[str, Product]
    product: Product
    trained: TrainedFiles | None = None
    processor: Processor | None = None

    def opened(self) -> Process[Item]:
        """Return what processes items, with the stage's files opened.

        Raises
        ------
        FileChanged
            A file is gone, or holds other bytes than when the run was planned.
        DeviceMissing
            This process lacks the device.
        """
        processor: Processor
        if self.processor is not None:
            processor = self.processor
        elif self.trained is not None and isinstance(self.stage, FileStage):
            processor = self.trained.opened(self.stage)
        else:
            processor = ready(self.stage)
        return lambda items: processor.process(items, self.inputs, self.product)
