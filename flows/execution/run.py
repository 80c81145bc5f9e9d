"""Run a plan in four steps: prepare the store, publish the manifest, execute the tasks, sum up.

The store keeps a record of every run, however it ends (`recording`).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Any, Literal

from melmill.cluster.connect import check_available
from melmill.flows.execution.errors import RunFailed
from melmill.flows.execution.prepare import prepare_store, publish_manifest
from melmill.flows.execution.recording import RunRecorder
from melmill.flows.execution.summary import QuarantineWatch, Summary, sum_up
from melmill.flows.execution.window import ShardWindow
from melmill.flows.pipeline.graph import Node
from melmill.flows.pipeline.pools import cpu_fallbacks
from melmill.flows.planning.phases import ancestors
from melmill.flows.planning.plan import Plan
from melmill.flows.runs.prune import claim, wait_until_deleted
from melmill.flows.tasks.job import Job, Source
from melmill.flows.tasks.report import Ancestor, ReportJob
from melmill.flows.tasks.shard import PairedInput, ShardJob
from melmill.flows.tasks.task import ALL_SHARDS, Task
from melmill.flows.tasks.training import TrainingJob
from melmill.flows.watching.events import Note
from melmill.flows.watching.observers import Watching, observed
from melmill.stages.contract import Kind, PrintsStage, ReducingStage, SampledStage, TrainingStage
from melmill.stages.numeric.errors import StageError
from melmill.stages.report.contract import ReportStage
from melmill.storage.errors import StoreUnwritable
from melmill.storage.files.location import Location
from melmill.storage.proof.claims import Claim
from melmill.storage.store import Store

# Open shards per compute slot: enough that a pool never lacks ready tasks.
OPEN_PER_SLOT = 4

Executor = Literal["dask", "serial"]


def run(
    plan: Plan,
    executor: Executor = "dask",
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
        Whether the plan leaves nodes of the pipeline out (``--until``). What the store's last run
        says of those stays.
    watching : Watching or None
        Where to log, and what counts as a stall.

    Raises
    ------
    RunFailed
        The run can't go on, or too many utterances are in quarantine. Nothing computed is lost.
    KeyboardInterrupt
        On SIGINT or SIGTERM.
    StoreError, ClusterError
        The store can't be written or the cluster can't be had.
    """
    started_s = time.monotonic()
    with claim(Store(Location(plan.pipeline.store))) as claimed:
        plan = _claimed(plan, claimed, executor)
        store = prepare_store(plan)
        run_id = publish_manifest(plan, store, partial=partial)
        watching = watching or Watching()
        with RunRecorder(plan, store, run_id, executor, partial=partial) as recorder:
            watching = replace(watching, listeners=(recorder, *watching.listeners))
            n_failed = _execute(plan, store, run_id, executor, watching) if plan.n_pending else 0
            duration_s = time.monotonic() - started_s
            return recorder.summed_up(sum_up(plan, store, run_id, n_failed=n_failed, duration_s=duration_s))


def _claimed(plan: Plan, claimed: Claim, executor: Executor) -> Plan:
    """Claim what a plan reads and makes; return it, or a new one if the store was pruned since it was made."""
    while True:
        if executor == "dask" and plan.n_pending:
            check_available(plan.pipeline.cluster)
        location = Location(plan.pipeline.store)
        if plan.n_pending:
            Store.create(plan.pipeline.store, plan.pipeline.name)
            n_prunings = claimed.take(location, plan.addresses)
        else:
            # Nothing is read, and a store that this user can't write is as good as any.
            with suppress(StoreUnwritable):
                claimed.take(location, plan.addresses)
            n_prunings = wait_until_deleted(Store(location), plan.addresses)
        if n_prunings == plan.n_prunings:
            return plan
        if plan.again is None:
            raise RunFailed(f"{plan.pipeline.store} was pruned since the plan was made: plan again, and run that")
        plan = plan.again()


