"""Workloads of a corpus too large to be made: a catalogue without files, and records of its first shards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.noop import MTIME_NS, SR
from benchmarks.thousand_hours import fill
from melmill.cluster.process import peak_bytes, reset_peak
from melmill.flows.execution.prepare import describe, prepare_store, publish_manifest
from melmill.flows.execution.run import OPEN_PER_SLOT
from melmill.flows.execution.window import ShardWindow
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import Plan, make_plan
from melmill.storage.corpus.new_rows import write_part
from melmill.storage.corpus.parts import SCHEMA, part_name
from melmill.storage.corpus.shards import read_shard
from melmill.storage.product import CATALOGUE
from melmill.storage.store import Store
from melmill.storage.tables import ROW_GROUP, from_numpy

_EACH = 50
_DURATION_S = 6.0
_SHARD_S = 300.0


def make_store(folder: str, n_utterances: int, n_recorded: int) -> None:
    """Make a store with the catalogue of a corpus, and with records of the first `n_recorded` shards."""
    pipeline = load(Path(folder) / "pipeline.yaml")
    nodes, store = build_graph(pipeline), Store.create(pipeline.store, pipeline.name)
    corpus = next(node for node in nodes.values() if not node.inputs)
    location = store.product(corpus.folder, corpus.key).location / CATALOGUE
    location.make()
    schema = SCHEMA.with_metadata({"sr": str(SR), "shard_duration_s": repr(_SHARD_S)})
    write_part(f"{location.url}/{part_name(0)}", schema, lambda names: _tables(schema, n_utterances, names))
    shards = [read_shard(location, index) for index in range(n_recorded)]
    for node in nodes.values():
        product = store.product(node.folder, node.key)
        product.prepare(describe(node, nodes, pipeline.shard_duration_s), 0)
        fill(product, node, shards, Path(folder) / "data")
        product.pack()


def _tables(schema: pa.Schema, n_utterances: int, names: list[str] | None) -> Iterator[pa.Table]:
    """Yield rows as `benchmarks.noop.NoopCorpus` finds them, with short texts."""
    for first in range(0, n_utterances, ROW_GROUP):
        made = _columns(np.arange(first, min(first + ROW_GROUP, n_utterances)), set(names or SCHEMA.names))
        wanted = pa.schema([SCHEMA.field(name) for name in names or SCHEMA.names], schema.metadata)
        yield pa.table([made[name] for name in wanted.names], schema=wanted)


def _columns(i: np.ndarray[Any, np.dtype[np.int64]], names: set[str]) -> dict[str, pa.Array]:
    n_samples = int(_DURATION_S * SR)

    def text(numbers: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
        return from_numpy(numbers).cast(pa.string())

    shard = i // _EACH
    numbers = {
        **dict.fromkeys(("size_bytes", "source_n_samples", "n_samples"), n_samples),
        **dict.fromkeys(("source_sr", "sr"), SR),
        "mtime_ns": MTIME_NS,
        "shard": shard,
        "slot": shard,
        "n_slots": 1,
        "start": i % _EACH * n_samples,
    }
    made = {name: from_numpy(np.broadcast_to(numbers[name], i.shape)) for name in names & numbers.keys()}
    if "duration_s" in names:
        made["duration_s"] = from_numpy(np.full(len(i), _DURATION_S))
    made |= dict.fromkeys(names & {"subset", "text", "sex", "speaker_name"}, pa.array([""] * len(i), pa.string()))
    speaker, chapter = text(i // 5000), text(i // _EACH)
    made |= {"speaker_id": speaker, "chapter_id": chapter}
    if names & {"utterance_id", "path"}:
        name = pc.binary_join_element_wise(speaker, chapter, pc.utf8_lpad(text(i), 8, "0"), "-")
        made["utterance_id"] = name
        path = pc.binary_join_element_wise("train", speaker, chapter, name, "/")
        made["path"] = pc.binary_join_element_wise(path, "flac", ".")
    return made


def first_task(folder: str, n_handed_out: int) -> dict[str, Any]:
    """Plan what is catalogued, prepare the store, and hand out tasks; tell when the first one was."""
    started = time.perf_counter()
    plan = make_plan(load(Path(folder) / "pipeline.yaml"), as_catalogued=True)
    store = prepare_store(plan)
    publish_manifest(plan, store, partial=False)
    window = _window(plan)
    first = window.take("cpu")
    first_s = time.perf_counter() - started
    assert first is not None
    window.finish(first)
    reset_peak()
    before, started = peak_bytes(), time.perf_counter()
    for _ in range(n_handed_out):
        task = window.take("cpu")
        assert task is not None
        window.finish(task)
    return {
        "first": f"{first.node} {first.shard}",
        "first_s": first_s,
        "n_pending": plan.n_pending,
        "n_tasks": plan.n_tasks,
        "task_s": (time.perf_counter() - started) / n_handed_out,
        "grown_bytes": peak_bytes() - before,
    }


def _window(plan: Plan) -> ShardWindow:
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    pending = {name: node_plan.pending for name, node_plan in plan.nodes.items()}
    return ShardWindow(nodes, pending, max_open=OPEN_PER_SLOT * 1000)


def records(folder: str) -> dict[str, Any]:
    """Look at all records; return the processor time of each, without what is loaded once."""
    pipeline = load(Path(folder) / "pipeline.yaml")
    store = Store.open(pipeline.store)
    first, *others = (store.product(node.folder, node.key) for node in build_graph(pipeline).values())
    first.inventory()
    started = time.process_time()
    n_records = sum(product.inventory().n_records for product in others)
    return {"n_records": n_records, "record_s": (time.process_time() - started) / n_records}


def whole_plan(folder: str) -> dict[str, Any]:
    """Compare the catalogue with its corpus, and plan."""
    plan = make_plan(load(Path(folder) / "pipeline.yaml"))
    return {"n_pending": plan.n_pending, "n_utterances": plan.n_utterances}
