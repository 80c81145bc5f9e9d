"""What came of a run, summed up from its plan and the records in the store."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from melmill.flows.planning.plan import Plan
from melmill.flows.tasks.report import PAGE, report_folder
from melmill.flows.tasks.task import ALL_SHARDS
from melmill.flows.tasks.trained import trained_page
from melmill.stages.ingest.levels import Levels
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

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @property
    def quarantined_share(self) -> float:
        """Quarantined utterances over all, from 0 to 1."""
        return self.quarantined / self.utterances if self.utterances else 0.0


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
    levels: dict[str, Levels] = {}
    for node_plan in plan.nodes.values():
        node = node_plan.node
        folder = store.product(node.folder, node.key)
        names = {plan.record_name(node, shard) for shard in node_plan.pending} | node_plan.quarantined
        if node.trains:
            trainings += trained_page(folder)
        elif node.is_whole:
            name = plan.record_name(node, ALL_SHARDS)
            if folder.record(name) is not None:
                reports.append(f"{folder.location.url}/{report_folder(name)}/{PAGE}")
        else:
            if node_plan.pending:
                folder.pack()
            made = []
            for name, record in folder.records(names).items():
                quarantined.update((node.corpora[0], utterance_id) for utterance_id in record.absent)
                if name not in node_plan.quarantined and record.levels:
                    made.append(Levels.stored(record.levels))
            levels[node.name] = Levels.total(made)
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
        notes=plan.notes_after(levels),
    )
