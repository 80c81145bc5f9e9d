"""What came of a run, summed up from its plan and the records in the store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from melmill.flows.execution.window import ShardWindow
from melmill.flows.planning.phases import ancestors
from melmill.flows.planning.plan import Plan
from melmill.flows.tasks.levels import current_levels
from melmill.flows.tasks.report import PAGE, VERDICT, is_verdict, report_folder
from melmill.flows.tasks.task import ALL_SHARDS
from melmill.flows.tasks.trained import trained_page
from melmill.flows.watching.events import Event, Finished
from melmill.stages.contract import PreparingStage
from melmill.stages.ingest.levels import Levels
from melmill.storage.corpus.shard_set import union
from melmill.storage.product import ProductFolder, Record
from melmill.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class TaskCounts:
    """Count the tasks of a run.

    Parameters
    ----------
    total, run, reused : int
        All tasks, those that this run did, and those that were done before.
    failed : int
        Tasks that were given up, and those that waited for them.
    """

    total: int
    run: int
    reused: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """What a gate node of a run came to.

    Parameters
    ----------
    node : str
    passed : bool
    tripped, unsure : tuple of str
        One line for each rule that tripped, and for each that passed without proof.
    page : str
        URL of its page.
    """

    node: str
    passed: bool
    tripped: tuple[str, ...]
    unsure: tuple[str, ...]
    page: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Sum up a run; the fields are what `melmill run --json` prints.

    Parameters
    ----------
    run, store : str
        Run id and store URL.
    tasks : TaskCounts
    utterances, quarantined : int
        Utterances in all corpora, and how many of them some node could not process.
    duration_s : float
    report : str or None
        URL of the last report's page.
    reports : tuple of str
        URLs of the pages of all reports, in the pipeline's order.
    trainings : tuple of str
        URLs of the pages of all trainings.
    notes : tuple of str
        What a person should know of the corpora and of what was stored, a line each.
    gates : tuple of GateVerdict
        What the gate nodes of the pipeline came to. With one that did not pass, `melmill run` exits
        with 3.
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
    notes: tuple[str, ...] = ()
    gates: tuple[GateVerdict, ...] = ()

    @property
    def tripped(self) -> tuple[str, ...]:
        """One line for each rule of a gate that tripped."""
        return tuple(f"{gate.node}: {line}" for gate in self.gates for line in gate.tripped)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @property
    def quarantined_share(self) -> float:
        """Quarantined utterances over all, from 0 to 1."""
        return self.quarantined / self.utterances if self.utterances else 0.0


def _quarantined_before(plan: Plan, store: Store) -> set[tuple[str, str]]:
    """Return corpus and id of each utterance that some node could not process, before the run."""
    found: set[tuple[str, str]] = set()
    prepared = _after_drops(plan)
    for node_plan in plan.nodes.values():
        node = node_plan.node
        if node_plan.quarantined and not node.is_whole:
            folder = store.product(node.folder, node.key)
            if node.name in prepared:
                found.update((node.corpora[0], name) for name in _ids_in_quarantine(folder, node_plan.quarantined))
                continue
            records = folder.records(set(node_plan.quarantined))
            found.update((node.corpora[0], name) for record in records.values() for name in record.absent)
    return found


def _after_drops(plan: Plan) -> frozenset[str]:
    """Return the nodes that prepare waveforms, and those after them: what they lack may have been dropped."""
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    preparing = {name for name, node in nodes.items() if isinstance(node.stage, PreparingStage)}
    return (
        frozenset(name for name in nodes if preparing & {name, *ancestors(nodes, name)}) if preparing else frozenset()
    )


def _ids_in_quarantine(folder: ProductFolder, records: Collection[str]) -> Collection[str]:
    """Return the ids that a node put into quarantine, by the tables of records."""
    table = folder.stored_table("quarantine", records, None) if records else None
    return () if table is None else table["utterance_id"].to_pylist()


def too_many_quarantined(plan: Plan, n_quarantined: int) -> str:
    """Return the line that says that more is in quarantine than the pipeline allows; empty if not."""
    limit, total = plan.pipeline.max_quarantined, plan.n_utterances
    if n_quarantined <= limit * total:
        return ""
    return (
        f"{n_quarantined} of {total} utterances are in quarantine ({n_quarantined / total:.1%}), more than "
        f"max_quarantined = {limit:.1%} allows; see `melmill quarantine {plan.pipeline.store}`"
    )


class QuarantineWatch:
    """Stop handing out tasks as soon as more is in quarantine than the pipeline allows.

    Parameters
    ----------
    plan : Plan
    store : Store
    window : ShardWindow
    """

    def __init__(self, plan: Plan, store: Store, window: ShardWindow) -> None:
        self._plan = plan
        self._window = window
        self._corpora = {name: node_plan.node.corpora[0] for name, node_plan in plan.nodes.items()}
        self._quarantined = _quarantined_before(plan, store)
        self._check()

    def __call__(self, event: Event) -> None:
        """Count the utterances that a task put into quarantine."""
        if isinstance(event, Finished) and event.receipt.quarantined:
            corpus = self._corpora[event.task.node]
            self._quarantined.update((corpus, utterance_id) for utterance_id in event.receipt.quarantined)
            self._check()

    def _check(self) -> None:
        reason = too_many_quarantined(self._plan, len(self._quarantined))
        if reason:
            self._window.stop(f"{reason}. What is done is stored, and a run with a larger max_quarantined goes on")


def sum_up(plan: Plan, store: Store, run_id: str, *, n_failed: int, duration_s: float) -> Summary:
    """Return the summary of a run whose tasks are over.

    New records are packed first, so that they are read with few requests, now and by the next plan.

    Parameters
    ----------
    plan : Plan
    store : Store
    run_id : str
    n_failed : int
        Tasks that were given up, and those that waited for them.
    duration_s : float
        Wall time of the run so far, s.
    """
    quarantined: set[tuple[str, str]] = set()
    reports: list[str] = []
    trainings: list[str] = []
    gates: list[GateVerdict] = []
    levels: dict[str, Levels] = {}
    counts: dict[str, Counter[str]] = {}
    prepared = _after_drops(plan)
    for node_plan in plan.nodes.values():
        node = node_plan.node
        folder = store.product(node.folder, node.key)
        if node.trains:
            trainings += trained_page(folder)
        elif node.is_whole:
            name = plan.record_name(node, ALL_SHARDS)
            record = folder.record(name)
            if record is not None and is_verdict(record):
                gates.append(_verdict(node.name, folder, record))
            elif record is not None:
                reports.append(f"{folder.location.url}/{report_folder(name)}/{PAGE}")
        else:
            if node_plan.pending:
                folder.pack()
            corpus, made, counted = node.corpora[0], {}, Counter[str]()
            before = {int(name) for name in node_plan.quarantined}
            for gist in folder.gists(union([node_plan.pending, before])):
                lost = gist.absent
                if node.name in prepared:
                    lost = tuple(_ids_in_quarantine(folder, [gist.name] if gist.n_quarantined else ()))
                absent = frozenset(lost) - plan.catalogues[corpus].retired_in(gist.name)
                quarantined.update((corpus, utterance_id) for utterance_id in absent)
                if gist.name not in node_plan.quarantined:
                    made[gist.name] = gist.levels
                    counted.update(gist.counts)
            levels[node.name] = current_levels(folder, plan.catalogues[corpus], made)
            counts[node.name] = counted
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
        quarantined=len(quarantined),
        duration_s=round(duration_s, 3),
        report=reports[-1] if reports else None,
        reports=tuple(reports),
        trainings=tuple(trainings),
        notes=plan.notes_after(levels, counts),
        gates=tuple(gates),
    )


def _verdict(node: str, folder: ProductFolder, record: Record) -> GateVerdict:
    """Return what a gate came to; raise DamagedData."""
    place = report_folder(record.name)
    made = json.loads(folder.read_whole(record, f"{place}/{VERDICT}"))
    return GateVerdict(
        node=node,
        passed=bool(made["passed"]),
        tripped=tuple(made["tripped"]),
        unsure=tuple(made["unsure"]),
        page=f"{folder.location.url}/{place}/{PAGE}",
    )
