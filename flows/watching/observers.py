"""Everything that watches a run, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melmill.flows.errors import PipelineError, RunFailed
from melmill.flows.execution.window import Task
from melmill.flows.planning.plan import Plan
from melmill.flows.watching.events import Announcer, Listener, Note, Outcome, RunFinished, RunStarted
from melmill.flows.watching.feeds import MetricsFeed, RunNews
from melmill.flows.watching.heartbeat import Heartbeat
from melmill.flows.watching.log import EventLog
from melmill.flows.watching.progress import Progress
from melmill.flows.watching.stalls import STALL_AFTER_S, StallWatch
from melmill.flows.watching.tally import NodeTally, Tally
from melmill.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Watching:
    """How a run is watched.

    Parameters
    ----------
    log : Path or None
        File for the events as JSON lines.
    stall_after_s : float
        A task that takes longer than this, and than five times what its audio takes at its node, is named.
    listeners : tuple of callable
        Others to tell of every event.
    """

    log: Path | None = None
    stall_after_s: float = STALL_AFTER_S
    listeners: tuple[Listener, ...] = ()

    def __post_init__(self) -> None:
        """Check every field."""
        if not self.stall_after_s > 0:
            raise PipelineError(f"--stall-after must be positive, got {self.stall_after_s!r}")


@contextmanager
def observed(plan: Plan, store: Store, run_id: str, executor: str, slots: int, how: Watching) -> Iterator[Listener]:
    """Yield whom to tell of what happens in a run; how the block ends is how the run did.

    Raises
    ------
    PipelineError
        Where the log can't be written.
    """
    project = plan.pipeline.name
    tally = Tally({name: NodeTally(pending=len(node.pending)) for name, node in plan.nodes.items()})
    progress = Progress(plan, slots, tally)
    news = RunNews(store, run_id, project, tally, progress.note)
    metrics = MetricsFeed(run_id, project, tally)
    with ExitStack() as stack:
        log = [] if how.log is None else [stack.enter_context(EventLog(how.log, run_id, project, progress.note))]
        announce: Announcer
        # A training takes hours, and says itself how it goes on.
        brief = [name for name, node_plan in plan.nodes.items() if not node_plan.node.trains]
        stalls = StallWatch(brief, audio_of(plan), lambda event: announce(event), how.stall_after_s)
        announce = Announcer([tally, stalls, *log, progress, news, metrics, *how.listeners])
        stack.enter_context(progress)
        beats = [stalls.look, news.beat, metrics.beat]
        with _told(announce, plan, executor, tally), Heartbeat(beats, lambda text: announce(Note(text=text))):
            yield announce


@contextmanager
def _told(announce: Listener, plan: Plan, executor: str, tally: Tally) -> Iterator[None]:
    """Tell of a run's start and of its end, however that comes."""
    announce(
        RunStarted(
            store=plan.pipeline.store,
            pipeline=plan.pipeline.name,
            executor=executor,
            n_tasks=plan.n_tasks,
            n_pending=plan.n_pending,
            n_utterances=plan.n_utterances,
        )
    )
    outcome: Outcome = "failed"
    reason = ""
    try:
        yield
        outcome = "failed" if tally.total("failed") else "done"
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
        raise
    finally:
        announce(RunFinished(outcome=outcome, duration_s=tally.elapsed_s, counts=_counts(plan, tally), reason=reason))


def _counts(plan: Plan, tally: Tally) -> Mapping[str, int]:
    names = {"run": "done", "failed": "failed", "pending": "pending", "retried": "retried"}
    return {"reused": plan.n_tasks - plan.n_pending, **{name: tally.total(count) for name, count in names.items()}}


def audio_of(plan: Plan) -> Callable[[Task], float]:
    """Return what tells how much audio (s) a task has: its shard's, or a report's corpora."""
    shards = {name: corpus.shard_durations_s for name, corpus in plan.catalogues.items()}

    def audio_s(task: Task) -> float:
        if task.is_whole:
            return float(sum(np.sum(shards[corpus]) for corpus in plan.nodes[task.node].node.corpora))
        return float(shards[task.corpus][task.shard])

    return audio_s
