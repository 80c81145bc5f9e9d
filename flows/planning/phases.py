"""The phases of a run: which nodes' shards begin before, beside and after what they wait for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from melmill.flows.pipeline.graph import Node
from melmill.stages.contract import Kind


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Nodes whose shards begin together.

    Parameters
    ----------
    nodes : tuple of Node
    waits_for : frozenset of str
        Names of the nodes that must have ended before, on all shards: trainings, and nodes of
        another corpus whose utterances are paired with those of the phase.
    """

    nodes: tuple[Node, ...]
    waits_for: frozenset[str]


def phases(nodes: Mapping[str, Node], pending: Collection[str]) -> list[Phase]:
    """Return the nodes that work shard by shard, sorted into phases.

    The first phase holds what pending trainings need, so that they can begin. The second holds what
    needs none of them, and runs beside them. The third holds what needs them. If a training needs
    another one, more phases follow in the same way. So they do for nodes that pair utterances of
    two corpora, and for those that need the table of a whole corpus: their shards read shards of other
    numbers.

    Parameters
    ----------
    nodes : mapping of str to Node
        Each after those that it reads.
    pending : collection of str
        Names of the nodes that have something to do.
    """
    before = {name: ancestors(nodes, name) for name in nodes}
    trainings = {name for name, node in nodes.items() if node.trains and name in pending}
    needed = {name for training in trainings for name in before[training]}
    # What a node waits for itself, on all shards.
    waits = {
        name: {s for s in node.sources if s in trainings or (s in pending and _waits(node, nodes[s]))}
        for name, node in nodes.items()
    }
    depth: dict[str, int] = {}
    for name, node in nodes.items():
        depth[name] = max((depth[source] + (source in waits[name]) for source in node.sources), default=0)
    members: dict[tuple[int, bool], list[Node]] = {}
    for name, node in nodes.items():
        if not node.is_whole:
            members.setdefault((depth[name], name not in needed), []).append(node)
    return [
        Phase(
            nodes=tuple(group),
            waits_for=frozenset(name for n in group for reader in (n.name, *before[n.name]) for name in waits[reader]),
        )
        for _, group in sorted(members.items(), key=lambda pair: pair[0])
    ]


def _waits(node: Node, source: Node) -> bool:
    """Tell whether shards of a node read other shards of a source than their own."""
    return source.name == node.paired_source or source.product.kind is Kind.PRINTS


def ancestors(nodes: Mapping[str, Node], name: str) -> set[str]:
    """Return the names of all nodes that `name` reads, directly or not."""
    above: set[str] = set()
    waiting: Sequence[str] = nodes[name].sources
    while waiting:
        above.update(waiting)
        waiting = [source for reader in waiting for source in nodes[reader].sources if source not in above]
    return above
