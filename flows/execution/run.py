"""Run a plan: prepare the store, hand out tasks, and say what came of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Literal, cast

from melmill.cluster.connect import check_available
from melmill.flows.execution.dask import run_dask
from melmill.flows.execution.serial import Job, MakeJob, run_serial
from melmill.flows.execution.window import ALL_SHARDS, Frontier, Task
from melmill.flows.pipeline.graph import Node
from melmill.flows.pipeline.pools import cpu_fallbacks
from melmill.flows.planning.phases import ancestors
from melmill.flows.planning.plan import Plan
from melmill.flows.tasks.products import describe, source
from melmill.flows.tasks.report import Ancestor, ReportJob
from melmill.flows.tasks.shard import ShardJob
from melmill.flows.tasks.trained import trained_page
from melmill.flows.tasks.training import TrainingJob
from melmill.flows.watching.events import Note
from melmill.flows.watching.observers import Watching, observed
from melmill.stages.contract import Scores, TrainingStage
from melmill.stages.report.stage import Aggregate
from melmill.storage.store import Manifest, NodeEntry, Store

# Shards open per compute slot: enough that a pool is never short of ready tasks.
WINDOW = 4


@dataclass(frozen=True, kw_only=True)
class TaskCounts:
    """How many tasks a run had, did, found done, and gave up (with those that waited for them)."""

    total: int
    run: int
    reused: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came of a run; its fields are what `melmill run --json` prints.

    Parameters
    ----------
    run, store : str
        Run id and store URL.
    tasks : TaskCounts
    utterances, quarantined : int
        In all corpora, and how many of them some node could not process.
    duration_s : float
    report : str or None
        Where the last report's page is.
    reports : tuple of str
        Where the pages of all reports are, in the pipeline's order.
    trainings : tuple of str
        Where the pages of all trainings are.
    """

    run: str
    store: str
    tasks: TaskCounts
    utterances: int
    quarantined: int
    duration_s: float
    report: str | None
    reports: tuple[str, ...] = ()
    trainings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @property
    def quarantined_share(self) -> float:
        """Quarantined utterances over all."""
        return self.quarantined / self.utterances if self.utterances else 0.0


def run(
    plan: Plan,
    executor: Literal["dask", "serial"] = "dask",
    *,
    partial: bool = False,
    watching: Watching | None = None,
) -> Summary:
    """Run what a plan has pending.

    Parameters
    ----------
    plan : Plan
    executor : {"dask", "serial"}
    partial : bool
        The plan leaves nodes of the pipeline out (``--until``): what the store's last run says of those stays.
    watching : Watching or None
        Whether there is a log, and what counts as a stall.

    Raises
    ------
    RunFailed
        The run can't go on; nothing computed is lost.
    KeyboardInterrupt
        On SIGINT or SIGTERM.
    StoreError, ClusterError
        The store can't be written or the cluster can't be had.
    """
    started = time.monotonic()
    if executor == "dask" and plan.n_pending:
        check_available(plan.pipeline.cluster)
    store = Store.create(plan.pipeline.store, plan.pipeline.name)
    run_id = store.new_run_id()
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    _pack(store, nodes.values())
    if plan.n_pending:
        _prepare(plan, store, nodes)
    _publish(plan, store, nodes, run_id, partial)
    frontier = None
    if plan.n_pending:
        frontier = _execute(plan, store, run_id, executor, watching or Watching())
        _pack(store, nodes.values())
    n_failed = len(frontier.failed) + len(frontier.blocked) if frontier else 0
    reports, trainings = _pages(plan, store)
    return Summary(
        run=run_id,
        store=plan.pipeline.store,
        tasks=TaskCounts(
            total=plan.n_tasks,
            run=plan.n_pending - n_failed,
            reused=plan.n_tasks - plan.n_pending,
            failed=n_failed,
        ),
        utterances=plan.n_utterances,
        quarantined=_n_quarantined(plan, store),
        duration_s=round(time.monotonic() - started, 3),
        report=reports[-1] if reports else None,
        reports=tuple(reports),
        trainings=tuple(trainings),
    )


def _pack(store: Store, nodes: Iterable[Node]) -> None:
    """Let the next look at the records take few requests, where each takes long."""
    for node in nodes:
        if not node.is_whole:
            store.product(node.folder, node.key).pack()


def _prepare(plan: Plan, store: Store, nodes: Mapping[str, Node]) -> None:
    """Write what tasks rely on: catalogues, descriptions, array metadata; drop records of damaged data."""
    for name, node_plan in plan.nodes.items():
        node = node_plan.node
        folder = store.product(node.folder, node.key)
        n_slots = 0 if node.is_whole else plan.catalogues[node.corpora[0]].n_slots
        folder.prepare(describe(node, nodes, plan.pipeline.shard_duration_s), n_slots)
        if name in plan.catalogues:
            store.write_catalogue(node.folder, node.key, plan.catalogues[name])
        for record in node_plan.damaged:
            folder.drop(record)


