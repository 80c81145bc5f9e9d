"""What a task at work says to whoever runs it, and whether it is still wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


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
