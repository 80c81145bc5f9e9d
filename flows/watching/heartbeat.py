"""A thread that does small duties while the main one waits for tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType

INTERVAL_S = 1.0

Duty = Callable[[], None]


class Heartbeat:
    """Do every duty about once a second, as long as the block lasts.

    Parameters
    ----------
    duties : sequence of callable
        One that raises is not done again, and is complained of.
    complain : callable
    """

    def __init__(self, duties: Sequence[Duty], complain: Callable[[str], None]) -> None:
        self._duties = list(duties)
        self._complain = complain
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="melmill-heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        # A duty may hang with the cluster that it asks; the run's end does not wait for it long.
        self._thread.join(timeout=5 * INTERVAL_S)

    def _beat(self) -> None:
        while not self._end.wait(INTERVAL_S):
            for duty in list(self._duties):
                try:
                    duty()
                except Exception as error:
                    self._duties.remove(duty)
                    if not self._end.is_set():
                        self._complain(
                            f"watching the run goes on without a part of it: {type(error).__name__}: {error}"
                        )
