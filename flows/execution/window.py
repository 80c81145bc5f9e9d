"""Which tasks may run now: depth first by shard, within a bounded window of shards."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from melmill.flows.errors import RunFailed
from melmill.flows.pipeline.graph import Node
from melmill.flows.planning.pairing import Paired
from melmill.flows.planning.phases import Phase, ancestors, phases
from melmill.flows.tasks.task import Task

# The unfinished tasks of an open shard, each with those of the shard that it waits for.
_OpenShard = dict[Task, set[Task]]

_NO_PAIRS: Mapping[str, Paired] = MappingProxyType({})


class ShardWindow:
    """Hand out tasks whose inputs are done.

    A shard goes through all nodes of its phase before new shards are opened, so that results show
    early. At most `max_open` shards are open, so that memory does not grow with the corpus. A task
    over whole corpora waits for all tasks that lead to it. Reports come last. With trainings or
    pairs there may be more than one phase.

    Parameters
    ----------
    nodes : mapping of str to Node
        Each after those that it reads.
    pending : mapping of str to set of int
        Shards that each node has still to do (``{ALL_SHARDS}`` for a task over whole corpora).
    max_open : int
        Number of shards that may be open at a time.
    paired : mapping of str to Paired
        Pairs of the nodes that read two corpora, by node.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        pending: Mapping[str, set[int]],
        max_open: int,
        paired: Mapping[str, Paired] = _NO_PAIRS,
    ) -> None:
        self.nodes = nodes
        self.pending = pending
        self.max_open = max_open
        self.paired = paired
        self.failed: set[Task] = set()
        self.blocked: set[Task] = set()
        self._stopped = ""
        self._rank = {name: i for i, name in enumerate(nodes)}
        # By pool, a heap of tasks that may run, the next one first.
        self._ready: dict[str, list[tuple[int, int, int, Task]]] = {node.pool: [] for node in nodes.values()}
        self._open: dict[tuple[str, int], _OpenShard] = {}
        self._running: set[Task] = set()
        self._n_left = {name: len(pending[name]) for name in nodes}
        in_order = phases(nodes, {name for name, shards in pending.items() if shards})
        # Trainings come first, as they are the longest tasks and others wait for them. Nothing
        # waits for reports.
        self._priority = {name: -1 if node.trains else len(in_order) for name, node in nodes.items()}
        self._priority |= {node.name: i for i, phase in enumerate(in_order) for node in phase.nodes}
        self._unopened = self._shards(in_order)
        self._next_shard = next(self._unopened, None)
        # Tasks over whole corpora, each with the unfinished nodes that lead to it.
        self._waiting = {
            Task.whole(name): {other for other in ancestors(nodes, name) if self._n_left[other]}
            for name, node in nodes.items()
            if node.is_whole and self._n_left[name]
        }
        self._release_whole()

    @property
    def pools(self) -> list[str]:
        """Names of the pools that tasks are handed out for."""
        return list(self._ready)

    @property
    def done(self) -> bool:
        """Whether nothing is left to hand out or to wait for."""
        return not (self._next_shard or self._open or self._running or self._waiting or any(self._ready.values()))

    def check_done(self) -> None:
        """Raise RunFailed if tasks are left. Call it when none may run and none is in flight."""
        if self.done:
            return
        left = ", ".join(f"{name} {n}" for name, n in self._n_left.items() if n)
        open_tasks = {*self._running, *self._waiting, *(task for shard in self._open.values() for task in shard)}
        first = min(open_tasks, key=lambda task: (task.is_whole, task.shard, self._rank[task.node]), default=None)
        raise RunFailed(
            f"tasks are left, but none of them can start and none runs: {left or 'none is counted'} "
            f"(tasks per node{f'; first: {first}' if first else ''}). This is a defect of melmill. "
            "What is computed is stored; run again to go on"
        )

    def n_left(self, pool: str) -> int:
        """Return how many tasks of `pool` are unfinished: to be handed out, or running."""
        return sum(n for name, n in self._n_left.items() if self.nodes[name].pool == pool)

    def stop(self, reason: str) -> None:
        """Hand out no more tasks: `take` raises, if anything is left."""
        self._stopped = reason

    def take(self, pool: str) -> Task | None:
        """Return the next task for `pool`; None if nothing may run now.

        Raises
        ------
        RunFailed
            The window was stopped.
        """
        if self._stopped and not self.done:
            raise RunFailed(self._stopped)
        while not self._ready.get(pool) and self._open_shard():
            pass
        if not self._ready.get(pool):
            return None
        *_, task = heapq.heappop(self._ready[pool])
        self._running.add(task)
        return task

    def finish(self, task: Task) -> None:
        """Mark a task as done, which frees those that waited for it."""
        self._running.discard(task)
        self._close(task)

    def fail(self, task: Task) -> int:
        """Mark a task as failed and the open tasks that need it as blocked; return how many.

        Tasks of shards that are not open yet are blocked when their shards are opened.
        """
        n_blocked = len(self.blocked)
        self._running.discard(task)
        self.failed.add(task)
        shard = self._open.get((task.corpus, task.shard), {})
        lost = {task}
        for other in sorted(shard, key=lambda waiting: self._rank[waiting.node]):
            if shard[other] & lost:
                lost.add(other)
        self.blocked |= lost - {task}
        for other in lost:
            self._close(other)
        return len(self.blocked) - n_blocked

    def _close(self, task: Task) -> None:
        """Remove a task from its shard, which frees those that waited for it alone."""
        place = task.corpus, task.shard
        shard = self._open.get(place, {})
        shard.pop(task, None)
        for other, inputs in shard.items():
            if task in inputs:
                inputs.discard(task)
                if not inputs and other not in self.blocked:
                    self._push(other)
        if not shard:
            self._open.pop(place, None)
        self._count_settled(task)

    def _count_settled(self, task: Task) -> None:
        """Count a task that is done, failed or blocked."""
        self._n_left[task.node] -= 1
        if not self._n_left[task.node]:
            for nodes in self._waiting.values():
                nodes.discard(task.node)
            self._release_whole()

    def _release_whole(self) -> None:
        """Make the tasks over whole corpora ready, or blocked, that wait for no unfinished node."""
        while task := next((task for task, nodes in self._waiting.items() if not nodes), None):
            del self._waiting[task]
            if {lost.node for lost in self.failed | self.blocked} & ancestors(self.nodes, task.node):
                self.blocked.add(task)
                self._count_settled(task)
            else:
                self._push(task)

    def _push(self, task: Task) -> None:
        entry = self._priority[task.node], task.shard, self._rank[task.node], task
        heapq.heappush(self._ready[self.nodes[task.node].pool], entry)

    def _shards(self, in_order: list[Phase]) -> Iterator[tuple[Phase, str, int]]:
        """Yield the pending shards of each phase, with their corpora."""
        for phase in in_order:
            corpora: dict[str, set[int]] = {}
            for node in phase.nodes:
                corpora.setdefault(node.corpora[0], set()).update(self.pending[node.name])
            for corpus, shards in corpora.items():
                for shard in sorted(shards):
                    yield phase, corpus, shard

    def _open_shard(self) -> bool:
        """Open the next shard; return whether there is one that may be opened now."""
        if self._next_shard is None:
            return False
        phase, corpus, index = self._next_shard
        full = len(self._open) >= self.max_open and (corpus, index) not in self._open
        if full or any(self._n_left[name] for name in phase.waits_for):
            return False
        self._next_shard = next(self._unopened, None)
        shard = self._open.setdefault((corpus, index), {})
        for node in phase.nodes:
            if node.corpora[0] == corpus and index in self.pending[node.name]:
                self._add(Task(node.name, corpus, index), shard)
        if not shard:
            del self._open[corpus, index]
        return True

    def _add(self, task: Task, shard: _OpenShard) -> None:
        """Add a task to its open shard: ready, waiting for others of the shard, or blocked."""
        node = self.nodes[task.node]
        inputs = {
            Task.whole(name) if self.nodes[name].is_whole else Task(name, task.corpus, task.shard)
            for name in node.sources
            if name != node.paired_source
        }
        if paired := self.paired.get(task.node):
            inputs |= {Task(paired.source, paired.corpus, shard) for shard in paired.shards_for(task.shard)}
        if inputs & (self.failed | self.blocked):
            self.blocked.add(task)
            self._count_settled(task)
            return
        shard[task] = inputs & shard.keys()
        if not shard[task]:
            self._push(task)
