"""End this process if a task takes too long, as a thread that hangs can't be interrupted."""

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
# When each block must be done, on the monotonic clock, s.
_deadlines: dict[int, float] = {}


@contextmanager
def time_limit(limit_s: float | None) -> Iterator[None]:
    """End this process with exit code 1 if the block exceeds `limit_s`; None sets no limit.

    The alarm is set in C. It ends even a process whose threads all wait for a lock that is never
    released.
    """
    if limit_s is None:
        yield
        return
    token = next(_tokens)
    try:
        with _lock:
            _deadlines[token] = time.monotonic() + limit_s
            _set_alarm()
        yield
    finally:
        with _lock:
            # It is missing if an interrupt came before it was set.
            _deadlines.pop(token, None)
            _set_alarm()


def _set_alarm() -> None:
    """Set the one alarm of this process to the first deadline."""
    if _deadlines:
        left_s = max(min(_deadlines.values()) - time.monotonic(), 0.001)
        faulthandler.dump_traceback_later(left_s, exit=True, file=_discarded())
    else:
        faulthandler.cancel_dump_traceback_later()


@cache
def _discarded() -> IO[bytes]:
    # A later attempt, utterance by utterance, finds out where it hung.
    return tempfile.TemporaryFile()
