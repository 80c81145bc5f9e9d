"""Keep the store told how a run is doing, so that any machine can ask it.

- Keep the scheduler told how a run is doing, for its metrics.
"""

from __future__ import annotations

import os
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from melmill.flows.execution.window import Task
from melmill.flows.watching.events import Event, Failed, Finished, Ready, Retried, RunFinished, Stalled, WorkerDied
from melmill.flows.watching.tally import Tally
from melmill.storage.errors import StoreError
from melmill.storage.runs import RunState, State
from melmill.storage.store import Store

# A request to the store every so often; a watcher takes a driver that is silent for long to be gone.
INTERVAL_S = 10.0

FAILURES_KEPT = 20


class RunNews:
    """Listen to a run and write its state to the store now and then.

    Parameters
    ----------
    store : Store
    run_id, project : str
    tally : Tally
        Told of every event before this is.
    complain : callable
        Told once where the store does not take it.
    """

    def __init__(self, store: Store, run_id: str, project: str, tally: Tally, complain: Callable[[str], None]) -> None:
        self.store = store
        self.run_id = run_id
        self.project = project
        self.tally = tally
        self.complain = complain
        self.state: State = "running"
        self._started_at = _now()
        self._next = 0.0
        self._failures: deque[dict[str, Any]] = deque(maxlen=FAILURES_KEPT)
        self._stalled: dict[Task, dict[str, Any]] = {}
        self._heard = True

    def __call__(self, event: Event) -> None:
        """Remember what is told; the end is written at once."""
        match event:
            case Failed(task=task, error=error):
                self._stalled.pop(task, None)
                self._failures.append({**_name(task), "reason": f"{type(error).__name__}: {error}"})
            case Finished(task=task) | Retried(task=task) | WorkerDied(task=task):
                self._stalled.pop(task, None)
            case Stalled(running=running):
                self._stalled[running.task] = {
                    **_name(running.task),
                    "utterance": running.utterance_id,
                    "worker": running.place.worker,
                    "host": running.place.host,
                    "running_s": round(running.running_s, 1),
                }
            case RunFinished(outcome=outcome):
                self.state = outcome
                self.write()

    def beat(self) -> None:
        """Write the state where it is time."""
        if self._heard and time.monotonic() >= self._next:
            self._next = time.monotonic() + INTERVAL_S
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
            if self._heard:
                self._heard = False
                self.complain(f"how this run is doing can't be stored, so `melmill status` won't tell: {error}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _name(task: Task) -> dict[str, Any]:
    return {"node": task.node, "shard": None if task.is_whole else task.shard}


# Scrapes are usually 15 s apart.
FEED_INTERVAL_S = 3.0


class MetricsFeed:
    """Listen to a run and publish its counts now and then, where there is a scheduler that takes them.

    Parameters
    ----------
    run, project : str
    tally : Tally
        Told of every event before this is.
    """

    def __init__(self, run: str, project: str, tally: Tally) -> None:
        self.run = run
        self.project = project
        self.tally = tally
        self._publish: Callable[[Mapping[str, Any]], None] | None = None
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        """Begin with the scheduler; the last counts are those of the end."""
        if isinstance(event, Ready):
            self._publish = event.publish
        elif isinstance(event, RunFinished):
            self._publish = None

    def beat(self) -> None:
        """Publish where it is time."""
        if self._publish is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + FEED_INTERVAL_S
            self._publish(self.message(alive=True))

    def message(self, *, alive: bool) -> Mapping[str, Any]:
        """Return what the scheduler's plugin takes."""
        return {
            "run": self.run,
            "project": self.project,
            "alive": alive,
            "times_real_time": self.tally.times_real_time,
            "nodes": self.tally.as_dict(),
        }
