"""Publish how a run is doing: its state to the store, and its counts to the scheduler's metrics."""

from __future__ import annotations

import os
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from melmill.flows.tasks.task import Task
from melmill.flows.watching.events import Event, Failed, Finished, Ready, Retried, RunFinished, Stalled, WorkerDied
from melmill.flows.watching.tally import Tally
from melmill.storage.errors import StoreError
from melmill.storage.runs import RunState, State
from melmill.storage.store import Store

# Time between writes of the state, s. A driver that writes nothing for long is taken to be gone.
STATE_INTERVAL_S = 10.0

# Time between messages to the scheduler, s. Metrics are usually scraped every 15 s.
METRICS_INTERVAL_S = 3.0

# Failures that the state names: the last ones.
FAILURES_KEPT = 20


class StatePublisher:
    """Write the state of a run to its store now and then, so that any machine can read it.

    Parameters
    ----------
    store : Store
    run_id, project : str
    tally : Tally
        Receives every event before this does.
    warn : callable
        Receives one line if the state can't be written.
    """

    def __init__(self, store: Store, run_id: str, project: str, tally: Tally, warn: Callable[[str], None]) -> None:
        self.store = store
        self.run_id = run_id
        self.project = project
        self.tally = tally
        self.warn = warn
        self.state: State = "running"
        self._started_at = _now()
        self._next = 0.0
        self._failures: deque[dict[str, object]] = deque(maxlen=FAILURES_KEPT)
        self._stalled: dict[Task, dict[str, object]] = {}
        self._works = True

    def __call__(self, event: Event) -> None:
        """Remember failures and stalls; write the end of the run at once."""
        match event:
            case Failed(task=task, error=error):
                self._stalled.pop(task, None)
                self._failures.append({**_name(task), "reason": f"{type(error).__name__}: {error}"})
            case Finished(task=task) | Retried(task=task) | WorkerDied(task=task):
                self._stalled.pop(task, None)
            case Stalled(status=status):
                self._stalled[status.task] = {
                    **_name(status.task),
                    "utterance": status.utterance_id,
                    "worker": status.place.worker,
                    "host": status.place.host,
                    "running_s": round(status.running_s, 1),
                }
            case RunFinished(outcome=outcome):
                self.state = outcome
                self.write()

    def publish_if_due(self) -> None:
        """Write the state if the last write is long enough ago."""
        if self._works and time.monotonic() >= self._next:
            self._next = time.monotonic() + STATE_INTERVAL_S
            self.write()

    def write(self) -> None:
        """Write the state."""
        state = RunState(
            run_id=self.run_id,
            project=self.project,
            host=platform.node(),
            pid=os.getpid(),
            state=self.state,
            started_at=self._started_at,
            updated_at=_now(),
            nodes=self.tally.as_dict(),
            failures=list(self._failures),
            stalled=list(self._stalled.values()),
        )
        try:
            self.store.write_state(state)
        except StoreError as error:
            if self._works:
                self._works = False
                self.warn(f"the state of this run can't be stored, so `melmill status` will not show it: {error}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _name(task: Task) -> dict[str, object]:
    return {"node": task.node, "shard": None if task.is_whole else task.shard}


class MetricsPublisher:
    """Send the counts of a run to its scheduler now and then, if that has a plugin for them.

    Parameters
    ----------
    run, project : str
    tally : Tally
        Receives every event before this does.
    """

    def __init__(self, run: str, project: str, tally: Tally) -> None:
        self.run = run
        self.project = project
        self.tally = tally
        self._publish: Callable[[Mapping[str, object]], None] | None = None
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        """Start when the scheduler is ready, and stop at the end of the run."""
        if isinstance(event, Ready):
            self._publish = event.publish
        elif isinstance(event, RunFinished):
            self._publish = None

    def publish_if_due(self) -> None:
        """Send the counts if the last message is long enough ago."""
        if self._publish is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + METRICS_INTERVAL_S
            self._publish(self.message(alive=True))

    def message(self, *, alive: bool) -> Mapping[str, object]:
        """Return the message that the scheduler's plugin understands."""
        return {
            "run": self.run,
            "project": self.project,
            "alive": alive,
            "times_real_time": self.tally.times_real_time,
            "nodes": self.tally.as_dict(),
        }
