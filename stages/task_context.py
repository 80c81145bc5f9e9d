"""What each thread of this process is at, so that whoever waits for it can be told.

- What a task at work says to whoever runs it, and whether it is still wanted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class AtWork:
    """Say what one thread is at.

    Parameters
    ----------
    label : str
        Name of the task.
    started_s, since_s : float
        When the task and when its present phase or utterance began, on this process's monotonic clock, s.
    phase : str
        ``reading``, ``computing`` or ``writing``.
    utterance_id : str
        Utterance at hand; empty between utterances, and where a stage computes several at once.
    """

    label: str
    started_s: float
    since_s: float
    phase: str = "reading"
    utterance_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glimpse:
    """What a thread was at when it was looked at: as `AtWork`, with ages (s) in place of times."""

    label: str
    running_s: float
    phase: str
    utterance_id: str
    for_s: float


_threads: dict[int, AtWork] = {}


@contextmanager
def working(label: str) -> Iterator[None]:
    """Say that this thread is at the task of that name."""
    now = time.monotonic()
    _threads[threading.get_ident()] = AtWork(label=label, started_s=now, since_s=now)
    try:
        yield
    finally:
        _threads.pop(threading.get_ident(), None)


def enter(phase: str) -> None:
    """Say that the task of this thread came to another phase; without a task, nothing."""
    _note(phase=phase, utterance_id="")


def take_up(utterance_id: str) -> None:
    """Say that the task of this thread came to an utterance, empty for none; without a task, nothing."""
    _note(phase=None, utterance_id=utterance_id)


def _note(phase: str | None, utterance_id: str) -> None:
    at = _threads.get(threading.get_ident())
    if at is not None:
        at.phase = at.phase if phase is None else phase
        at.utterance_id = utterance_id
        at.since_s = time.monotonic()


def glimpses() -> list[Glimpse]:
    """Return what every thread of this process that has a task is at."""
    now = time.monotonic()
    return [
        Glimpse(
            label=at.label,
            running_s=now - at.started_s,
            phase=at.phase,
            utterance_id=at.utterance_id,
            for_s=now - at.since_s,
        )
        for at in list(_threads.values())
    ]


@dataclass(frozen=True)
class Employer:
    """Whom a task works for: `hear` is told a line, `wants` says whether it still is to be done."""

    hear: Callable[[str], None]
    wants: Callable[[], bool] = lambda: True


_EMPLOYER: ContextVar[Employer | None] = ContextVar("employer", default=None)


class Unwanted(Exception):
    """Nobody waits for a task any more."""


@contextmanager
def working_for(employer: Employer) -> Iterator[None]:
    """Have what tasks in this block and thread say heard by `employer`."""
    token = _EMPLOYER.set(employer)
    try:
        yield
    finally:
        _EMPLOYER.reset(token)


def say(line: str) -> None:
    """Tell people how a task goes on."""
    employer = _EMPLOYER.get()
    if employer is not None:
        employer.hear(line)


def check_wanted() -> None:
    """Raise Unwanted where nobody waits for this task any more."""
    employer = _EMPLOYER.get()
    if employer is not None and not employer.wants():
        raise Unwanted("nobody waits for this task any more")
