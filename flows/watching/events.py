"""What happens in a run, told to whoever listens: progress, the log, the store, the scheduler's metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from melmill.flows.execution.window import Task
from melmill.flows.tasks.receipt import Receipt

Outcome = Literal["done", "failed", "interrupted"]


DIED = "its worker died"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an attempt runs: name of the Dask worker and of the machine; empty where nobody can tell."""

    worker: str = ""
    host: str = ""

    def __str__(self) -> str:
        return " on ".join(filter(None, (self.worker, self.host)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a task was at when its worker was asked.

    Parameters
    ----------
    task : Task
    attempt : int
    place : Place
    running_s : float
        Since it began there; since it was handed out where the worker does not answer.
    phase : str
        ``reading``, ``computing``, ``writing``, or ``unknown`` where the worker does not answer.
    utterance_id : str
        At hand; empty where no single one is.
    for_s : float
        Time in this phase or at this utterance, s.
    """

    task: Task
    attempt: int
    place: Place
    running_s: float
    phase: str
    utterance_id: str
    for_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """Tell that a run has something to do."""

    store: str
    pipeline: str
    executor: str
    n_tasks: int
    n_pending: int
    n_utterances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Tell that tasks can run.

    Parameters
    ----------
    look : callable
        Given tasks in flight, returns what those of them are at that run now. May take seconds.
    dashboard, metrics : str or None
        Where the scheduler shows its pages and its metrics.
    publish : callable or None
        Sends the scheduler what its metrics shall say of the run.
    """

    look: Callable[[Sequence[Task]], Sequence[Running]]
    dashboard: str | None = None
    metrics: str | None = None
    publish: Callable[[Mapping[str, Any]], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """Tell that an attempt was handed out; `attempt` counts from 1."""

    task: Task
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Tell that a task is done."""

    task: Task
    attempt: int
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """Tell that an attempt failed in a way that may pass, so that another follows."""

    task: Task
    attempt: int
    reason: str
    place: Place = field(default_factory=Place)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied:
    """Tell that the worker of an attempt died; `deaths` counts those of this task, `again`: it is tried again."""

    task: Task
    attempt: int
    deaths: int
    again: bool
    reason: str = DIED
    place: Place = field(default_factory=Place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Tell that a task was given up, and how many others wait for it in vain."""

    task: Task
    attempt: int
    error: BaseException
    n_blocked: int = 0
    place: Place = field(default_factory=Place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """Tell that a task runs much longer than its node's tasks do; `expected_s` is None before any was done."""

    running: Running
    expected_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Tell something that a person should know."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """Tell how a run ended; `counts` holds its tasks, `reason` is empty unless it ended early."""

    outcome: Outcome
    duration_s: float
    counts: Mapping[str, int]
    reason: str = ""


Event = (
    RunStarted | Ready | Submitted | Finished | Retried | WorkerDied | Failed | Stalled | Note | RunFinished
)  # fmt: skip
Listener = Callable[[Event], None]


class Announcer:
    """Tell every listener of every event, in the same order, whatever thread it comes from."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        # A listener may itself have something to tell.
        self._lock = threading.RLock()

    def __call__(self, event: Event) -> None:
        """Tell everybody, then return."""
        with self._lock:
            for listener in self._listeners:
                listener(event)
