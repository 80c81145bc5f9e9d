"""The task in the middle of a run that learns from a whole corpus.

- Where a training keeps what it resumes from, beside its product.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from melmill.cluster.threads import threads_raised
from melmill.cluster.workers import reset_peak
from melmill.flows.pipeline.pools import device
from melmill.flows.tasks.receipt import Receipt
from melmill.flows.tasks.shard import Source, facts_of
from melmill.flows.tasks.trained import TRAINED
from melmill.stages.contract import Mel, TrainingStage, Waveform
from melmill.stages.errors import StageError
from melmill.stages.task_context import check_wanted, enter, say
from melmill.stages.vocode.files.companions import TRAINED_FILES
from melmill.storage.catalogue import Catalogue
from melmill.storage.files.location import Location
from melmill.storage.product import ProductFolder
from melmill.storage.reading.segments import Segments
from melmill.storage.reading.views import ProductView
from melmill.storage.store import Store

STATE = "state"
UTTERANCES = "utterances.txt"
LOG = "log.txt"


class TrainingFolder:
    """Keep the state of a training, the utterances that it began with, and a log, in the folder ``training``.

    Nothing in it counts as a result: it goes when there is one, but for the log.

    Parameters
    ----------
    product : Location
        Folder of the training's product.
    name : str
        Of its node, for people.
    """

    def __init__(self, product: Location, name: str) -> None:
        self._location = product / "training"
        self._name = name

    def load(self) -> bytes | None:
        """Return the state that was saved last; None for a fresh start."""
        try:
            return self._location.read(STATE)
        except FileNotFoundError:
            return None

    def save(self, state: bytes) -> None:
        """Keep a state in place of the last one, atomically and durably; raise Unwanted where nobody waits for it."""
        self._location.replace(STATE, state)
        check_wanted()

    def note(self, line: str) -> None:
        """Tell people how it goes, and keep the line in the log; raise Unwanted where nobody waits for it."""
        check_wanted()
        self._location.replace(LOG, self.log + f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}\n".encode())
        say(f"{self._name}: {line}")

    @property
    def log(self) -> bytes:
        """All that was noted, a line each with its time."""
        try:
            return self._location.read(LOG)
        except FileNotFoundError:
            return b""

    @property
    def stamp(self) -> str | None:
        """What changes when a state is saved; None where there is none."""
        return self._location.stamp(STATE)

    def begin(self, found: Sequence[str]) -> Collection[str]:
        """Return the ids to learn from: those found, or where a state was saved those that it began with.

        A corpus may grow while a training rests, and must not change under it. Where utterances that it began with are
        lost, it begins anew.
        """
        if self.stamp is not None:
            begun = self._begun()
            lost = len(set(begun).difference(found))
            if begun and not lost:
                return begun
            self.note(f"begins anew: {lost or 'all'} of the utterances that it began with are not in its inputs now")
            self._location.remove(STATE)
        self._location.replace(UTTERANCES, "".join(f"{name}\n" for name in found).encode())
        return found

    def _begun(self) -> list[str]:
        try:
            return self._location.read(UTTERANCES).decode().splitlines()
        except FileNotFoundError:
            return []

    def end(self) -> None:
        """Remove what nobody will resume from."""
        self._location.remove(STATE)
        self._location.remove(UTTERANCES)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Everything that a training needs: names and parameters, no data.

    Parameters
    ----------
    store : str
        URL of the store.
    node : Source
        What is made.
    stage : TrainingStage
    ports : mapping of str to Source
        Mels and the audio that they are of.
    catalogue : (str, str)
        Folder and key of the ingest node whose catalogue lists the utterances.
    pool : str
        Workers that it is for, in words.
    attempt : int
    """

    store: str
    node: Source
    stage: TrainingStage
    ports: Mapping[str, Source]
    catalogue: tuple[str, str]
    pool: str = ""
    attempt: int = 1

    def run(self) -> Receipt:
        """Train, from the start or from the state saved last, and commit what it made; return the receipt.

        Raises
        ------
        StageError
            The stage did not return what others load a vocoder of.
        Unwanted
            Whoever ran it is gone.
        """
        reset_peak()
        started, clock = datetime.now(UTC), time.perf_counter()
        store = Store.open(self.store)
        catalogue = store.product(*self.catalogue).read_catalogue()
        data, place = self._data(store, catalogue), self._place(store)
        enter("computing")
        clock_compute = time.perf_counter()
        with threads_raised(self.stage.threads):
            files = self.stage.train(data, place, {port: source.product for port, source in self.ports.items()})
        compute_s = time.perf_counter() - clock_compute
        missing = set(TRAINED_FILES.values()) - files.keys()
        if missing:
            raise StageError(f"stage {self.stage.uses!r} returned no {min(missing)} (it returned {sorted(files)})")
        enter("writing")
        facts = facts_of(started, compute_s, self.attempt, pool=self.pool, device=device(self.stage))
        duration_s = sum(utterance.duration_s for utterance in data.utterances)
        self._folder(store).commit_files(
            TRAINED,
            files,
            facts,
            clock,
            folder=TRAINED,
            n_utterances=catalogue.n_utterances,
            duration_s=duration_s,
        )
        place.end()
        return Receipt(
            n_utterances=len(data.utterances),
            n_quarantined=0,
            audio_s=duration_s,
            compute_s=compute_s,
            wall_s=time.perf_counter() - clock,
            peak_mem_bytes=facts.peak_mem_bytes,
            host=facts.host,
        )

    def saved(self) -> str | None:
        """Return what changes whenever it has come further."""
        return self._place(Store.open(self.store)).stamp

    def _folder(self, store: Store) -> ProductFolder:
        return store.product(self.node.folder, self.node.key)

    def _place(self, store: Store) -> TrainingFolder:
        return TrainingFolder(self._folder(store).location, self.node.name)

    def _data(self, store: Store, catalogue: Catalogue) -> Segments:
        views = {
            type(source.product): ProductView(
                store.location, source.name, store.product(source.folder, source.key), catalogue
            )
            for source in self.ports.values()
        }
        mel, audio = views[Mel], views[Waveform]
        found = [utterance.utterance_id for utterance in Segments(mel, audio).utterances]
        return Segments(mel, audio, self._place(store).begin(found))