def _publish(plan: Plan, store: Store, nodes: Mapping[str, Node], run_id: str, partial: bool) -> None:
    """Say in the store which products the pipeline's names now mean, unless the last run said the same."""
    last = store.latest_manifest()
    entries = {name: _entry(node, nodes) for name, node in nodes.items()}
    if partial and last is not None:
        entries = {**last.nodes, **entries}
    if last is not None and dict(last.nodes) == entries:
        return
    manifest = Manifest(
        run_id=run_id,
        project=plan.pipeline.name,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        nodes=entries,
        pipeline=dict(plan.pipeline.document),
    )
    store.publish_run(run_id, manifest)


def _entry(node: Node, nodes: Mapping[str, Node]) -> NodeEntry:
    corpora = [nodes[name] for name in node.corpora]
    return NodeEntry(
        folder=node.folder,
        key=node.key,
        kind=node.product.kind.value,
        stage=node.stage.uses,
        catalogues=tuple((corpus.folder, corpus.key) for corpus in corpora),
        scored=node.product.scored if isinstance(node.product, Scores) else None,
    )


def _execute(plan: Plan, store: Store, run_id: str, executor: str, watching: Watching) -> Frontier:
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    cluster = plan.pipeline.cluster
    slots = 1 if executor == "serial" else sum(pool.slots for pool in cluster.pools.values())
    pending = {name: set(node_plan.pending) for name, node_plan in plan.nodes.items()}
    frontier = Frontier(nodes, pending, window=WINDOW * slots)
    make_job = _job_maker(plan, nodes)
    with observed(plan, store, run_id, executor, slots, watching) as announce, _terminated_as_interrupted():
        fallbacks = cpu_fallbacks({name: nodes[name].route for name, shards in pending.items() if shards})
        if fallbacks:
            announce(Note(text=fallbacks))
        if executor == "serial":
            run_serial(frontier, make_job, announce)
        else:
            run_dask(frontier, make_job, announce, cluster, plan.pipeline.time_limit_s)
    return frontier


def _job_maker(plan: Plan, nodes: Mapping[str, Node]) -> MakeJob:
    def make(task: Task, attempt: int, isolated: bool) -> Job:
        node = nodes[task.node]
        if node.trains:
            return _training_job(plan, nodes, node, attempt)
        if task.is_whole:
            return _report_job(plan, nodes, node, attempt)
        corpus = nodes[task.corpus]
        return ShardJob(
            store=plan.pipeline.store,
            node=source(node),
            stage=node.stage,
            ports={port: source(nodes[names[0]]) for port, names in node.inputs.items()},
            catalogue=(corpus.folder, corpus.key),
            shard=task.shard,
            pool=str(node.route),
            attempt=attempt,
            isolated=isolated,
            time_limit_s=plan.pipeline.time_limit_s,
        )

    return make


def _training_job(plan: Plan, nodes: Mapping[str, Node], node: Node, attempt: int) -> TrainingJob:
    corpus = nodes[node.corpora[0]]
    return TrainingJob(
        store=plan.pipeline.store,
        node=source(node),
        stage=cast("TrainingStage", node.stage),
        ports={port: source(nodes[names[0]]) for port, names in node.inputs.items()},
        catalogue=(corpus.folder, corpus.key),
        pool=str(node.route),
        attempt=attempt,
    )


def _report_job(plan: Plan, nodes: Mapping[str, Node], node: Node, attempt: int) -> ReportJob:
    before = ancestors(nodes, node.name)
    return ReportJob(
        store=plan.pipeline.store,
        node=source(node),
        stage=cast("Aggregate", node.stage),
        ancestors={name: _ancestor(nodes, other) for name, other in nodes.items() if name in before},
        record_name=plan.record_name(node, ALL_SHARDS),
        pipeline=plan.pipeline.name,
        pool=str(node.route),
        attempt=attempt,
    )


def _ancestor(nodes: Mapping[str, Node], node: Node) -> Ancestor:
    corpus = nodes[node.corpora[0]]
    return Ancestor(
        source=source(node),
        uses=node.stage.uses,
        version=node.stage.version,
        parameters=node.parameters,
        inputs=node.inputs,
        catalogue=(corpus.folder, corpus.key),
    )


def _n_quarantined(plan: Plan, store: Store) -> int:
    """Count the utterances that some node of the run could not process, each corpus's apart."""
    found: set[tuple[str, str]] = set()
    for node_plan in plan.nodes.values():
        node = node_plan.node
        if not node.is_whole:
            folder = store.product(node.folder, node.key)
            new = {plan.record_name(node, shard) for shard in node_plan.pending}
            for record in folder.records(node_plan.quarantined | new).values():
                found.update((node.corpora[0], utterance_id) for utterance_id in record.absent)
    return len(found)


def _pages(plan: Plan, store: Store) -> tuple[list[str], list[str]]:
    """Return where the pages of reports and of trainings are, of those that were made."""
    reports, trainings = [], []
    for node in (node_plan.node for node_plan in plan.nodes.values() if node_plan.node.is_whole):
        name = plan.record_name(node, ALL_SHARDS)
        folder = store.product(node.folder, node.key)
        if node.trains:
            trainings += trained_page(folder)
        elif folder.record(name) is not None:
            reports.append(f"{folder.location.url}/report/{name}/index.html")
    return reports, trainings


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM, which batch systems send, as ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
