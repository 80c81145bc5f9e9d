"""Put together everything that watches a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from melmill.flows.execution.errors import RunFailed
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.planning.plan import Plan
from melmill.flows.tasks.task import Task
from melmill.flows.watching.events import Announcer, Listener, Note, Outcome, RunFinished, RunStarted
from melmill.flows.watching.log import EventLog
from melmill.flows.watching.progress import Progress
from melmill.flows.watching.publishing import MetricsPublisher, StatePublisher
from melmill.flows.watching.stalls import STALL_AFTER_S, StallWatch
from melmill.flows.watching.tally import NodeTally, Tally
from melmill.storage.store import Store

# Time between two calls of `Heartbeat`, s.
INTERVAL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Watching:
    """How a run is watched.

    Parameters
    ----------
    log : Path or None
        File that the events are appended to as JSON lines.
    stall_after_s : float
        Time after which a task may count as stalled, s. It must also take five times as long as its
        audio usually takes at its node.
    listeners : tuple of callable
        Further listeners, which receive every event.
    """

    log: Path | None = None
    stall_after_s: float = STALL_AFTER_S
    listeners: tuple[Listener, ...] = ()

    def __post_init__(self) -> None:
        """Check every field."""
        if not self.stall_after_s > 0:
            raise PipelineError(f"--stall-after must be positive, got {self.stall_after_s!r}")


class Heartbeat:
    """Call functions about once a second, in a thread, as long as the block lasts.

    Parameters
    ----------
    calls : sequence of callable
        A function that raises is not called again.
    warn : callable
        Receives a line about a function that raises.
    """

    def __init__(self, calls: Sequence[Callable[[], None]], warn: Callable[[str], None]) -> None:
        self._calls = list(calls)
        self._warn = warn
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="melmill-heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        # A call may hang with the cluster that it asks. The run's end does not wait for it long.
        self._thread.join(timeout=5 * INTERVAL_S)

    def _run(self) -> None:
        while not self._end.wait(INTERVAL_S):
            for call in list(self._calls):
                try:
                    call()
                except Exception as error:
                    self._calls.remove(call)
                    if not self._end.is_set():
                        self._warn(
                            f"the run goes on, but a part of watching it failed: {type(error).__name__}: {error}"
                        )


@contextmanager
def observed(plan: Plan, store: Store, run_id: str, executor: str, slots: int, how: Watching) -> Iterator[Listener]:
    """Yield the function that passes events to all that watch the run.

    The start and the end of the run are announced here.

    Raises
    ------
    PipelineError
        The log can't be written.
    """
    project = plan.pipeline.name
    tally = Tally({name: NodeTally(pending=len(node.pending)) for name, node in plan.nodes.items()})
    progress = Progress(plan, slots, tally)
    state = StatePublisher(store, run_id, project, tally, progress.note)
    metrics = MetricsPublisher(run_id, project, tally)
    with ExitStack() as stack:
        log = [] if how.log is None else [stack.enter_context(EventLog(how.log, run_id, project, progress.note))]
        announce: Announcer
        # Trainings are left out: they take hours, and report themselves.
        watched = [name for name, node_plan in plan.nodes.items() if not node_plan.node.trains]
        stalls = StallWatch(watched, audio_of(plan), lambda event: announce(event), how.stall_after_s)
        announce = Announcer([tally, stalls, *log, progress, state, metrics, *how.listeners])
        stack.enter_context(progress)
        calls = [stalls.check, state.publish_if_due, metrics.publish_if_due]
        with (
            _announced(announce, plan, executor, tally),
            Heartbeat(calls, lambda text: announce(Note(text=text))),
        ):
            yield announce


@contextmanager
def _announced(announce: Listener, plan: Plan, executor: str, tally: Tally) -> Iterator[None]:
    """Announce the start of a run, and how the block ended."""
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
        counts = {"reused": plan.n_tasks - plan.n_pending, "run": tally.total("done")}
        counts |= {name: tally.total(name) for name in ("failed", "pending", "retried")}
        announce(RunFinished(outcome=outcome, duration_s=tally.elapsed_s, counts=counts, reason=reason))


def audio_of(plan: Plan) -> Callable[[Task], float]:
    """Return a function that gives the audio of a task, s: of its shard, or of whole corpora."""
    shards = {name: corpus.shard_durations_s for name, corpus in plan.catalogues.items()}

    def audio_s(task: Task) -> float:
        if task.is_whole:
            return float(sum(np.sum(shards[corpus]) for corpus in plan.nodes[task.node].node.corpora))
        return float(shards[task.corpus][task.shard])

    return audio_s
