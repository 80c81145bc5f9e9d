"""Which tasks may run now: depth first by shard, within a bounded window of shards."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from melmill.flows.graph import Node
from melmill.stages.stage import Report


@dataclass(frozen=True, slots=True, order=True)
class Task:
    """One node's work on one shard of one corpus; a report's task has shard -1 and no corpus."""

    node: str
    corpus: str
    shard: int


@dataclass
class _Column:
    """The unfinished tasks of one shard."""

    order: int
    waits_for: dict[Task, set[Task]] = field(default_factory=dict)


class Frontier:
    """Hand out tasks whose inputs are done.

    A shard flows through all its nodes before new shards are begun, so that results show early; at most `window` shards
    are open, so that memory does not grow with the corpus. Reports wait for everything they read.

    Parameters
    ----------
    nodes : mapping of str to Node
        Each after those that it reads.
    pending : mapping of str to set of int
        Shards that each node has still to do (``{-1}`` for a report).
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
        self._ready: dict[str, list[tuple[int, int, Task]]] = {node.pool: [] for node in nodes.values()}
        self._open: dict[tuple[str, int], _Column] = {}
        self._columns = self._unopened()
        self._exhausted = False
        self._running: set[Task] = set()
        self._unfinished_reports = [Task(n.name, "", -1) for n in nodes.values() if _is_report(n) and pending[n.name]]

    @property
    def pools(self) -> list[str]:
        """Names of the pools that tasks are handed out for."""
        return list(self._ready)

    @property
    def done(self) -> bool:
        """Whether nothing is left to hand out or to wait for."""
        waiting = self._open or self._running or self._unfinished_reports or any(self._ready.values())
        return self._exhausted and not waiting

    def take(self, pool: str) -> Task | None:
        """Return the next task for `pool`, or None where nothing may run now."""
        while not self._ready.get(pool) and self._open_next():
            pass
        self._release_reports()
        if not self._ready.get(pool):
            return None
        _, _, task = heapq.heappop(self._ready[pool])
        self._running.add(task)
        return task

    def finish(self, task: Task) -> None:
        """Mark a task as done, freeing those that waited for it."""
        self._running.discard(task)
        self._close(task)

    def fail(self, task: Task) -> int:
        """Mark a task as failed, and all of its shard that need it as blocked; return how many those are."""
        self._running.discard(task)
        self.failed.add(task)
        doomed = {task}
        if task.corpus:
            column = self._open[task.corpus, task.shard]
            for other in sorted(column.waits_for, key=lambda waiting: self.rank[waiting.node]):
                if column.waits_for[other] & doomed:
                    doomed.add(other)
            self.blocked |= doomed - {task}
            for other in doomed - {task}:
                del column.waits_for[other]
        self._close(task)
        return len(doomed) - 1

    def _close(self, task: Task) -> None:
        column = self._open.get((task.corpus, task.shard))
        if column is None:
            return
        column.waits_for.pop(task, None)
        for other, sources in column.waits_for.items():
            if task in sources:
                sources.discard(task)
                if not sources:
                    self._push(other, column.order)
        if not column.waits_for:
            del self._open[task.corpus, task.shard]

    def _push(self, task: Task, order: int) -> None:
        heapq.heappush(self._ready[self.nodes[task.node].pool], (order, self.rank[task.node], task))

    def _unopened(self) -> Iterator[tuple[str, int]]:
        corpora: dict[str, set[int]] = {}
        for node in self.nodes.values():
            if not _is_report(node):
                corpora.setdefault(node.corpora[0], set()).update(self.pending[node.name])
        for corpus, shards in corpora.items():
            for shard in sorted(shards):
                yield corpus, shard

    def _open_next(self) -> bool:
        if len(self._open) >= self.window or self._exhausted:
            return False
        place = next(self._columns, None)
        if place is None:
            self._exhausted = True
            return False
        corpus, shard = place
        column = _Column(order=shard)
        members = [
            node
            for node in self.nodes.values()
            if not _is_report(node) and node.corpora[0] == corpus and shard in self.pending[node.name]
        ]
        names = {node.name for node in members}
        for node in members:
            sources = {Task(source, corpus, shard) for source in node.sources if source in names}
            column.waits_for[Task(node.name, corpus, shard)] = sources
        self._open[place] = column
        for task, sources in column.waits_for.items():
            if not sources:
                self._push(task, column.order)
        return True

    def _release_reports(self) -> None:
        if not self._exhausted or self._open:
            return
        lost = {task.node for task in self.failed | self.blocked}
        for task in self._unfinished_reports:
            if lost & ancestors(self.nodes, task.node):
                self.blocked.add(task)
            else:
                self._push(task, len(self.rank))
        self._unfinished_reports = []


def ancestors(nodes: Mapping[str, Node], name: str) -> set[str]:
    """Return the names of all nodes that `name` reads, directly or not."""
    found: set[str] = set()
    waiting: Sequence[str] = nodes[name].sources
    while waiting:
        found.update(waiting)
        waiting = [source for reader in waiting for source in nodes[reader].sources if source not in found]
    return found


def _is_report(node: Node) -> bool:
    return isinstance(node.product, Report)
