"""Predict a run by doing a part of it: time by node and pool, disk and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from melmill.flows.errors import RunFailed
from melmill.flows.execution.run import run
from melmill.flows.planning.phases import ancestors
from melmill.flows.planning.plan import Plan
from melmill.flows.tasks.task import Receipt
from melmill.flows.watching.events import Event, Finished
from melmill.flows.watching.observers import Watching
from melmill.storage.records import Record, record_name
from melmill.storage.store import Store

# Shards for each task that runs at the same time: the first tells of starting, the others of the pace.
SHARDS_PER_SLOT = 3


@dataclass(frozen=True, kw_only=True)
class NodeEstimate:
    """What is left to do of one node, and what it will come to.

    Parameters
    ----------
    node, pool : str
    shards_left : int
    audio_left_s : float
    task_s_per_audio_s : float
        Time of a whole task over its audio, as measured.
    left_s : float
        Time of all tasks left, summed over workers, s.
    disk_bytes, files : int
        Of its whole product, when all is done.
    """

    node: str
    pool: str
    shards_left: int
    audio_left_s: float
    task_s_per_audio_s: float
    left_s: float
    disk_bytes: int
    files: int


@dataclass(frozen=True, kw_only=True)
class PoolEstimate:
    """When the workers of one pool will be through: `starting_s` is in `left_s`, both wall time."""

    pool: str
    slots: int
    starting_s: float
    left_s: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run will come to.

    Parameters
    ----------
    sampled : int
        Tasks that were run to find out; their work is in the store.
    left_out : tuple of str
        Nodes that nothing is predicted of: reports, trainings, and what needs a training that is not done.
    nodes, pools : tuple
    left_s : float
        Until the last pool is through, s.
    disk_bytes, files : int
    """

    sampled: int
    left_out: tuple[str, ...]
    nodes: tuple[NodeEstimate, ...]
    pools: tuple[PoolEstimate, ...]
    left_s: float
    disk_bytes: int
    files: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def sample(plan: Plan, per_slot: int = SHARDS_PER_SLOT) -> Plan:
    """Return a plan of a few of the pending shards, spread evenly over each corpus, of what can be predicted.

    Shards hold utterances of like length, in order of it: those at even steps stand for all.
    """
    n_slots = max(pool.slots for pool in plan.pipeline.cluster.pools.values())
    chosen: dict[str, set[int]] = {name: set() for name in plan.catalogues}
    names = _predictable(plan)
    for node in (plan.nodes[name] for name in names):
        chosen[node.node.corpora[0]] |= _spread(sorted(node.pending), per_slot * n_slots)
    # A shard that is chosen for one node is for all: none finds its input missing.
    nodes = {
        name: replace(node, pending=node.pending & chosen[node.node.corpora[0]] if name in names else set())
        for name, node in plan.nodes.items()
    }
    return replace(plan, nodes=nodes)


def _predictable(plan: Plan) -> list[str]:
    """Return the nodes that work shard by shard and wait for no training."""
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    awaited = {name for name, node_plan in plan.nodes.items() if node_plan.node.is_whole and node_plan.pending}
    return [name for name, node in nodes.items() if not node.is_whole and not ancestors(nodes, name) & awaited]


def _spread(shards: list[int], n: int) -> set[int]:
    if len(shards) <= n:
        return set(shards)
    return {shards[int((i + 0.5) * len(shards) / n)] for i in range(n)}


class Paces:
    """Listen to a run: how long tasks take at each worker's first of a node, and how long thereafter."""

    def __init__(self) -> None:
        self.first: dict[str, list[Receipt]] = {}
        self.later: dict[str, list[Receipt]] = {}
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> None:
        """Take a finished task down."""
        if isinstance(event, Finished):
            node, worker = event.task.node, event.receipt.worker
            found = self.later if (node, worker) in self._seen else self.first
            self._seen.add((node, worker))
            found.setdefault(node, []).append(event.receipt)

    def pace(self, node: str) -> float | None:
        """Return task time over audio, without first tasks where there are others; None where nothing was run."""
        receipts = self.later.get(node) or self.first.get(node)
        if not receipts:
            return None
        return sum(receipt.wall_s for receipt in receipts) / sum(receipt.audio_s for receipt in receipts)

    def starting_s(self, node: str) -> float:
        """Return what a worker's first task of a node takes longer than the others: imports, weights."""
        pace, first = self.pace(node), self.first.get(node)
        if pace is None or not first:
            return 0.0
        return max(0.0, float(np.mean([receipt.wall_s - pace * receipt.audio_s for receipt in first])))


