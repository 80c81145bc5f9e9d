"""What a run has done so far, node by node, counted from its events."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from melmill.flows.execution.window import Task
from melmill.flows.watching.events import Event, Failed, Finished, Retried, Stalled, Submitted, WorkerDied


@dataclass(kw_only=True)
class NodeTally:
    """Count one node's tasks of this run.

    Parameters
    ----------
    pending : int
        Neither done nor given up; those that wait for a failed one stay pending.
    in_flight, done, failed, retried, deaths, stalled, quarantined : int
        Tasks, but for `deaths` (of workers) and `quarantined` (utterances).
    audio_s, compute_s, task_s : float
        Sums over the tasks done: their audio, and time inside the stage and of whole tasks, s.
    """

    pending: int
    in_flight: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    deaths: int = 0
    stalled: int = 0
    quarantined: int = 0
    audio_s: float = 0.0
    compute_s: float = 0.0
    task_s: float = 0.0


@dataclass
class Tally:
    """Listen to a run and count.

    Parameters
    ----------
    nodes : mapping of str to NodeTally
        By name, in the pipeline's order.
    """

    nodes: Mapping[str, NodeTally]
    started: float = field(default_factory=time.monotonic)
    _flying: set[Task] = field(default_factory=set)

    def __call__(self, event: Event) -> None:
        """Count an event."""
        match event:
            case Submitted(task=task):
                self._fly(task)
            case Finished(task=task, receipt=receipt):
                self._land(task)
                node = self.nodes[task.node]
                node.pending -= 1
                node.done += 1
                node.quarantined += receipt.n_quarantined
                node.audio_s += receipt.audio_s
                node.compute_s += receipt.compute_s
                node.task_s += receipt.wall_s
            case Retried(task=task):
                self._land(task)
                self.nodes[task.node].retried += 1
            case WorkerDied(task=task):
                self._land(task)
                self.nodes[task.node].deaths += 1
            case Failed(task=task):
                self._land(task)
                self.nodes[task.node].pending -= 1
                self.nodes[task.node].failed += 1
            case Stalled(running=running):
                self.nodes[running.task.node].stalled += 1

    def _fly(self, task: Task) -> None:
        self._flying.add(task)
        self.nodes[task.node].in_flight += 1

    def _land(self, task: Task) -> None:
        # A worker's death lands a task, and so does giving it up thereafter.
        if task in self._flying:
            self._flying.remove(task)
            self.nodes[task.node].in_flight -= 1

    @property
    def elapsed_s(self) -> float:
        """Time since the run began, s."""
        return time.monotonic() - self.started

    @property
    def times_real_time(self) -> float:
        """Audio through the whole pipeline over wall time."""
        n_flows = sum(1 for node in self.nodes.values() if node.audio_s or node.pending)
        return sum(node.audio_s for node in self.nodes.values()) / max(1, n_flows) / max(self.elapsed_s, 1e-9)

    def total(self, count: str) -> int:
        """Return a count of `NodeTally` over all nodes."""
        return sum(getattr(node, count) for node in self.nodes.values())

    @property
    def work_left_s(self) -> float | None:
        """Estimate the time of all pending tasks by each node's own mean, s; None before the first task is done."""
        n_done = self.total("done")
        if not n_done:
            return None
        overall = sum(node.task_s for node in self.nodes.values()) / n_done
        means = ((node, node.task_s / node.done if node.done else overall) for node in self.nodes.values())
        return sum(node.pending * mean for node, mean in means)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return plain values by node, for JSON and messages."""
        return {name: asdict(node) for name, node in self.nodes.items()}


class Pace:
    """Time a second of audio takes at a node: the median over its last tasks, so that one slow task tells nothing."""

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
        """Return how long a task of so much audio should take; None before any is done."""
        if not self._rates:
            return None
        if self._median is None:
            self._median = median(self._rates)
        return self._median * audio_s
