"""Which tasks may run now: depth first by shard, within a bounded window of shards."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from melmill.flows.pipeline.graph import Node
from melmill.flows.planning.phases import Phase, ancestors, phases

# In place of a shard's number, for tasks over whole corpora: reports and trainings.
ALL_SHARDS = -1


@dataclass(frozen=True, slots=True, order=True)
class Task:
    """One node's work on one shard of one corpus, or on ALL_SHARDS, then without a corpus."""

    node: str
    corpus: str
    shard: int

    @classmethod
    def whole(cls, node: str) -> Task:
        """Return the task of a node that works on whole corpora."""
        return cls(node, "", ALL_SHARDS)

    @property
    def is_whole(self) -> bool:
        """Whether it works on whole corpora."""
        return self.shard == ALL_SHARDS

    def __str__(self) -> str:
        return f"{self.node}, {'all shards' if self.is_whole else f'shard {self.shard}'}"


# By task of a shard that is open: the unfinished ones that it waits for.
_Column = dict[Task, set[Task]]


class Frontier:
    """Hand out tasks whose inputs are done.

    A shard flows through all nodes of its phase before new shards are begun, so that results show early; at most
    `window` shards are open, so that memory does not grow with the corpus. Tasks over whole corpora wait for all tasks
    that lead to them: reports come last, and with trainings among them there is more than one phase.

    Parameters
    ----------
    nodes : mapping of str to Node
        Each after those that it reads.
    pending : mapping of str to set of int
        Shards that each node has still to do (``{ALL_SHARDS}`` for a task over whole corpora).
    window : int
        Shards open at a time.
    """

    def __init__(self, nodes: Mapping[str, Node], pending: Mapping[str, set[int]], window: int) -> None:
        self.nodes = nodes
        self.pending = pending
        self.window = window
        self.rank = {name: i for i, name in enumerate(nodes)}
        self.failed: set[Task] = set()
        self.blocked: set[Task] = set()
        self._ready: dict[str, list[tuple[int, int, int, Task]]] = {node.pool: [] for node in nodes.values()}
        self._open: dict[tuple[str, int], _Column] = {}
        self._running: set[Task] = set()
        self._left = {name: len(pending[name]) for name in nodes}
        ordered = phases(nodes, {name for name, shards in pending.items() if shards})
        # Trainings are the longest tasks, and others wait for them; nothing waits for reports.
        self._turn = {name: -1 if node.trains else len(ordered) for name, node in nodes.items()}
        self._turn |= {node.name: turn for turn, phase in enumerate(ordered) for node in phase.nodes}
        self._unopened = self._places(ordered)
        self._next = next(self._unopened, None)
        self._before = {
            Task.whole(name): {other for other in ancestors(nodes, name) if self._left[other]}
            for name, node in nodes.items()
            if node.is_whole and self._left[name]
        }
        self._release()

    @property
    def pools(self) -> list[str]:
        """Names of the pools that tasks are handed out for."""
        return list(self._ready)

    @property
    def done(self) -> bool:
        """Whether nothing is left to hand out or to wait for."""
        return not (self._next or self._open or self._running or self._before or any(self._ready.values()))

    def n_left(self, pool: str) -> int:
        """Return how many tasks of `pool` are unfinished: to be handed out, or running."""
        return sum(left for name, left in self._left.items() if self.nodes[name].pool == pool)

    def take(self, pool: str) -> Task | None:
        """Return the next task for `pool`, or None where nothing may run now."""
        while not self._ready.get(pool) and self._open_next():
            pass
        if not self._ready.get(pool):
            return None
        *_, task = heapq.heappop(self._ready[pool])
        self._running.add(task)
        return task

    def finish(self, task: Task) -> None:
        """Mark a task as done, freeing those that waited for it."""
        self._running.discard(task)
        self._close(task)

    def fail(self, task: Task) -> int:
        """Mark a task as failed, and all that need it as blocked; those of shards not open yet when they open.

        Returns how many are blocked for now.
        """
        n_blocked = len(self.blocked)
        self._running.discard(task)
        self.failed.add(task)
        column = self._open.get((task.corpus, task.shard), {})
        doomed = {task}
        for other in sorted(column, key=lambda waiting: self.rank[waiting.node]):
            if column[other] & doomed:
                doomed.add(other)
        self.blocked |= doomed - {task}
        for lost in doomed:
            self._close(lost)
        return len(self.blocked) - n_blocked

    def _close(self, task: Task) -> None:
        place = task.corpus, task.shard
        column = self._open.get(place, {})
        column.pop(task, None)
        for other, sources in column.items():
            if task in sources:
                sources.discard(task)
                if not sources and other not in self.blocked:
                    self._push(other)
        if not column:
            self._open.pop(place, None)
        self._settle(task)

    def _settle(self, task: Task) -> None:
        """Count a task that is done, failed or blocked."""
        self._left[task.node] -= 1
        if not self._left[task.node]:
            for waiting in self._before.values():
                waiting.discard(task.node)
            self._release()

    def _release(self) -> None:
        """Hand out, or block, the tasks over whole corpora that all leading to them is settled for."""
        while task := next((task for task, waiting in self._before.items() if not waiting), None):
            del self._before[task]
            if {lost.node for lost in self.failed | self.blocked} & ancestors(self.nodes, task.node):
                self.blocked.add(task)
                self._settle(task)
            else:
                self._push(task)

    def _push(self, task: Task) -> None:
        entry = self._turn[task.node], task.shard, self.rank[task.node], task
        heapq.heappush(self._ready[self.nodes[task.node].pool], entry)

    def _places(self, ordered: list[Phase]) -> Iterator[tuple[Phase, str, int]]:
        for phase in ordered:
            corpora: dict[str, set[int]] = {}
            for node in phase.nodes:
                corpora.setdefault(node.corpora[0], set()).update(self.pending[node.name])
            for corpus, shards in corpora.items():
                for shard in sorted(shards):
                    yield phase, corpus, shard

    def _open_next(self) -> bool:
        """Begin the next shard of a phase; say whether there is one that may begin now."""
        if self._next is None:
            return False
        phase, corpus, shard = self._next
        full = len(self._open) >= self.window and (corpus, shard) not in self._open
        if full or any(self._left[name] for name in phase.waits_for):
            return False
        self._next = next(self._unopened, None)
        column = self._open.setdefault((corpus, shard), {})
        for node in phase.nodes:
            if node.corpora[0] == corpus and shard in self.pending[node.name]:
                self._add(Task(node.name, corpus, shard), column)
        if not column:
            del self._open[corpus, shard]
        return True

    def _add(self, task: Task, column: _Column) -> None:
        """Add a task to its shard's: ready, waiting for others of the shard, or blocked."""
        sources = {
            Task.whole(name) if self.nodes[name].is_whole else Task(name, task.corpus, task.shard)
            for name in self.nodes[task.node].sources
        }
        if sources & (self.failed | self.blocked):
            self.blocked.add(task)
            self._settle(task)
            return
        column[task] = sources & column.keys()
        if not column[task]:
            self._push(task)
