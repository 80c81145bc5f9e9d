"""A task as a worker runs it: read whole shards, compute, write whole shards, record."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from melmill.cluster.memory import peak_bytes, reset_peak
from melmill.flows.keys import utterance_seed
from melmill.flows.receipt import Receipt
from melmill.flows.stage_files import ready
from melmill.stages.at_work import enter, take_up
from melmill.stages.errors import DeviceMissing
from melmill.stages.stage import IngestStage, Item, Outcome, Product, Stage, rejection
from melmill.storage.product import Facts, Quarantined, ShardContents
from melmill.storage.sources import SourceTree
from melmill.storage.store import Store
from melmill.storage.utterance import Shard, Utterance

READ_PAUSES_S = (0.1, 1.0)

# A receipt stays small, whatever a shard's fate.
NAMED_IN_RECEIPT = 10

Process = Callable[[Sequence[Item]], Sequence[Outcome]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A product that a task reads: where it is and what it holds."""

    name: str
    folder: str
    key: str
    product: Product


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """One node's work on one shard: names and parameters, no data.

    Parameters
    ----------
    store : str
        URL of the store.
    node : Source
        What is made.
    stage : Stage
    ports : mapping of str to Source
        What is read at each port.
    catalogue : (str, str)
        Folder and key of the ingest node whose catalogue lists the utterances.
    shard : int
    attempt : int
    isolated : bool
        Process each utterance in a child process of its own, so that one that kills it is found and quarantined.
    """

    store: str
    node: Source
    stage: Stage
    ports: Mapping[str, Source]
    catalogue: tuple[str, str]
    shard: int
    attempt: int = 1
    isolated: bool = False

    def run(self) -> Receipt:
        """Do the work and commit it; return the receipt."""
        begun = Begun.now()
        store = Store.open(self.store)
        shard = store.read_shard(*self.catalogue, self.shard)
        items, absent, rejected = self._items(store, shard)
        enter("computing")
        clock_compute = time.perf_counter()
        outcomes = self._processed(items)
        compute_s = time.perf_counter() - clock_compute
        enter("writing")
        contents = self._contents(items, outcomes, absent, rejected)
        facts = begun.facts(compute_s, self.attempt)
        record = store.product(self.node.folder, self.node.key).commit(shard, contents, facts)
        return Receipt(
            n_utterances=record.n_utterances,
            n_quarantined=record.n_quarantined,
            quarantined=tuple(one.utterance_id for one in contents.quarantined[:NAMED_IN_RECEIPT]),
            audio_s=shard.duration_s,
            compute_s=compute_s,
            wall_s=begun.elapsed_s,
            peak_mem_bytes=facts.peak_mem_bytes,
            host=facts.host,
        )

    def _items(self, store: Store, shard: Shard) -> tuple[list[Item], list[str], list[Quarantined]]:
        """Return the items to process, the ids absent at an input, and those whose file can't be read."""
        if not self.ports:
            return self._file_items(shard)
        arrays: dict[str, dict[str, NDArray[Any]]] = {}
        for port, source in self.ports.items():
            arrays[port] = store.product(source.folder, source.key).read_arrays(shard)
        items, absent = [], []
        for utterance in shard.utterances:
            given = {
                port: found[utterance.utterance_id] for port, found in arrays.items() if utterance.utterance_id in found
            }
            missing = [port for port in self.ports if port not in given]
            if all(self.stage.inputs[port].absent_ok for port in missing):
                items.append(_item(utterance, given))
            else:
                absent.append(utterance.utterance_id)
        return items, absent, []

    def _file_items(self, shard: Shard) -> tuple[list[Item], list[str], list[Quarantined]]:
        tree = SourceTree(cast("IngestStage", self.stage).root)
        items, rejected = [], []
        for utterance in shard.utterances:
            try:
                data = np.frombuffer(_read(tree, utterance.path), dtype=np.uint8)
            except OSError as error:
                rejected.append(self._quarantined(utterance.utterance_id, Outcome(rejected=rejection(error))))
            else:
                items.append(_item(utterance, {"file": data}))
        return items, [], rejected

    def _processed(self, items: Sequence[Item]) -> list[Outcome]:
        if not items:
            return []
        # Opened here even where children open it again: what fails in this must not be blamed on an utterance.
        stage = ready(self.stage)
        inputs = {port: source.product for port, source in self.ports.items()}

        def process(some: Sequence[Item]) -> Sequence[Outcome]:
            return stage.process(some, inputs, self.node.product)

        if self.isolated:
            from melmill.flows.isolation import process_alone

            outcomes = []
            for item in items:
                take_up(item.utterance.utterance_id)
                outcomes.append(process_alone(self.stage, item, inputs, self.node.product))
            return outcomes
        try:
            return list(process(items))
        except DeviceMissing:
            raise
        except Exception:
            return [_one(process, item) for item in items]

    def _contents(
        self, items: Sequence[Item], outcomes: Sequence[Outcome], absent: list[str], rejected: list[Quarantined]
    ) -> ShardContents:
        arrays, rows, traces, quarantined = {}, [], {}, list(rejected)
        for item, outcome in zip(items, outcomes, strict=True):
            name = item.utterance.utterance_id
            if outcome.rejected is not None:
                quarantined.append(self._quarantined(name, outcome))
                continue
            if outcome.array is not None:
                arrays[name] = outcome.array
            if outcome.row is not None:
                rows.append({"utterance_id": name, **outcome.row})
            if outcome.trace is not None:
                traces[name] = outcome.trace
        return ShardContents(
            arrays=arrays, rows=rows or None, traces=traces or None, quarantined=quarantined, absent=absent
        )

    def _quarantined(self, utterance_id: str, outcome: Outcome) -> Quarantined:
        rejected = outcome.rejected
        if rejected is None:
            raise ValueError(f"{utterance_id} was not rejected")
        return Quarantined(
            utterance_id=utterance_id,
            node=self.node.name,
            stage=self.stage.uses,
            reason=rejected.reason,
            detail=rejected.detail,
        )


