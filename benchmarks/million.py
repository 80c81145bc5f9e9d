"""Workloads of a million utterances: plan, window of shards, executor, listing of records."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from melmill.cluster.process import peak_bytes, reset_peak
from melmill.flows.execution.dask import run_dask
from melmill.flows.execution.run import OPEN_PER_SLOT
from melmill.flows.execution.window import ShardWindow
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import Plan, make_plan
from melmill.flows.tasks.job import Job
from melmill.flows.tasks.task import Receipt, Task
from melmill.flows.watching.observers import Watching, observed
from melmill.stages.ingest.readers.librispeech import LibriSpeech
from melmill.storage.files.location import Location
from melmill.storage.files.sources import SourceTree
from melmill.storage.records import Record, RecordedFolder, StoredFile, record_file, record_name
from melmill.storage.store import Store

# A file may have 65,000 names on ext4.
_NAMES_EACH = 60_000
# More slots than there are shards: each task goes alone.
_MANY_SLOTS = 10**12


@dataclass(frozen=True)
class NoopJob(Job):
    """Do nothing, and report a shard of 300 s that took no time."""

    store: str
    task: Task

    def run(self) -> Receipt:
        """Return the receipt."""
        return Receipt(
            n_utterances=50, n_quarantined=0, audio_s=300.0, compute_s=0.0, wall_s=0.001, peak_mem_bytes=0, host=""
        )


def write_pipeline(folder: str, n_utterances: int, n_nodes: int) -> None:
    """Write a pipeline of a chain of stages that do nothing."""
    names = ["speech", *(f"node{i}" for i in range(1, n_nodes))]
    lines = [f"  {names[0]}: {{uses: noop_corpus, n_utterances: {n_utterances}}}"]
    lines += [f"  {name}: {{uses: noop, from: {source}}}" for source, name in pairwise(names)]
    head = f"name: million\nstore: {folder}/store\nshard_duration_s: 300\nstages:\n"
    (Path(folder) / "pipeline.yaml").write_text(head + "\n".join(lines) + "\n")


def frontier(folder: str) -> dict[str, Any]:
    """Hand out and finish every task, without doing any."""
    plan = make_plan(load(Path(folder) / "pipeline.yaml"))
    tasks = _frontier(plan, plan.n_tasks, 8)
    started, n_tasks = time.perf_counter(), 0
    while not tasks.done:
        task = tasks.take("cpu")
        if task is not None:
            tasks.finish(task)
            n_tasks += 1
    return {"n_tasks": n_tasks, "task_s": (time.perf_counter() - started) / n_tasks}


class Unfused(ShardWindow):
    """Hand out chains of one task each."""

    def take_chain(self, pool: str, n_slots: int | None = None) -> tuple[Task, ...]:
        """Return the next task."""
        return super().take_chain(pool, n_slots and _MANY_SLOTS)

    def take_next(self, pool: str, n_slots: int | None = None) -> tuple[Task, ...]:
        """Return a task that waits for others."""
        return super().take_next(pool, n_slots and _MANY_SLOTS)


def stream(folder: str, address: str, workers: int, n_tasks: int, fused: bool) -> dict[str, Any]:
    """Run tasks that do nothing through the executor, with all observers.

    Return the wall time, this process's CPU time, and by how much its memory grew.
    """
    cluster = f"cluster={{type: address, address: '{address}', pools: {{cpu: {{workers: {workers}}}}}}}"
    plan = make_plan(load(Path(folder) / "pipeline.yaml", [cluster]))
    store = Store.create(plan.pipeline.store, plan.pipeline.name)
    run_id = f"stream-{n_tasks}-{os.getpid()}"
    tasks = _frontier(plan, n_tasks, workers, ShardWindow if fused else Unfused)
    reset_peak()
    before, started, started_cpu = peak_bytes(), time.perf_counter(), time.process_time()
    with observed(plan, store, run_id, "dask", workers, Watching()) as announce:
        run_dask(tasks, lambda task, attempt, isolated: _job(folder, task), announce, plan.pipeline.cluster)
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - started_cpu,
        "grown_bytes": peak_bytes() - before,
    }


def _job(store: str, task: Task) -> Job:
    return NoopJob(store, task)


def _frontier(plan: Plan, n_tasks: int, slots: int, window: type[ShardWindow] = ShardWindow) -> ShardWindow:
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    shards = set(range(-(-n_tasks // len(nodes))))
    pending = {name: plan.nodes[name].pending & shards for name in nodes}
    return window(nodes, pending, max_open=OPEN_PER_SLOT * slots)


def make_records(folder: str, n_records: int) -> None:
    """Make a folder with the records of a node. Many names are hard links to one file."""
    record = Record(
        node="node", key="0" * 20, name="000000", n_utterances=50, absent=(), n_quarantined=0,
        files={"data/c/0": StoredFile.of(b"")}, duration_s=300.0, compute_s=1.0, started_at="2026-01-01T12:00:00+00:00",
        host="worker-0.example", attempt=1, versions={"melmill": "0.1.0", "numpy": "2.2.6", "python": "3.11.9"},
    )  # fmt: skip
    records = Path(folder) / "records"
    records.mkdir(parents=True)
    for index in range(n_records):
        if index % _NAMES_EACH == 0:
            source = f"{folder}/record-{index}"
            Path(source).write_bytes(record.to_json())
        os.link(source, f"{folder}/{record_file(record_name(index))}")


def make_corpus(folder: str, n_files: int) -> None:
    """Make a corpus in LibriSpeech's layout whose recordings are hard links to empty files."""
    for index in range(n_files):
        if index % _NAMES_EACH == 0:
            source = f"{folder}/empty-{index}"
            Path(source).write_bytes(b"")
        speaker, chapter, number = 1000 + index // 5_000, 100_000 + index // 50, index % 50
        home = Path(folder) / "corpus" / "train-other-500" / str(speaker) / str(chapter)
        if number == 0:
            home.mkdir(parents=True)
        os.link(source, home / f"{speaker}-{chapter}-{number:04d}.flac")


def list_corpus(folder: str) -> dict[str, Any]:
    """List a corpus as a plan does before it compares, and return the memory that it takes, bytes."""
    process = psutil.Process()
    tree = SourceTree(f"{folder}/corpus")
    reader = LibriSpeech(root=tree.url)
    before = process.memory_info().rss
    files = list(tree.walk())
    entries = list(reader.find(tree, files))
    return {"n_files": len(entries), "bytes": process.memory_info().rss - before}


def list_names(folder: str) -> dict[str, Any]:
    """List the names of all records."""
    return {"n_records": len(RecordedFolder(Location(folder)).record_names())}


def list_records(folder: str) -> dict[str, Any]:
    """Read all records."""
    return {"n_records": len(RecordedFolder(Location(folder)).records())}
