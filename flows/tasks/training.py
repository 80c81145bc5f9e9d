"""The task of a training: learn from a whole corpus, resume if stopped, and commit the result."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, cast

from melmill.cluster.process import threads_limited
from melmill.flows.pipeline.stage_files import ready
from melmill.flows.tasks.job import NodeJob, Source, Stopwatch
from melmill.flows.tasks.task import Receipt
from melmill.flows.tasks.trained import TRAINED
from melmill.stages.contract import Mel, Product, ReducingStage, Trained, TrainingStage, Waveform
from melmill.stages.numeric.errors import StageError
from melmill.stages.task_context import check_still_wanted, report_line
from melmill.storage.catalogue import Catalogue
from melmill.storage.files.location import Location
from melmill.storage.product import Address
from melmill.storage.reading.corpus_arrays import StoredCorpusArrays
from melmill.storage.reading.segments import Segments
from melmill.storage.reading.views import ProductView
from melmill.storage.store import Store
from melmill.storage.utterance import Utterance

STATE = "state"
UTTERANCES = "utterances.txt"
LOG = "log.txt"


class TrainingFolder:
    """Keep a training's state, its utterances and its log in the folder ``training``.

    A stopped training resumes from the state. When the training is done, the state and the
    utterances are removed. The log stays.

    Parameters
    ----------
    product : Location
        Folder of the training's product.
    name : str
        Name of the node, which each reported line begins with.
    """

    def __init__(self, product: Location, name: str) -> None:
        self._location = product / "training"
        self._name = name

    def load(self) -> bytes | None:
        """Return the state that was saved last; None for a fresh start."""
        return self._content(STATE)

    def save(self, state: bytes) -> None:
        """Replace the saved state, atomically and durably.

        Raises
        ------
        TaskCancelled
            The state is saved, but nobody waits for the task any more.
        """
        self._location.replace(STATE, state)
        check_still_wanted()

    def note(self, line: str) -> None:
        """Show a line to the person who started the run and append it to the log.

        Raises
        ------
        TaskCancelled
            Nobody waits for the task any more.
        """
        check_still_wanted()
        self._location.replace(LOG, self.log + f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}\n".encode())
        report_line(f"{self._name}: {line}")

    @property
    def log(self) -> bytes:
        """All lines that were noted, each with its time."""
        return self._content(LOG) or b""

    @property
    def stamp(self) -> str | None:
        """A stamp that changes whenever a state is saved; None where there is no state."""
        return self._location.stamp(STATE)

    def begin(self, ids: Sequence[str]) -> Collection[str]:
        """Return the ids to learn from: `ids`, or those that the saved state began with.

        A corpus may grow while a training is stopped, and must not change it. If the inputs lost
        utterances that the training began with, it starts over.
        """
        if self.stamp is not None:
            first = (self._content(UTTERANCES) or b"").decode().splitlines()
            n_lost = len(set(first).difference(ids))
            if first and not n_lost:
                return first
            self.note(f"starts over: {n_lost or 'all'} of the utterances that it began with are not in its inputs now")
            self._location.remove(STATE)
        self._location.replace(UTTERANCES, "".join(f"{name}\n" for name in ids).encode())
        return ids

    def _content(self, name: str) -> bytes | None:
        try:
            return self._location.read(name)
        except FileNotFoundError:
            return None

    def end(self) -> None:
        """Remove the state and the utterances, which nobody will resume from."""
        self._location.remove(STATE)
        self._location.remove(UTTERANCES)


def _row(catalogue: Catalogue, utterance_id: str) -> str:
    """Return the id of an utterance, with its shard if that is not its first row.

    So a training that was stopped starts over if an utterance that it began with has changed.
    """
    return f"{utterance_id}\t{catalogue.shard_of(utterance_id)}" if catalogue.is_remade(utterance_id) else utterance_id


@dataclass(frozen=True, kw_only=True)
class TrainingJob(NodeJob):
    """The work of a training or a reduction; for its other fields see `melmill.flows.tasks.job.NodeJob`.

    Parameters
    ----------
    stage : TrainingStage or ReducingStage
    ports : mapping of str to Source
        Mels, and the audio that they were made from. A reduction has one port.
    catalogue : (str, str)
        Folder and key of the ingest node whose catalogue lists the utterances.
    """

    resumes: ClassVar[bool] = True

    stage: TrainingStage | ReducingStage
    ports: Mapping[str, Source]
    catalogue: Address

    def run(self) -> Receipt:
        """Do the work, from the saved state where there is one, and commit the files; return the receipt.

        Raises
        ------
        StageError
            The stage did not return the files that its product has.
        TaskCancelled
            The run that started the task is gone.
        """
        watch = Stopwatch()
        store = Store.open(self.store)
        catalogue = store.catalogue_at(self.catalogue)
        folder = self._folder(store)
        views = {
            type(source.product): ProductView(store.location, source.name, source.in_store(store), catalogue)
            for source in self.ports.values()
        }
        reduces = isinstance(self.stage, ReducingStage)
        utterances, files = (self._reduced if reduces else self._trained)(watch, views, catalogue, folder)
        made = self.node.product
        missing = set(made.files.values()) - files.keys() if isinstance(made, Trained) else set()
        if missing:
            method = "reduce()" if reduces else "train()"
            raise StageError(
                f"stage {self.stage.uses!r}: {method} must return a file {min(missing)!r}, got {sorted(files)}"
            )
        facts = watch.facts(self)
        audio_s = sum(utterance.duration_s for utterance in utterances)
        self.node.in_store(store).commit_files(
            TRAINED,
            files,
            facts,
            watch.started_s,
            folder=TRAINED,
            n_utterances=catalogue.n_utterances,
            n_retired=catalogue.revisions.n_retired,
            duration_s=audio_s,
        )
        folder.end()
        return watch.receipt(facts, n_utterances=len(utterances), audio_s=audio_s)

    def _trained(
        self, watch: Stopwatch, views: Mapping[type, ProductView], catalogue: Catalogue, folder: TrainingFolder
    ) -> tuple[Sequence[Utterance], Mapping[str, bytes]]:
        """Return the utterances that were learnt from, and the files."""
        mel, audio = views[Mel], views[Waveform]
        begun = folder.begin([_row(catalogue, utterance.utterance_id) for utterance in Segments(mel, audio).utterances])
        data = Segments(mel, audio, [row.partition("\t")[0] for row in begun])
        with watch.computing(), threads_limited(cast("TrainingStage", self.stage).threads):
            stage = cast("TrainingStage", ready(self.stage))
            return data.utterances, stage.train(data, folder, self._products)

    def _reduced(
        self, watch: Stopwatch, views: Mapping[type, ProductView], catalogue: Catalogue, folder: TrainingFolder
    ) -> tuple[Sequence[Utterance], Mapping[str, bytes]]:
        """Return the utterances that were summed up, and the files."""
        (view,) = views.values()
        begun = folder.begin([_row(catalogue, name) for name in view])
        data = StoredCorpusArrays(view, [row.partition("\t")[0] for row in begun])
        with watch.computing(), threads_limited(1):
            stage = cast("ReducingStage", self.stage)
            return data.utterances, stage.reduce(data, folder, self._products)

    @property
    def _products(self) -> Mapping[str, Product]:
        return {port: source.product for port, source in self.ports.items()}

    def saved(self) -> str | None:
        """Return a stamp that changes whenever the training saves its state."""
        return self._folder(Store.open(self.store)).stamp

    def _folder(self, store: Store) -> TrainingFolder:
        return TrainingFolder(self.node.in_store(store).location, self.node.name)
