"""The task over one shard: read the inputs, run the stage, write the product and its record."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from melmill.flows.execution.isolation import process_apart
from melmill.flows.pipeline.keys import utterance_seed
from melmill.flows.tasks.job import NodeJob, Source, Stopwatch
from melmill.flows.tasks.task import Receipt
from melmill.flows.tasks.trained import TrainedFiles
from melmill.flows.tasks.work import Ingesting, ItemT, Processing, SourceItem, Work, outcome_of
from melmill.stages.contract import IngestStage, Item, Outcome, Rejected, TrainedVocoder, rejection
from melmill.stages.ingest.levels import Levels
from melmill.stages.numeric.errors import DeviceMissing
from melmill.storage.files.sources import SourceTree
from melmill.storage.product import Quarantined, ShardContents
from melmill.storage.store import Store
from melmill.storage.utterance import Shard

# Pauses between attempts to read a source file, s.
READ_PAUSES_S = (0.1, 1.0)

# Number of utterances that a receipt names, so that it stays small.
NAMED_IN_RECEIPT = 10


@dataclass(frozen=True)
class _ShardWork(Generic[ItemT]):
    """What there is to do for a shard.

    `items` go through `work`. `absent` are the ids that an input lacks. `unreadable` holds, by id,
    why a file could not be read.
    """

    work: Work[ItemT]
    items: Sequence[ItemT]
    absent: Sequence[str] = ()
    unreadable: Mapping[str, Rejected] | None = None


@dataclass(frozen=True, kw_only=True)
class ShardJob(NodeJob):
    """The work of one node on one shard.

    For its other fields see `melmill.flows.tasks.job.NodeJob`.

    Parameters
    ----------
    ports : mapping of str to Source
        What is read at each port.
    catalogue : (str, str)
        Folder and key of the ingest node whose catalogue lists the utterances.
    shard : int
    isolated : bool
        Process the utterances one by one in a child process. An utterance that kills or hangs it is
        quarantined.
    time_limit_s : float or None
        Longest time that one isolated utterance may take, s.
    """

    ports: Mapping[str, Source]
    catalogue: tuple[str, str]
    shard: int
    isolated: bool = False
    time_limit_s: float | None = None

    def run(self) -> Receipt:
        """Do the work and commit it; return the receipt."""
        watch = Stopwatch()
        store = Store.open(self.store)
        shard = store.read_shard(*self.catalogue, self.shard)
        if isinstance(self.stage, IngestStage):
            return self._finish(watch, store, shard, self._files(self.stage, shard))
        return self._finish(watch, store, shard, self._arrays(store, shard))

    def _finish(self, watch: Stopwatch, store: Store, shard: Shard, todo: _ShardWork[ItemT]) -> Receipt:
        with watch.computing():
            outcomes = self._outcomes(todo)
        ids = [item.utterance.utterance_id for item in todo.items]
        contents = self._contents(dict(zip(ids, outcomes, strict=True)), todo)
        busy = [outcome.busy_s for outcome in outcomes if outcome.busy_s is not None]
        facts = watch.facts(self, busy_s=sum(busy) if busy else None)
        if isinstance(self.stage, IngestStage):
            facts = replace(facts, levels=Levels.of(contents.rows or ()).as_dict())
        record = self.node.in_store(store).commit(shard, contents, facts, watch.started_s)
        return watch.receipt(
            facts,
            n_utterances=record.n_utterances,
            n_quarantined=record.n_quarantined,
            quarantined=tuple(one.utterance_id for one in contents.quarantined[:NAMED_IN_RECEIPT]),
            audio_s=shard.duration_s,
        )

    def _files(self, stage: IngestStage, shard: Shard) -> _ShardWork[SourceItem]:
        """Read the source files of a shard."""
        tree = SourceTree(stage.root)
        items, unreadable = [], {}
        for utterance in shard.utterances:
            try:
                items.append(SourceItem(utterance=utterance, data=_read(tree, utterance.path)))
            except OSError as error:
                unreadable[utterance.utterance_id] = rejection(error)
        return _ShardWork(Ingesting(stage=stage), items, unreadable=unreadable)

    def _arrays(self, store: Store, shard: Shard) -> _ShardWork[Item]:
        """Read the arrays of a shard at every port."""
        arrays: dict[str, dict[str, NDArray[Any]]] = {}
        trained = None
        for port, source in self.ports.items():
            if isinstance(source.product, TrainedVocoder):
                trained = TrainedFiles(
                    store=self.store, name=source.name, folder=source.folder, key=source.key, product=source.product
                )
            else:
                arrays[port] = source.in_store(store).read_arrays(shard)
        items, absent = [], []
        for utterance in shard.utterances:
            utterance_id = utterance.utterance_id
            inputs = {port: by_id[utterance_id] for port, by_id in arrays.items() if utterance_id in by_id}
            if all(self.stage.inputs[port].absent_ok for port in arrays.keys() - inputs.keys()):
                items.append(Item(utterance=utterance, inputs=inputs, seed=utterance_seed(utterance_id)))
            else:
                absent.append(utterance_id)
        products = {port: source.product for port, source in self.ports.items()}
        work = Processing(stage=self.stage, inputs=products, product=self.node.product, trained=trained)
        return _ShardWork(work, items, absent)

    def _outcomes(self, todo: _ShardWork[ItemT]) -> list[Outcome]:
        """Return one outcome per item; an item that the stage can't process is rejected alone."""
        if not todo.items:
            return []
        # Opened here even where a child opens it again, so that no utterance is blamed if opening
        # fails.
        process = todo.work.opened()
        if self.isolated:
            return process_apart(todo.work, todo.items, self.time_limit_s)
        try:
            return list(process(todo.items))
        except DeviceMissing:
            raise
        except Exception:
            return [outcome_of(process, item) for item in todo.items]

    def _contents(self, outcomes: Mapping[str, Outcome], todo: _ShardWork[ItemT]) -> ShardContents:
        arrays, rows, traces = {}, [], {}
        rejected = dict(todo.unreadable or {})
        for utterance_id, outcome in outcomes.items():
            if outcome.rejected is not None:
                rejected[utterance_id] = outcome.rejected
                continue
            # The store refuses such an array, and with it the whole shard.
            if outcome.array is not None and not np.isfinite(outcome.array).all():
                n_bad = np.count_nonzero(~np.isfinite(outcome.array))
                rejected[utterance_id] = Rejected(
                    reason=f"{self.stage.uses} made {n_bad:,} of {outcome.array.size:,} values that are not finite"
                )
                continue
            if outcome.array is not None:
                arrays[utterance_id] = outcome.array
            if outcome.row is not None:
                rows.append({"utterance_id": utterance_id, **outcome.row})
            if outcome.trace is not None:
                traces[utterance_id] = outcome.trace
        quarantined = [
            Quarantined(
                utterance_id=utterance_id,
                node=self.node.name,
                stage=self.stage.uses,
                reason=one.reason,
                detail=one.detail,
            )
            for utterance_id, one in rejected.items()
        ]
        return ShardContents(
            arrays=arrays, rows=rows or None, traces=traces or None, quarantined=quarantined, absent=todo.absent
        )


def _read(tree: SourceTree, path: str) -> bytes:
    """Read a source file; try again after a pause if the file system fails, which often passes."""
    for pause_s in READ_PAUSES_S:
        try:
            return tree.read(path)
        except FileNotFoundError:
            raise
        except OSError:
            time.sleep(pause_s)
    return tree.read(path)
