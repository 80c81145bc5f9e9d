"""Predict the time, disk and files of a run by doing a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from melmill.flows.execution.errors import RunFailed
from melmill.flows.execution.run import run
from melmill.flows.planning.phases import ancestors
from melmill.flows.planning.plan import Plan
from melmill.flows.tasks.task import Receipt
from melmill.flows.watching.events import Event, Finished
from melmill.flows.watching.observers import Watching
from melmill.storage.records import Record, record_name
from melmill.storage.store import Store

# Shards for each task that runs at the same time: the first shows starting, the others the pace.
SHARDS_PER_SLOT = 3


@dataclass(frozen=True, kw_only=True)
class NodeEstimate:
    """Say what is left to do of one node, and how large its product will be.

    Parameters
    ----------
    node, pool : str
        Names.
    shards_left : int
    audio_left_s : float
        Audio in these shards, s.
    task_s_per_audio_s : float
        Measured time of a whole task, per second of audio.
    left_s : float
        Time of all tasks that are left, summed over workers, s.
    disk_bytes, files : int
        Size of the whole product, when all is done.
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
    """Say when the workers of one pool will be done.

    Parameters
    ----------
    pool : str
    slots : int
        Tasks that run at the same time.
    starting_s : float
        Wall time for imports and weights, s. It is part of `left_s`.
    left_s : float
        Wall time until the last task, s.
    """

    pool: str
    slots: int
    starting_s: float
    left_s: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Say how long a run will take, and how large its products will be.

    Parameters
    ----------
    sampled : int
        Tasks that were run to find out. Their work is in the store.
    left_out : tuple of str
        Nodes without a prediction: reports, trainings, what needs a training that is not done, and
        scores of another corpus.
    nodes : tuple of NodeEstimate
    pools : tuple of PoolEstimate
    left_s : float
        Wall time until the last pool is done, s.
    disk_bytes, files : int
        Size of all products, when all is done.
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
    """Return a plan of a few pending shards, for the nodes whose time can be predicted.

    Shards hold utterances of like length and are in order of length. So shards at even steps are a
    fair sample.

    Parameters
    ----------
    plan : Plan
    per_slot : int
        Shards of the sample for each task that runs at the same time.
    """
    n_slots = max(pool.slots for pool in plan.pipeline.cluster.pools.values())
    chosen: dict[str, set[int]] = {name: set() for name in plan.catalogues}
    names = _predictable(plan)
    for node in (plan.nodes[name] for name in names):
        chosen[node.node.corpora[0]] |= _spread(sorted(node.pending), per_slot * n_slots)
    # A shard is chosen for all nodes or none, so that no node lacks its input.
    nodes = {
        name: replace(node, pending=node.pending & chosen[node.node.corpora[0]] if name in names else set())
        for name, node in plan.nodes.items()
    }
    return replace(plan, nodes=nodes, again=None)


def _predictable(plan: Plan) -> list[str]:
    """Return the nodes that work shard by shard, and wait for no training and no other corpus."""
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    awaited = {name for name, node_plan in plan.nodes.items() if node_plan.node.is_whole and node_plan.pending}
    return [
        name
        for name, node in nodes.items()
        if not node.is_whole and not {name, *ancestors(nodes, name)} & {*awaited, *plan.paired}
    ]


def _spread(shards: list[int], n: int) -> set[int]:
    if len(shards) <= n:
        return set(shards)
    return {shards[int((i + 0.5) * len(shards) / n)] for i in range(n)}


class Paces:
    """Measure how long a worker's first task of each node takes, and how long its later ones."""

    def __init__(self) -> None:
        self.first: dict[str, list[Receipt]] = {}
        self.later: dict[str, list[Receipt]] = {}
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> None:
        """Note how long a finished task took."""
        if isinstance(event, Finished):
            node, worker = event.task.node, event.receipt.worker
            receipts = self.later if (node, worker) in self._seen else self.first
            self._seen.add((node, worker))
            receipts.setdefault(node, []).append(event.receipt)

    def pace(self, node: str) -> float | None:
        """Return task time per second of audio, or None without any task.

        First tasks count only if there are no others.
        """
        receipts = self.later.get(node) or self.first.get(node)
        if not receipts:
            return None
        return sum(receipt.wall_s for receipt in receipts) / sum(receipt.audio_s for receipt in receipts)

    def starting_s(self, node: str) -> float:
        """Return how much longer a worker's first task takes, for imports and weights, s."""
        pace, first = self.pace(node), self.first.get(node)
        if pace is None or not first:
            return 0.0
        return max(0.0, float(np.mean([receipt.wall_s - pace * receipt.audio_s for receipt in first])))


def estimate(plan: Plan, per_slot: int = SHARDS_PER_SLOT) -> Estimate:
    """Run a sample of a plan's tasks on its cluster and into its store, and predict the rest.

    Parameters
    ----------
    plan : Plan
    per_slot : int
        Shards of the sample for each task that runs at the same time.

    Raises
    ------
    RunFailed
        A task of the sample failed, or the run ended early.
    """
    part, paces = sample(plan, per_slot), Paces()
    summary = run(part, partial=True, watching=Watching(listeners=(paces,)))
    if summary.tasks.failed:
        raise RunFailed(f"{summary.tasks.failed} tasks of the sample failed, so nothing can be predicted; see above")
    return predict(plan, part, paces)


def predict(plan: Plan, part: Plan, paces: Paces) -> Estimate:
    """Predict the rest of a plan from a part of it that was run.

    Parameters
    ----------
    plan : Plan
    part : Plan
        What was run; see `sample`.
    paces : Paces
        How long its tasks took.
    """
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
    n_bytes = sum(
        sum(file.n_bytes for file in record.files.values()) + len(record.to_json()) for record in records.values()
    )
    share = float(durations.sum()) / max(1e-9, sum(record.duration_s for record in records.values()))
    pace = paces.pace(name) or 0.0
    return NodeEstimate(
        node=name,
        pool=node.pool,
        shards_left=len(left),
        audio_left_s=audio_left_s,
        task_s_per_audio_s=pace,
        left_s=pace * audio_left_s,
        disk_bytes=round(share * n_bytes),
        files=round(node_plan.n_shards * float(np.mean([len(record.files) + 1 for record in records.values()]))),
    )


def _records(plan: Plan, part: Plan, name: str, store: Store) -> Mapping[str, Record]:
    """Return the records of the sample, or a few others if nothing was left to do."""
    node = plan.nodes[name].node
    shards = part.nodes[name].pending or _spread(list(plan.catalogues[node.corpora[0]].current_shards), SHARDS_PER_SLOT)
    return store.product(node.folder, node.key).records([record_name(shard) for shard in shards])


def _pools(plan: Plan, nodes: tuple[NodeEstimate, ...], paces: Paces) -> list[PoolEstimate]:
    estimates = []
    for name, pool in plan.pipeline.cluster.pools.items():
        mine = [node for node in nodes if node.pool == name and node.shards_left]
        if mine:
            starting_s = sum(paces.starting_s(node.node) for node in mine)
            left_s = starting_s + sum(node.left_s for node in mine) / pool.slots
            estimates.append(PoolEstimate(pool=name, slots=pool.slots, starting_s=starting_s, left_s=left_s))
    return estimates
