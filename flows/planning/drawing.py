"""A plan as a picture: what is done, what runs, and what waits. `dot` writes Graphviz's text."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from melmill.flows.planning.plan import NodePlan, Plan


class State(enum.Enum):
    """What a node has to do."""

    DONE = "done"
    TO_RUN = "to run"
    WAITING = "waits for its input"


# Fill of a box by state, as Graphviz draws on white.
_FILL = {State.DONE: "#d3f0db", State.TO_RUN: "#cfe4ff", State.WAITING: "#e9e9ee"}
# Colours of pools, in order of the pipeline. They begin anew where there are more.
POOL_COLOURS = ("#2f6fde", "#d9480f", "#7b3fc4", "#0b8a8f", "#b8336a", "#6b7a12")


@dataclass(frozen=True, kw_only=True)
class Box:
    """One node of a picture.

    Parameters
    ----------
    name, stage : str
    folder : str
        Name as declared. The variants of a fan-out share it.
    pool : str
        Pool of its tasks; ``cpu (any)`` where the pipeline leaves the choice.
    colour : str
        Colour of its pool.
    state : State
    shards : str
        How many shards are to run, of how many.
    share_done : float
        Share of the shards that are reused, in [0, 1].
    why : str
        Why they are to run. Empty where all is done.
    """

    name: str
    stage: str
    folder: str
    pool: str
    colour: str
    state: State
    shards: str
    share_done: float
    why: str


@dataclass(frozen=True, order=True)
class Edge:
    """What `target` reads of `source` at a port."""

    source: str
    target: str
    port: str


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The boxes of a plan and the edges between them, in the plan's order.

    Parameters
    ----------
    title : str
    boxes : tuple of Box
    edges : tuple of Edge
        Between names of boxes.
    pools : tuple of tuple of str
        Name, what it runs at a time, and colour of each pool that has a node.
    """

    title: str
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    pools: tuple[tuple[str, str, str], ...]

    @property
    def groups(self) -> dict[str, list[Box]]:
        """Boxes by the name of their declaration, in order of first appearance."""
        groups: dict[str, list[Box]] = {}
        for box in self.boxes:
            groups.setdefault(box.folder, []).append(box)
        return groups


def drawing(plan: Plan) -> Drawing:
    """Return the picture of a plan."""
    cluster = plan.pipeline.cluster.pools
    colours = {pool: POOL_COLOURS[i % len(POOL_COLOURS)] for i, pool in enumerate(cluster)}
    used = {node_plan.node.pool for node_plan in plan.nodes.values()}
    return Drawing(
        title=f"{plan.pipeline.name}: {plan.n_pending:,} of {plan.n_tasks:,} tasks to run",
        boxes=tuple(_box(node_plan, plan, colours) for node_plan in plan.nodes.values()),
        edges=tuple(
            Edge(source, name, port)
            for name, node_plan in plan.nodes.items()
            for port, sources in node_plan.node.inputs.items()
            for source in sources
        ),
        pools=tuple((name, f"{pool.slots} at a time", colours[name]) for name, pool in cluster.items() if name in used),
    )


def _box(node_plan: NodePlan, plan: Plan, colours: dict[str, str]) -> Box:
    node, n_pending = node_plan.node, len(node_plan.pending)
    state = State.DONE
    if n_pending:
        waits = any(plan.nodes[source].pending for source in node.sources)
        state = State.WAITING if waits else State.TO_RUN
    unit = "task" if node.is_whole else "shard"
    of_all = f"{node_plan.n_shards:,} {unit}{'s' * (node_plan.n_shards != 1)}"
    return Box(
        name=node.name,
        stage=node.stage.uses,
        folder=node.folder,
        pool=str(node.route),
        colour=colours[node.pool],
        state=state,
        shards=f"{n_pending:,} of {of_all} to run" if n_pending else f"{of_all} done",
        share_done=1 - n_pending / node_plan.n_shards if node_plan.n_shards else 1.0,
        why="; ".join(f"{reason} ({count:,})" for reason, count in sorted(node_plan.reasons.items())),
    )


def dot(drawn: Drawing) -> str:
    """Return a picture as the text that Graphviz draws."""
    return "\n".join(_dot_lines(drawn)) + "\n"


def _dot_lines(drawn: Drawing) -> Iterator[str]:
    yield f"digraph {_quoted(drawn.title)} {{"
    yield f'  graph [rankdir=LR, label={_quoted(drawn.title)}, labelloc=t, fontname="sans-serif"];'
    yield '  node [shape=box, style="rounded,filled", penwidth=2, fontname="sans-serif"];'
    yield '  edge [color="#6b7280", fontname="sans-serif", fontsize=10];'
    for i, (folder, boxes) in enumerate(drawn.groups.items()):
        if len(boxes) > 1:
            yield f"  subgraph cluster_{i} {{"
            yield f'    graph [label={_quoted(folder)}, style="rounded,dashed", color="#6b7280"];'
        for box in boxes:
            lines = [box.name, f"{box.stage} · {box.pool}", box.shards, *([box.why] if box.why else [])]
            label = _quoted("\n".join(lines))
            yield f'    {_quoted(box.name)} [label={label}, fillcolor="{_FILL[box.state]}", color="{box.colour}"];'
        if len(boxes) > 1:
            yield "  }"
    for edge in drawn.edges:
        yield f"  {_quoted(edge.source)} -> {_quoted(edge.target)} [label={_quoted(edge.port)}];"
    yield "  subgraph cluster_legend {"
    yield '    graph [label="", style=invis];'
    for state in State:
        yield f'    {_quoted(f"state: {state.value}")} [label={_quoted(state.value)}, fillcolor="{_FILL[state]}"];'
    for name, slots, colour in drawn.pools:
        label = _quoted(f"pool {name}, {slots}")
        yield f'    {_quoted(f"pool: {name}")} [label={label}, fillcolor=white, color="{colour}"];'
    yield "  }"
    yield "}"


def _quoted(text: str) -> str:
    r"""Return text as a quoted string of Graphviz.

    >>> print(_quoted('a"b\\n'))
    "a\"b\\n"
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
