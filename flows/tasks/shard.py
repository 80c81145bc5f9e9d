"""A task as a worker runs it: read whole shards, compute, write whole shards, record."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from melmill.cluster.process import peak_bytes, reset_peak
from melmill.flows.pipeline.keys import utterance_seed
from melmill.flows.pipeline.pools import CPU, device
from melmill.flows.pipeline.stage_files import ready
from melmill.flows.tasks.receipt import Receipt
from melmill.flows.tasks.trained import Trained
from melmill.stages.contract import IngestStage, Item, Outcome, Product, Stage, TrainedVocoder, rejection
from melmill.stages.numeric.errors import DeviceMissing
from melmill.stages.task_context import enter
from melmill.storage.files.sources import SourceTree
from melmill.storage.product import Facts, Quarantined, ShardContents
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
    pool : str
        Workers that it is for, in words.
    attempt : int
    isolated : bool
        Process the utterances one by one in a child process, so that one that kills or stops it is found and
        quarantined.
    time_limit_s : float or None
        Longest that one isolated utterance may take, s.
    """

    store: str
    node: Source
    stage: Stage
    ports: Mapping[str, Source]
    catalogue: tuple[str, str]
    shard: int
    pool: str = ""
    attempt: int = 1
    isolated: bool = False
    time_limit_s: float | None = None

    def run(self) -> Receipt:
        """Do the work and commit it; return the receipt."""
        reset_peak()
        started, clock = datetime.now(UTC), time.perf_counter()
        store = Store.open(self.store)
        shard = store.read_shard(*self.catalogue, self.shard)
        items, absent, rejected = self._items(store, shard)
        enter("computing")
        clock_compute = time.perf_counter()
        outcomes = self._processed(items)
        compute_s = time.perf_counter() - clock_compute
        enter("writing")
        contents = self._contents(items, outcomes, absent, rejected)
        facts = facts_of(
            started, compute_s, self.attempt, pool=self.pool, device=device(self.stage), busy_s=_busy_s(outcomes)
        )
        record = store.product(self.node.folder, self.node.key).commit(shard, contents, facts, clock)
        return Receipt(
            n_utterances=record.n_utterances,
            n_quarantined=record.n_quarantined,
            quarantined=tuple(one.utterance_id for one in contents.quarantined[:NAMED_IN_RECEIPT]),
            audio_s=shard.duration_s,
            compute_s=compute_s,
            wall_s=time.perf_counter() - clock,
            peak_mem_bytes=facts.peak_mem_bytes,
            host=facts.host,
        )

    def _items(self, store: Store, shard: Shard) -> tuple[list[Item], list[str], list[Quarantined]]:
        """Return the items to process, the ids absent at an input, and those whose file can't be read."""
        if not self.ports:
            return self._file_items(shard)
        arrays: dict[str, dict[str, NDArray[Any]]] = {}
        for port, source in self.ports.items():
            if not isinstance(source.product, TrainedVocoder):
                arrays[port] = store.product(source.folder, source.key).read_arrays(shard)
        items, absent = [], []
        for utterance in shard.utterances:
            given = {
                port: found[utterance.utterance_id] for port, found in arrays.items() if utterance.utterance_id in found
            }
            missing = [port for port in arrays if port not in given]
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
        trained = self._trained()
        stage = ready(self.stage, trained)
        inputs = {port: source.product for port, source in self.ports.items()}

        def process(some: Sequence[Item]) -> Sequence[Outcome]:
            return stage.process(some, inputs, self.node.product)

        if self.isolated:
            from melmill.flows.execution.isolation import process_apart

            return process_apart(self.stage, items, inputs, self.node.product, self.time_limit_s, trained)
        try:
            return list(process(items))
        except DeviceMissing:
            raise
        except Exception:
            return [_one(process, item) for item in items]

    def _trained(self) -> Trained | None:
        """Return where the files of a training at one of the ports are; None where there is none."""
        for source in self.ports.values():
            if isinstance(source.product, TrainedVocoder):
                return Trained(
                    store=self.store, name=source.name, folder=source.folder, key=source.key, product=source.product
                )
        return None

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


def facts_of(
    started: datetime, compute_s: float, attempt: int, *, pool: str, device: str = CPU, busy_s: float | None = None
) -> Facts:
    """Return what the record of a task of this process and thread says of its making."""
    return Facts(
        compute_s=compute_s,
        started_at=started.isoformat(timespec="milliseconds"),
        host=platform.node(),
        attempt=attempt,
        versions=versions(),
        pool=pool,
        device=_called(device),
        # The threads of a process have a core each, but share its GPU.
        worker=f"{os.getpid()}-{threading.get_native_id()}" if device == CPU else f"{os.getpid()}",
        busy_s=busy_s,
        peak_mem_bytes=peak_bytes(),
    )


def _called(device: str) -> str:
    if device == CPU:
        return device
    from melmill.stages.numeric.batched.placement import device_name  # here, as it imports torch

    return device_name(device)


def _busy_s(outcomes: Sequence[Outcome]) -> float | None:
    """Return what the device was at work, s; None where the stage does not say."""
    measured = [outcome.busy_s for outcome in outcomes if outcome.busy_s is not None]
    return sum(measured) if measured else None


@cache
def versions() -> dict[str, str]:
    """Return the versions that results may depend on, for the record."""
    packages = ("melmill", "numba", "numpy", "scipy", "torch", "zarr")
    found = {"python": platform.python_version()}
    for package in packages:
        found[package] = version(package)
    return found
