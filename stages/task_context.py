"""What the task of each thread works on, and how it talks to the executor that runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class TaskCancelled(Exception):
    """The executor does not wait for this task any more."""


@dataclass(slots=True, kw_only=True)
class _Current:
    """The task of one thread; times are s on this process's monotonic clock."""

    label: str
    report: Callable[[str], None] | None
    is_wanted: Callable[[], bool] | None
    started_s: float
    since_s: float
    phase: str = "reading"
    utterance_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadStatus:
    """Say what the task of one thread works on.

    Parameters
    ----------
    label : str
        Name of the task.
    running_s : float
        Time since the task began, s.
    phase : str
        ``reading``, ``computing`` or ``writing``.
    utterance_id : str
        The current utterance. Empty between utterances, and where a stage computes several at once.
    phase_s : float
        Time in this phase or at this utterance, s.
    """

    label: str
    running_s: float
    phase: str
    utterance_id: str
    phase_s: float


# By the identifier of the thread.
_tasks: dict[int, _Current] = {}


@contextmanager
def current_task(
    label: str, report: Callable[[str], None] | None = None, is_wanted: Callable[[], bool] | None = None
) -> Iterator[None]:
    """Make a task the current one of this thread.

    Parameters
    ----------
    label : str
        Name of the task.
    report : callable or None
        Receives each line of `report_line`. None drops the lines.
    is_wanted : callable or None
        Tells whether the executor still waits for the task. None means that it always does.
    """
    now = time.monotonic()
    thread = threading.get_ident()
    _tasks[thread] = _Current(label=label, report=report, is_wanted=is_wanted, started_s=now, since_s=now)
    try:
        yield
    finally:
        _tasks.pop(thread, None)


def enter_phase(phase: str) -> None:
    """Note that the current task entered a phase; do nothing without a task."""
    task = _tasks.get(threading.get_ident())
    if task is not None:
        task.phase, task.utterance_id, task.since_s = phase, "", time.monotonic()


def enter_utterance(utterance_id: str) -> None:
    """Note that the current task began an utterance, if there is a task; ``""`` for none."""
    task = _tasks.get(threading.get_ident())
    if task is not None:
        task.utterance_id, task.since_s = utterance_id, time.monotonic()


def current_utterance() -> str:
    """Return the utterance that the task of this thread works on; empty for none."""
    task = _tasks.get(threading.get_ident())
    return "" if task is None else task.utterance_id


def report_line(line: str) -> None:
    """Show a line about the current task to the person who started the run."""
    task = _tasks.get(threading.get_ident())
    if task is not None and task.report is not None:
        task.report(line)


def check_still_wanted() -> None:
    """Raise TaskCancelled if the executor does not wait for the current task any more."""
    task = _tasks.get(threading.get_ident())
    if task is not None and task.is_wanted is not None and not task.is_wanted():
        raise TaskCancelled("the run that started this task has stopped waiting for it")


def thread_statuses() -> list[ThreadStatus]:
    """Return the status of every thread of this process that has a task."""
    now = time.monotonic()
    return [
        ThreadStatus(
            label=task.label,
            running_s=now - task.started_s,
            phase=task.phase,
            utterance_id=task.utterance_id,
            phase_s=now - task.since_s,
        )
        for task in list(_tasks.values())
    ]
