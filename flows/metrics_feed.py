"""Keep the scheduler told how a run is doing, for its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from melmill.flows.events import Event, Ready, RunFinished
from melmill.flows.tally import Tally

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
