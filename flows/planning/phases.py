"""The phases of a graph in which some tasks need whole corpora: what is begun before them, beside them and after."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from melmill.flows.pipeline.graph import Node


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Nodes whose shards are begun together, once the trainings that they need, `waits_for`, are settled."""

    nodes: tuple[Node, ...]
    waits_for: frozenset[str]


def phases(nodes: Mapping[str, Node], pending: Collection[str]) -> list[Phase]:
    """Sort the nodes that work shard by shard into phases.

    What the pending trainings need comes first, so that they may begin; what needs none of them follows and runs beside
    them; then what needs them, and so on where a training needs another one.

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
    depth: dict[str, int] = {}
    for name, node in nodes.items():
        depth[name] = max((depth[source] + (source in trainings) for source in node.sources), default=0)
    found: dict[tuple[int, bool], list[Node]] = {}
    for name, node in nodes.items():
        if not node.is_whole:
            found.setdefault((depth[name], name not in needed), []).append(node)
    return [
        Phase(nodes=tuple(members), waits_for=frozenset(trainings & set().union(*(before[n.name] for n in members))))
        for _, members in sorted(found.items(), key=lambda pair: pair[0])
    ]


def ancestors(nodes: Mapping[str, Node], name: str) -> set[str]:
    """Return the names of all nodes that `name` reads, directly or not."""
    found: set[str] = set()
    waiting: Sequence[str] = nodes[name].sources
    while waiting:
        found.update(waiting)
        waiting = [source for reader in waiting for source in nodes[reader].sources if source not in found]
    return found
