"""The events of a run, and how they reach progress, the log, the store and the metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from melmill.flows.tasks.task import Receipt, Task

# How a run ended.
Outcome = Literal["done", "failed", "interrupted"]

# The reason of `WorkerDied`, unless the worker ended itself.
DIED = "its worker died"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an attempt runs: the Dask worker, the machine, and the worker's address.

    Each is empty if it is not known.
    """

    worker: str = ""
    host: str = ""
    address: str = ""

    def __str__(self) -> str:
        return " on ".join(filter(None, (self.worker, self.host)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """What a task works on.

    Parameters
    ----------
    task : Task
    attempt : int
        Number of the attempt, from 1.
    place : Place
    running_s : float
        Time since the task began on its worker. If the worker does not answer, time since it was
        submitted, s.
    phase : str
        ``reading``, ``computing``, ``writing``, or ``unknown`` if the worker does not answer.
    utterance_id : str
        The current utterance; empty where there is no single one.
    phase_s : float
        Time in this phase or at this utterance, s.
    """

    task: Task
    attempt: int
    place: Place
    running_s: float
    phase: str
    utterance_id: str
    phase_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run began that has something to do."""

    store: str
    pipeline: str
    executor: str
    n_tasks: int
    n_pending: int
    n_utterances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Tasks can run now.

    Parameters
    ----------
    probe : callable
        Given tasks in flight, returns the status of those that run now. It may take seconds.
    dashboard, metrics : str or None
        URLs of the scheduler's pages and metrics.
    publish : callable or None
        Sends the scheduler what its metrics say of the run.
    """

    probe: Callable[[Sequence[Task]], Sequence[TaskStatus]]
    dashboard: str | None = None
    metrics: str | None = None
    publish: Callable[[Mapping[str, object]], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """An attempt was submitted; `attempt` counts from 1.

    It begins when the task `after` is done, if that is in flight.
    """

    task: Task
    attempt: int
    after: Task | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A task is done."""

    task: Task
    attempt: int
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """An attempt failed in a way that may pass, so another one follows."""

    task: Task
    attempt: int
    reason: str
    place: Place = field(default_factory=Place)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied:
    """The worker of an attempt died.

    `deaths` counts the workers that died at this task. `again` says whether another attempt
    follows.
    """

    task: Task
    attempt: int
    deaths: int
    again: bool
    reason: str = DIED
    place: Place = field(default_factory=Place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A task was given up; `n_blocked` others can't run without it."""

    task: Task
    attempt: int
    error: BaseException
    n_blocked: int = 0
    place: Place = field(default_factory=Place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A task did not begin, as one before it did not end or its workers are gone.

    It is submitted anew.
    """

    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """A task takes much longer than its node's tasks do.

    `expected_s` is None before one of those is done.
    """

    status: TaskStatus
    expected_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """Dask ran all tasks that it could.

    Parameters
    ----------
    n_tasks : int
        Tasks done.
    driver_cpu_s : float
        Processor time of the driver meanwhile, s. That of a scheduler which runs in its process is
        in it.
    scheduler_cpu_s : float or None
        That of a scheduler elsewhere, with what it did for others, s. None if there is none, or it
        did not answer.
    """

    n_tasks: int
    driver_cpu_s: float
    scheduler_cpu_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A line for the person who started the run."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """A run ended; `counts` holds its tasks, and `reason` is empty unless it ended early."""

    outcome: Outcome
    duration_s: float
    counts: Mapping[str, int]
    reason: str = ""


Event = (
    RunStarted
    | Ready
    | Submitted
    | Finished
    | Retried
    | WorkerDied
    | Failed
    | Withdrawn
    | Stalled
    | Driven
    | Note
    | RunFinished
)
Listener = Callable[[Event], None]


class Announcer:
    """Pass every event to every listener, in the same order, from whatever thread it comes."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        # A listener may itself announce an event.
        self._lock = threading.RLock()

    def __call__(self, event: Event) -> None:
        """Pass an event to all listeners, then return."""
        with self._lock:
            for listener in self._listeners:
                listener(event)
