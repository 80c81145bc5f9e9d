"""Find the tasks that take much longer than they should, and the utterances that they work on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from melmill.flows.tasks.task import Task
from melmill.flows.watching.events import (
    Event,
    Failed,
    Finished,
    Listener,
    Ready,
    Retried,
    Stalled,
    Submitted,
    TaskStatus,
    Withdrawn,
    WorkerDied,
)

# A task stalls if it takes this many times as long as its audio usually takes at its node ...
TIMES_EXPECTED = 5.0

# ... and at least this long, s.
STALL_AFTER_S = 60.0

# Before any task of its node is done, it stalls after this many times STALL_AFTER_S.
TIMES_UNKNOWN = 10.0

# Returns the audio of a task, s.
AudioOf = Callable[[Task], float]


class Pace:
    """The time that a second of audio takes at a node: the median over its last tasks."""

    LAST = 101

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=self.LAST)
        self._median: float | None = None

    def add(self, wall_s: float, audio_s: float) -> None:
        """Count a finished task."""
        if audio_s > 0:
            self._rates.append(wall_s / audio_s)
            self._median = None

    def expected_s(self, audio_s: float) -> float | None:
        """Return how long a task with so much audio should take, s; None before any is done."""
        if not self._rates:
            return None
        if self._median is None:
            self._median = median(self._rates)
        return self._median * audio_s


@dataclass(frozen=True, slots=True)
class _Attempt:
    number: int
    submitted_s: float
    after: Task | None = None


class StallWatch:
    """Announce each attempt that stalls, once.

    Nobody is probed before an attempt is in flight for as long as a stall takes. Then only the
    workers that hold such attempts are.

    Parameters
    ----------
    nodes : sequence of str
        Nodes whose tasks are watched.
    audio_of : callable
        Returns the audio of a task, s.
    announce : callable
    after_s : float
        Time that every task may take, s.
    """

    def __init__(self, nodes: Sequence[str], audio_of: AudioOf, announce: Listener, after_s: float) -> None:
        self.audio_of = audio_of
        self.announce = announce
        self.after_s = after_s
        self._paces = {node: Pace() for node in nodes}
        self._in_flight: dict[Task, _Attempt] = {}
        # By task, those in flight that begin when it is done.
        self._followers: dict[Task, list[Task]] = {}
        self._announced: set[tuple[Task, int]] = set()
        self._probe: Callable[[Sequence[Task]], Sequence[TaskStatus]] | None = None

    def __call__(self, event: Event) -> None:
        """Note what is in flight, and how long tasks take."""
        match event:
            case Ready(probe=probe):
                self._probe = probe
            case Submitted(task=task, attempt=number, after=after) if task.node in self._paces:
                self._in_flight[task] = _Attempt(number, time.monotonic(), after)
                if after is not None:
                    self._followers.setdefault(after, []).append(task)
            case Finished(task=task, receipt=receipt):
                self._end(task)
                if task.node in self._paces:
                    self._paces[task.node].add(receipt.wall_s, receipt.audio_s)
            case Retried(task=task) | WorkerDied(task=task) | Failed(task=task) | Withdrawn(task=task):
                self._end(task)

    def _end(self, task: Task) -> None:
        """Note that a task is in flight no more. What comes after it begins now, if it is."""
        self._in_flight.pop(task, None)
        for follower in self._followers.pop(task, ()):
            if (attempt := self._in_flight.get(follower)) is not None and attempt.after == task:
                self._in_flight[follower] = replace(attempt, submitted_s=time.monotonic(), after=None)

    def check(self) -> None:
        """Probe the attempts that may have stalled, and announce those that have."""
        now = time.monotonic()
        suspects = [
            task
            for task, attempt in dict(self._in_flight).items()
            if attempt.after not in self._in_flight
            and (task, attempt.number) not in self._announced
            and now - attempt.submitted_s > self.limit_s(task)
        ]
        if not suspects or self._probe is None:
            return
        for status in self._probe(suspects):
            # A task that waited in a queue has run for less than it was in flight, and one may be
            # done by now.
            if status.running_s > self.limit_s(status.task) and status.task in self._in_flight:
                self._mark(status.task)
                self.announce(Stalled(status=status, expected_s=self.expected_s(status.task)))

    def _mark(self, task: Task | None) -> None:
        """Ask no more about an attempt, nor about those before it in its chain."""
        while task is not None and (attempt := self._in_flight.get(task)) is not None:
            self._announced.add((task, attempt.number))
            task = attempt.after

    def expected_s(self, task: Task) -> float | None:
        """Return how long a task should take, s; None before any of its node is done."""
        return self._paces[task.node].expected_s(self.audio_of(task))

    def limit_s(self, task: Task) -> float:
        """Return the time after which a task counts as stalled, s."""
        expected = self.expected_s(task)
        if expected is None:
            return TIMES_UNKNOWN * self.after_s
        return max(self.after_s, TIMES_EXPECTED * expected)
