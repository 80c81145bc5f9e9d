"""Count what a run has done so far, node by node, from its events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from melmill.flows.tasks.task import Task
from melmill.flows.watching.events import Event, Failed, Finished, Retried, Stalled, Submitted, Withdrawn, WorkerDied


@dataclass(kw_only=True)
class NodeTally:
    """Count one node's tasks of this run.

    Parameters
    ----------
    pending : int
        Tasks neither done nor given up. Those that wait for a failed one stay pending.
    in_flight, done, failed, retried, stalled : int
        Tasks.
    deaths : int
        Workers that died at its tasks.
    quarantined : int
        Utterances.
    audio_s, compute_s, task_s : float
        Sums over the tasks done, s: their audio, the time inside the stage, and the time of whole
        tasks.
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
    """Listen to a run and count the tasks of each node.

    Parameters
    ----------
    nodes : mapping of str to NodeTally
        By name, in the pipeline's order.
    """

    nodes: Mapping[str, NodeTally]
    started: float = field(default_factory=time.monotonic)
    _in_flight: set[Task] = field(default_factory=set)

    def __call__(self, event: Event) -> None:
        """Count an event."""
        match event:
            case Submitted(task=task):
                self._in_flight.add(task)
                self.nodes[task.node].in_flight += 1
            case Finished(task=task, receipt=receipt):
                self._end(task)
                node = self.nodes[task.node]
                node.pending -= 1
                node.done += 1
                node.quarantined += receipt.n_quarantined
                node.audio_s += receipt.audio_s
                node.compute_s += receipt.compute_s
                node.task_s += receipt.wall_s
            case Retried(task=task):
                self._end(task)
                self.nodes[task.node].retried += 1
            case WorkerDied(task=task):
                self._end(task)
                self.nodes[task.node].deaths += 1
            case Failed(task=task):
                self._end(task)
                self.nodes[task.node].pending -= 1
                self.nodes[task.node].failed += 1
            case Withdrawn(task=task):
                self._end(task)
            case Stalled(status=status):
                self.nodes[status.task.node].stalled += 1

    def _end(self, task: Task) -> None:
        # Ended twice if its worker died and the task was then given up.
        if task in self._in_flight:
            self._in_flight.remove(task)
            self.nodes[task.node].in_flight -= 1

    @property
    def elapsed_s(self) -> float:
        """Time since the run began, s."""
        return time.monotonic() - self.started

    @property
    def times_real_time(self) -> float:
        """Audio that went through the whole pipeline over wall time."""
        n_nodes = sum(1 for node in self.nodes.values() if node.audio_s or node.pending)
        return sum(node.audio_s for node in self.nodes.values()) / max(1, n_nodes) / max(self.elapsed_s, 1e-9)

    def total(self, count: str) -> int:
        """Return a count of `NodeTally` over all nodes."""
        return sum(getattr(node, count) for node in self.nodes.values())

    @property
    def work_left_s(self) -> float | None:
        """Time of all pending tasks, by each node's mean, s; None before the first is done."""
        n_done = self.total("done")
        if not n_done:
            return None
        overall = sum(node.task_s for node in self.nodes.values()) / n_done
        means = ((node, node.task_s / node.done if node.done else overall) for node in self.nodes.values())
        return sum(node.pending * mean for node, mean in means)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return the counts of each node as plain values, for JSON and messages."""
        return {name: asdict(node) for name, node in self.nodes.items()}
