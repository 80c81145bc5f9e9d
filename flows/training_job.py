"""The task in the middle of a run that learns from a whole corpus."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from melmill.cluster.memory import reset_peak
from melmill.cluster.threads import threads_raised
from melmill.flows.job import Source, facts_of
from melmill.flows.pools import device
from melmill.flows.receipt import Receipt
from melmill.flows.trained import ROLES, TRAINED
from melmill.flows.training_place import TrainingFolder
from melmill.stages.at_work import enter
from melmill.stages.errors import StageError
from melmill.stages.stage import Mel, TrainingStage, Waveform
from melmill.storage.catalogue import Catalogue
from melmill.storage.product import ProductFolder
from melmill.storage.segments import Segments
from melmill.storage.store import Store
from melmill.storage.view import ProductView


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
        missing = set(ROLES.values()) - files.keys()
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
