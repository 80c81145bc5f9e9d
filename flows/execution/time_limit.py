"""End this process where a task takes longer than it may: a thread that hangs can't be interrupted, only killed."""

from __future__ import annotations

import faulthandler
import itertools
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO

_lock = threading.Lock()
_tokens = itertools.count()
# When the task of each thread must be done, on the monotonic clock, s.
_deadlines: dict[int, float] = {}


@contextmanager
def ended_after(limit_s: float | None) -> Iterator[None]:
    """End this process with exit code 1 where the block takes longer than `limit_s`; None for no limit.

    The clock is one of C: it ends a process whose threads all wait for a lock that is never let go.
    """
    if limit_s is None:
        yield
        return
    token = next(_tokens)
    with _lock:
        _deadlines[token] = time.monotonic() + limit_s
        _wind()
    try:
        yield
    finally:
        with _lock:
            del _deadlines[token]
            _wind()


def _wind() -> None:
    """Set the one clock that a process has to the first deadline."""
    if _deadlines:
        left_s = max(min(_deadlines.values()) - time.monotonic(), 0.001)
        faulthandler.dump_traceback_later(left_s, exit=True, file=_nowhere())
    else:
        faulthandler.cancel_dump_traceback_later()


@cache
def _nowhere() -> IO[bytes]:
    # Where it hung is found out by whoever looks at its utterances one by one.
    return tempfile.TemporaryFile()