def estimate(plan: Plan, per_slot: int = SHARDS_PER_SLOT) -> Estimate:
    """Run a sample of a plan's tasks, on its cluster and into its store, and predict the rest from them.

    Raises
    ------
    RunFailed
        A task of the sample failed, or the run could not go on.
    """
    part, paces = sample(plan, per_slot), Paces()
    summary = run(part, partial=True, watching=Watching(listeners=(paces,)))
    if summary.tasks.failed:
        raise RunFailed(f"{summary.tasks.failed} tasks of the sample failed, so nothing can be predicted; see above")
    return predict(plan, part, paces)


def predict(plan: Plan, part: Plan, paces: Paces) -> Estimate:
    """Predict what is left of `plan` when `part` is done."""
    store = Store.open(plan.pipeline.store)
    names = _predictable(plan)
    nodes = tuple(_node(plan, part, name, paces, store) for name in names)
    pools = tuple(_pools(plan, nodes, paces))
    return Estimate(
        sampled=part.n_pending,
        left_out=tuple(name for name in plan.nodes if name not in names),
        nodes=nodes,
        pools=pools,
        left_s=max((pool.left_s for pool in pools), default=0.0),
        disk_bytes=sum(node.disk_bytes for node in nodes),
        files=sum(node.files for node in nodes),
    )


def _node(plan: Plan, part: Plan, name: str, paces: Paces, store: Store) -> NodeEstimate:
    node_plan = plan.nodes[name]
    node = node_plan.node
    durations = plan.catalogues[node.corpora[0]].shard_durations_s
    left = node_plan.pending - part.nodes[name].pending
    audio_left_s = float(durations[sorted(left)].sum())
    records = _records(plan, part, name, store)
    share = float(durations.sum()) / max(1e-9, sum(record.duration_s for record in records.values()))
    pace = paces.pace(name) or 0.0
    return NodeEstimate(
        node=name,
        pool=node.pool,
        shards_left=len(left),
        audio_left_s=audio_left_s,
        task_s_per_audio_s=pace,
        left_s=pace * audio_left_s,
        disk_bytes=round(share * sum(_size(record) for record in records.values())),
        files=round(len(durations) * float(np.mean([len(record.files) + 1 for record in records.values()]))),
    )


def _records(plan: Plan, part: Plan, name: str, store: Store) -> Mapping[str, Record]:
    """Return the records of the sample; where nothing was left to do, some of those that there are."""
    node = plan.nodes[name].node
    n_shards = plan.catalogues[node.corpora[0]].n_shards
    shards = part.nodes[name].pending or _spread(list(range(n_shards)), SHARDS_PER_SLOT)
    return store.product(node.folder, node.key).records([record_name(shard) for shard in shards])


def _size(record: Record) -> int:
    return sum(file.n_bytes for file in record.files.values()) + len(record.to_json())


def _pools(plan: Plan, nodes: tuple[NodeEstimate, ...], paces: Paces) -> list[PoolEstimate]:
    found = []
    for name, pool in plan.pipeline.cluster.pools.items():
        mine = [node for node in nodes if node.pool == name and node.shards_left]
        if mine:
            starting_s = sum(paces.starting_s(node.node) for node in mine)
            left_s = starting_s + sum(node.left_s for node in mine) / pool.slots
            found.append(PoolEstimate(pool=name, slots=pool.slots, starting_s=starting_s, left_s=left_s))
    return found
