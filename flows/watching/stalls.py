"""Name the tasks that take much longer than they should, and the utterances that they are at."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from melmill.flows.execution.window import Task
from melmill.flows.watching.events import (
    Event,
    Failed,
    Finished,
    Listener,
    Ready,
    Retried,
    Running,
    Stalled,
    Submitted,
    WorkerDied,
)
from melmill.flows.watching.tally import Pace

# A task stalls when it runs this many times as long as its audio takes at its node ...
TIMES_EXPECTED = 5.0

# ... and at least so long, s.
STALL_AFTER_S = 60.0

# Without a task done to compare with, it may just be slow work: so many times STALL_AFTER_S.
TIMES_UNKNOWN = 10.0

AudioOf = Callable[[Task], float]


@dataclass(frozen=True, slots=True)
class _Attempt:
    number: int
    since: float


class StallWatch:
    """Listen to a run and, when asked to look, announce each attempt that stalls, once.

    Nobody is asked anything before an attempt is in flight for as long as a stall takes; then only the workers that
    hold such attempts are.

    Parameters
    ----------
    nodes : sequence of str
        Whose tasks are watched.
    audio_of : callable
        Audio of a task's shard, s.
    announce : callable
    after_s : float
        What a task may always take, s.
    """

    def __init__(self, nodes: Sequence[str], audio_of: AudioOf, announce: Listener, after_s: float) -> None:
        self.audio_of = audio_of
        self.announce = announce
        self.after_s = after_s
        self._paces = {node: Pace() for node in nodes}
        self._flying: dict[Task, _Attempt] = {}
        self._told: set[tuple[Task, int]] = set()
        self._look: Callable[[Sequence[Task]], Sequence[Running]] | None = None

    def __call__(self, event: Event) -> None:
        """Learn who is in flight, and how long tasks take."""
        match event:
            case Ready(look=look):
                self._look = look
            case Submitted(task=task, attempt=number) if task.node in self._paces:
                self._flying[task] = _Attempt(number, time.monotonic())
            case Finished(task=task, receipt=receipt):
                self._flying.pop(task, None)
                if task.node in self._paces:
                    self._paces[task.node].add(receipt.wall_s, receipt.audio_s)
            case Retried(task=task) | WorkerDied(task=task) | Failed(task=task):
                self._flying.pop(task, None)

    def look(self) -> None:
        """Ask about attempts that may have stalled, and announce those that have."""
        now = time.monotonic()
        flying: Mapping[Task, _Attempt] = dict(self._flying)
        suspects = [
            task
            for task, attempt in flying.items()
            if (task, attempt.number) not in self._told and now - attempt.since > self.limit_s(task)
        ]
        if not suspects or self._look is None:
            return
        for running in self._look(suspects):
            # One that waited in a queue has run for less than it was in flight; one may be done by now.
            if running.running_s > self.limit_s(running.task) and running.task in self._flying:
                self._told.add((running.task, running.attempt))
                self.announce(Stalled(running=running, expected_s=self.expected_s(running.task)))

    def expected_s(self, task: Task) -> float | None:
        """Return how long a task should take; None before any of its node is done."""
        return self._paces[task.node].expected_s(self.audio_of(task))

    def limit_s(self, task: Task) -> float:
        """Return after how long a task counts as stalled, s."""
        expected = self.expected_s(task)
        if expected is None:
            return TIMES_UNKNOWN * self.after_s
        return max(self.after_s, TIMES_EXPECTED * expected)
