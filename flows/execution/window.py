"""Which tasks may run now: depth first by shard, within a bounded window of shards."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set
from types import MappingProxyType

from melmill.flows.execution.errors import RunFailed
from melmill.flows.pipeline.graph import Node
from melmill.flows.planning.pairing import Paired
from melmill.flows.planning.phases import Phase, ancestors, phases
from melmill.flows.tasks.task import Task
from melmill.storage.corpus.shard_set import union

# The unfinished tasks of an open shard, each with those of the shard that it waits for.
_OpenShard = dict[Task, set[Task]]

# Of a heap: what decides the order, and the task.
_Entry = tuple[int, int, int, Task]

_NO_PAIRS: Mapping[str, Paired] = MappingProxyType({})


class ShardWindow:
    """Hand out tasks whose inputs are done.

    A shard goes through all nodes of its phase before new shards are opened, so that results show
    early. At most `max_open` shards are open, so that memory does not grow with the corpus. A task
    over whole corpora waits for all tasks that lead to it. Reports come last. With trainings or
    pairs there may be more than one phase.

    Tasks are handed out one by one, or in chains: tasks of one shard and pool that a worker does
    one after the other.

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
        pending: Mapping[str, Set[int]],
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
        # By pool, a heap of tasks that may run, the next one first. Those that were handed out since
        # stay in it, and are not in `_queued`.
        self._ready: dict[str, list[_Entry]] = {node.pool: [] for node in nodes.values()}
        self._queued: set[Task] = set()
        # By pool, tasks that wait for nothing but tasks which were handed out.
        self._next: dict[str, deque[Task]] = {node.pool: deque() for node in nodes.values()}
        self._open: dict[tuple[str, int], _OpenShard] = {}
        # Of each open shard: how many of its phase are left with it, of how many.
        self._nth: dict[tuple[str, int], tuple[int, int]] = {}
        self._running: set[Task] = set()
        # Those of them that are not at a worker, and may never be again.
        self._aside: set[Task] = set()
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
        return not (self._next_shard or self._open or self._running or self._waiting or self._queued)

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
        return next(iter(self.take_chain(pool)), None)

    def take_chain(self, pool: str, n_slots: int | None = None) -> tuple[Task, ...]:
        """Return the next task for `pool`, and the tasks of its shard that follow it in one chain.

        The chain is empty if nothing may run now. Of the last shards of a phase, fewer than there
        are slots, each chain is one task: idle workers take the branches.

        Parameters
        ----------
        pool : str
        n_slots : int or None
            Tasks of the pool that run at the same time. None makes chains of one task.

        Raises
        ------
        RunFailed
            The window was stopped.
        """
        self._check_stopped()
        while not self._has_ready(pool) and self._open_shard():
            pass
        if not self._has_ready(pool):
            return ()
        *_, task = heapq.heappop(self._ready[pool])
        return self._handed_out(task, n_slots)

    def take_next(self, pool: str, n_slots: int | None = None) -> tuple[Task, ...]:
        """Return a chain for `pool` that waits for nothing but tasks which were handed out.

        It is empty if there is none. For the rest see `take_chain`.
        """
        self._check_stopped()
        waiting = self._next[pool]
        while waiting:
            task = waiting.popleft()
            if self._is_next(task):
                return self._handed_out(task, n_slots)
        return ()

    def _is_next(self, task: Task) -> bool:
        """Tell whether all that a task waits for was handed out, and it was not."""
        inputs = self._open.get((task.corpus, task.shard), {}).get(task)
        if not inputs or task in self._running:
            return False
        return inputs <= self._running and not inputs & self._aside

    def waits_for(self, tasks: Iterable[Task]) -> set[Task]:
        """Return the unfinished tasks that tasks of one open shard wait for, without themselves."""
        mine = set(tasks)
        inputs = [self._open.get((task.corpus, task.shard), {}).get(task, set()) for task in mine]
        return set().union(*inputs) - mine

    def put_back(self, task: Task) -> None:
        """Take back a task that was handed out and did not begin."""
        self._running.discard(task)
        if not self._open[task.corpus, task.shard][task]:
            self._push(task)
        self._find_next(task)

    def put_aside(self, task: Task) -> None:
        """Note that a task that was handed out is at no worker. Nothing is handed out upon it."""
        self._aside.add(task)

    def take_up(self, task: Task) -> None:
        """Note that a task that was put aside is at a worker again."""
        self._aside.discard(task)
        self._find_next(task)

    def finish(self, task: Task) -> None:
        """Mark a task as done, which frees those that waited for it."""
        self._running.discard(task)
        self._close(task)

    def _check_stopped(self) -> None:
        if self._stopped and not self.done:
            raise RunFailed(self._stopped)

    def _has_ready(self, pool: str) -> bool:
        """Tell whether a task of a pool may run now. It is then the first of the heap."""
        ready = self._ready.get(pool)
        while ready and ready[0][-1] not in self._queued:
            heapq.heappop(ready)
        return bool(ready)

    def _handed_out(self, first: Task, n_slots: int | None) -> tuple[Task, ...]:
        """Mark a task and those that follow it in one chain as handed out, and return them."""
        place = first.corpus, first.shard
        chain: tuple[Task, ...] = (first,)
        if n_slots is not None and place in self._nth:
            n_left, n_shards = self._nth[place]
            if n_left > n_shards % n_slots:
                chain = self._chain(first, self._open[place])
        self._running.update(chain)
        self._queued.difference_update(chain)
        if n_slots is not None:
            self._find_next(first)
        return chain

    def _chain(self, first: Task, shard: _OpenShard) -> tuple[Task, ...]:
        """Return a task and those of its shard that can follow it on the same worker, in order.

        Tasks before and after a change of the pool are not in one chain, so that the other pool
        need not wait for more than it reads.
        """
        changes = self._changes(shard)
        chain = {first: None}
        begun = (self._running - self._aside) | {first}
        for task, inputs in shard.items():
            if task not in self._running and task != first and changes[task] == changes[first]:
                # If the first need not wait, none may.
                may_wait = begun if shard[first] else chain.keys()
                if inputs <= may_wait:
                    chain[task] = None
                    begun.add(task)
        return tuple(chain)

    def _changes(self, shard: _OpenShard) -> dict[Task, tuple[str, int, int]]:
        """Return, by task, its pool, and how often it changes on the way to the task and after it."""
        pool = {task: self.nodes[task.node].pool for task in shard}
        before = dict.fromkeys(shard, 0)
        after = dict.fromkeys(shard, 0)
        for task, inputs in shard.items():
            before[task] = max((before[one] + (pool[one] != pool[task]) for one in inputs), default=0)
        for task in reversed(shard):
            for one in shard[task]:
                after[one] = max(after[one], after[task] + (pool[one] != pool[task]))
        return {task: (pool[task], before[task], after[task]) for task in shard}

    def _find_next(self, task: Task) -> None:
        """Note the tasks of a shard whose inputs have all been handed out."""
        for other in self._open.get((task.corpus, task.shard), {}):
            if self._is_next(other):
                self._next[self.nodes[other.node].pool].append(other)

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
                if not inputs and other not in self.blocked and other not in self._running:
                    self._push(other)
        if not shard:
            self._open.pop(place, None)
            self._nth.pop(place, None)
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
        self._queued.add(task)
        entry = self._priority[task.node], task.shard, self._rank[task.node], task
        heapq.heappush(self._ready[self.nodes[task.node].pool], entry)

    def _shards(self, in_order: list[Phase]) -> Iterator[tuple[Phase, str, int, tuple[int, int]]]:
        """Yield the pending shards of each phase, with corpus, how many are left, and of how many."""
        for phase in in_order:
            pending: dict[str, list[Set[int]]] = {}
            for node in phase.nodes:
                pending.setdefault(node.corpora[0], []).append(self.pending[node.name])
            corpora = {corpus: union(sets) for corpus, sets in pending.items()}
            n_left = n_shards = sum(map(len, corpora.values()))
            for corpus, shards in corpora.items():
                for shard in shards:
                    yield phase, corpus, shard, (n_left, n_shards)
                    n_left -= 1

    def _open_shard(self) -> bool:
        """Open the next shard; return whether there is one that may be opened now."""
        if self._next_shard is None:
            return False
        phase, corpus, index, nth = self._next_shard
        full = len(self._open) >= self.max_open and (corpus, index) not in self._open
        if full or any(self._n_left[name] for name in phase.waits_for):
            return False
        self._next_shard = next(self._unopened, None)
        shard = self._open.setdefault((corpus, index), {})
        for node in phase.nodes:
            if node.corpora[0] == corpus and index in self.pending[node.name]:
                self._add(Task(node.name, corpus, index), shard)
        self._nth[corpus, index] = nth
        if not shard:
            del self._open[corpus, index], self._nth[corpus, index]
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