def _read(tree: SourceTree, path: str) -> bytes:
    """Read a source file, again after a pause where the file system fails: quarantine is for what stays bad."""
    for pause_s in READ_PAUSES_S:
        try:
            return tree.read(path)
        except FileNotFoundError:
            raise
        except OSError:
            time.sleep(pause_s)
    return tree.read(path)


def _item(utterance: Utterance, inputs: Mapping[str, NDArray[Any]]) -> Item:
    return Item(utterance=utterance, inputs=inputs, seed=utterance_seed(utterance.utterance_id))


def _one(process: Process, item: Item) -> Outcome:
    try:
        (outcome,) = process([item])
    except Exception as error:
        return Outcome(rejected=rejection(error))
    return outcome


@dataclass(frozen=True)
class Begun:
    """A task that began on this machine: the time of day, and the clock that it is measured by, s."""

    at: datetime
    clock: float

    @classmethod
    def now(cls) -> Begun:
        """Begin: memory is counted from here, too."""
        reset_peak()
        return cls(datetime.now(UTC), time.perf_counter())

    @property
    def elapsed_s(self) -> float:
        """Time since it began, s."""
        return time.perf_counter() - self.clock

    def facts(self, compute_s: float, attempt: int) -> Facts:
        """Return what the record of the task says of its making."""
        return Facts(
            compute_s=compute_s,
            started_at=self.at.isoformat(timespec="milliseconds"),
            host=platform.node(),
            attempt=attempt,
            versions=versions(),
            wall_s=self.elapsed_s,
            peak_mem_bytes=peak_bytes(),
        )


@cache
def versions() -> dict[str, str]:
    """Return the versions that results may depend on, for the record."""
    packages = ("melmill", "numba", "numpy", "scipy", "torch", "zarr")
    found = {"python": platform.python_version()}
    for package in packages:
        found[package] = version(package)
    return found