def _execute(plan: Plan, store: Store, run_id: str, executor: Executor, watching: Watching) -> int:
    """Run the pending tasks; return how many failed, or waited for failed ones."""
    cluster = plan.pipeline.cluster
    slots = 1 if executor == "serial" else sum(pool.slots for pool in cluster.pools.values())
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    pending = {name: node_plan.pending for name, node_plan in plan.nodes.items()}
    window = ShardWindow(nodes, pending, max_open=OPEN_PER_SLOT * slots, paired=plan.paired)
    make_job = JobMaker(plan)
    watching = replace(watching, listeners=(*watching.listeners, QuarantineWatch(plan, store, window)))
    with observed(plan, store, run_id, executor, slots, watching) as announce, _terminated_as_interrupted():
        fallbacks = cpu_fallbacks({name: nodes[name].route for name, shards in pending.items() if shards})
        if fallbacks:
            announce(Note(text=fallbacks))
        # Each executor is imported when it has something to run: Dask alone takes half a second.
        if executor == "serial":
            from melmill.flows.execution.serial import run_serial

            run_serial(window, make_job, announce)
        else:
            from melmill.flows.execution.dask import run_dask

            run_dask(window, make_job, announce, cluster, plan.pipeline.time_limit_s)
    return len(window.failed) + len(window.blocked)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM, which batch systems send, as ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class JobMaker:
    """Make the job of each task of a plan, by what its stage does."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._store = plan.pipeline.store
        self._nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}

    def __call__(self, task: Task, attempt: int, isolated: bool) -> Job:
        """Return the job of a task.

        Parameters
        ----------
        task : Task
        attempt : int
            Number of the attempt, from 1.
        isolated : bool
            Process each utterance in a child process. Tasks over whole corpora ignore this.

        Raises
        ------
        StageError
            The stage lacks the method that makes its product.
        """
        node = self._nodes[task.node]
        stage = node.stage
        if isinstance(stage, TrainingStage | ReducingStage):
            return TrainingJob(
                store=self._store,
                node=Source.of(node),
                stage=stage,
                pool=str(node.route),
                attempt=attempt,
                ports=self._ports(node),
                catalogue=self._catalogue(node),
            )
        if isinstance(stage, ReportStage):
            before = ancestors(self._nodes, node.name)
            return ReportJob(
                store=self._store,
                node=Source.of(node),
                stage=stage,
                pool=str(node.route),
                attempt=attempt,
                ancestors={
                    name: Ancestor(
                        source=Source.of(other),
                        uses=other.stage.uses,
                        version=other.stage.version,
                        parameters=other.parameters,
                        inputs=other.inputs,
                        catalogue=self._catalogue_made(other),
                        is_paired=other.paired_port is not None,
                    )
                    for name, other in self._nodes.items()
                    if name in before
                },
                record_name=self._plan.record_name(node, ALL_SHARDS),
                pipeline=self._plan.pipeline.name,
                pair_notes=self._pair_notes(before),
            )
        if node.is_whole:
            methods = "report()" if node.product.kind is Kind.REPORT else "train()"
            raise StageError(
                f"node {node.name!r}: stage {stage.uses!r} makes a {node.product.kind}, so it needs a method {methods}"
            )
        return ShardJob(
            store=self._store,
            node=Source.of(node),
            stage=stage,
            pool=str(node.route),
            attempt=attempt,
            ports=self._ports(node),
            catalogue=self._catalogue(node),
            shard=task.shard,
            isolated=isolated,
            time_limit_s=self._plan.pipeline.time_limit_s,
            paired=self._paired(node, task.shard),
            share=self._share(node),
            **self._prints(node),
        )

    def _ports(self, node: Node) -> dict[str, Source]:
        return {port: Source.of(self._nodes[names[0]]) for port, names in node.inputs.items()}

    def _pair_notes(self, among: Collection[str]) -> tuple[str, ...]:
        """Return what a person should know of the pairs of some nodes, a line each."""
        paired = {name: one for name, one in self._plan.paired.items() if name in among}
        return tuple(f"{name}: {note}" for name, one in paired.items() for note in one.notes)

    def _share(self, node: Node) -> float:
        """Return the share of utterances that a node works on."""
        if not isinstance(node.stage, SampledStage):
            return 1.0
        n_utterances = self._plan.catalogues[node.corpora[0]].n_utterances
        return min(1.0, node.stage.sample_size / max(1, n_utterances))

    def _prints(self, node: Node) -> Mapping[str, Any]:
        """Return what a task needs to know of the corpus whose table its stage reads."""
        if not isinstance(node.stage, PrintsStage):
            return {}
        catalogue = self._plan.catalogues[node.corpora[0]]
        shards: Sequence[int] = range(catalogue.n_shards)
        if catalogue.retired:
            shards = tuple(catalogue.current_shards)
        return {"prints": shards, "retired": catalogue.revisions.by_record}

    def _paired(self, node: Node, shard: int) -> PairedInput | None:
        paired = self._plan.paired.get(node.name)
        if paired is None or node.paired_port is None:
            return None
        return PairedInput(
            port=node.paired_port,
            catalogue=self._catalogue_made(self._nodes[paired.source]),
            partners=paired.partners[shard],
        )

    def _catalogue(self, node: Node) -> tuple[str, str]:
        """Return folder and key of the node whose catalogue lists what a node reads."""
        lists = self._nodes[node.reads_items_of]
        return lists.folder, lists.key

    def _catalogue_made(self, node: Node) -> tuple[str, str]:
        """Return folder and key of the node whose catalogue lists what a node makes."""
        return (node.folder, node.key) if node.reshapes else self._catalogue(node)
