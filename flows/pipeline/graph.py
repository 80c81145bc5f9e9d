"""The graph of a pipeline: concrete nodes with their products and keys, before anything runs.

`build_graph` takes four pure steps, after `spelled_out` wrote short forms out. `wire` resolves names
and `fan_out` lists the nodes. Here `typed` makes each node's stage and product, and `keyed` gives it
its key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from melmill.flows.pipeline.convert import build, unknown
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.fan_out import Variant, fan_out
from melmill.flows.pipeline.keys import key_parameters, node_key
from melmill.flows.pipeline.pools import Route
from melmill.flows.pipeline.spec import Pipeline
from melmill.flows.pipeline.spelling import spelled_out
from melmill.flows.pipeline.stage_files import prepared
from melmill.flows.pipeline.wire import wire
from melmill.flows.runs.baseline import published_baseline
from melmill.stages.contract import (
    WHOLE_KINDS,
    ChoosingStage,
    FileStage,
    Input,
    Kind,
    Mel,
    PreparingStage,
    Product,
    ReducingStage,
    Report,
    Stage,
    Trained,
    TrainingStage,
    Waveform,
)
from melmill.stages.numeric.errors import ParameterError, StageError
from melmill.stages.report.contract import BaselineStage
from melmill.stages.score.contract import PairingStage
from melmill.storage.errors import StoreError
from melmill.storage.files.location import folder_and_name


@dataclass(frozen=True, kw_only=True)
class Typed:
    """A node without its key: a stage with its parameters, and what it makes of its inputs.

    Parameters
    ----------
    variant : Variant
    stage : Stage
    product : Product
    corpora : tuple of str
        Names of the ingest nodes that its utterances come from.
    items : tuple of str
        See `Node`.
    paired_port : str or None
        See `Node`.
    """

    variant: Variant
    stage: Stage
    product: Product
    corpora: tuple[str, ...]
    items: tuple[str, ...]
    paired_port: str | None


@dataclass(frozen=True, kw_only=True)
class Node:
    """One concrete node of the graph.

    Parameters
    ----------
    name : str
        Name as declared, with the values that were listed (``admm[n_iter=10]``).
    folder : str
        Name as declared. Its products lie in ``<store>/<folder>/<key>``.
    key : str
        Fingerprint of everything that decides its results.
    stage : Stage
    inputs : mapping of str to tuple of str
        Names of the nodes at each port.
    product : Product
        What it makes.
    corpora : tuple of str
        Names of the ingest nodes that its utterances come from. Its results are about those of the
        first; only what is made of whole corpora, or pairs utterances, has others.
    route : Route
        Where its tasks go.
    where : str
        ``file:line`` of its declaration.
    items : tuple of str
        Names of the nodes on its way that trimmed or split utterances, the first first. The catalogue
        of the last lists what it reads.
    paired_port : str or None
        Port whose utterances are of another corpus, and are paired with its own. None: there is
        none.
    """

    name: str
    folder: str
    key: str
    stage: Stage
    inputs: Mapping[str, tuple[str, ...]]
    product: Product
    corpora: tuple[str, ...]
    route: Route
    where: str
    items: tuple[str, ...] = ()
    paired_port: str | None = None

    @property
    def reads_items_of(self) -> str:
        """Name of the node whose catalogue lists what it reads."""
        return self.items[-1] if self.items else self.corpora[0]

    @property
    def reshapes(self) -> bool:
        """Whether it trims or splits utterances, so that its own catalogue lists what it makes."""
        return isinstance(self.product, Waveform) and self.product.reshaped

    @property
    def items_made(self) -> tuple[str, ...]:
        """`items` of the nodes that read it."""
        return (*self.items, self.name) if self.reshapes else self.items

    @property
    def paired_source(self) -> str | None:
        """Name of the node at `paired_port`."""
        return None if self.paired_port is None else self.inputs[self.paired_port][0]

    @property
    def is_whole(self) -> bool:
        """Whether one task does all utterances, rather than one task each shard."""
        return self.product.kind in WHOLE_KINDS

    @property
    def trains(self) -> bool:
        """Whether it learns from all utterances or sums them up, and other nodes wait for that."""
        return isinstance(self.stage, TrainingStage | ReducingStage)

    @property
    def pool(self) -> str:
        """Pool that its tasks go to."""
        return self.route.pool

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all nodes that it reads."""
        return tuple(dict.fromkeys(name for names in self.inputs.values() for name in names))

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Parameters that decide its results, as its key and the store hold them."""
        return key_parameters(self.stage, self.inputs)


def build_graph(pipeline: Pipeline) -> dict[str, Node]:
    """Return the nodes of a pipeline by name, each after those that it reads.

    Raises
    ------
    PipelineError
        A stage, field, node or pool is unknown. A field has the wrong type. An input is missing, of
        the wrong kind, or not the mel that a stage needs. Nodes read each other in a cycle.
    """
    nodes: dict[str, Node] = {}
    for variant in fan_out(wire(spelled_out(pipeline.declarations), pipeline.cluster.pools)):
        nodes[variant.name] = keyed(typed(variant, nodes, pipeline.store), nodes, pipeline.shard_duration_s)
    _check_tables(nodes)
    return nodes


def needed_for(nodes: Mapping[str, Node], target: str) -> dict[str, Node]:
    """Return the nodes that `target`, a node's name or declared name, needs, itself included."""
    waiting = [node.name for node in nodes.values() if target in (node.name, node.folder)]
    if not waiting:
        raise PipelineError(
            unknown("node", target, {node.folder for node in nodes.values()}, "the pipeline"), "--until"
        )
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(nodes[name].sources)
    return {name: node for name, node in nodes.items() if name in needed}


def typed(variant: Variant, nodes: Mapping[str, Node], store: str = "") -> Typed:
    """Step 3 of the graph: make a node's stage, and describe what it makes of its inputs.

    Parameters
    ----------
    variant : Variant
    nodes : mapping of str to Node
        All nodes that it reads.
    store : str
        URL of the pipeline's store, for stages that compare with one of its runs.

    Raises
    ------
    PipelineError
        A field is wrong, an input is missing or of the wrong kind, or the stage refuses its inputs.
    """
    wired = variant.wired
    _check_ports(variant, nodes)
    stage = build(wired.cls, variant.fields, wired.cls.uses, wired.where)
    paired_port = _paired_port(variant, nodes)
    inputs = {port: [nodes[name] for name in names] for port, names in variant.inputs.items()}
    try:
        products = {port: [source.product for source in sources] for port, sources in inputs.items()}
        if isinstance(stage, ChoosingStage):
            stage = stage.chosen(products)
        if isinstance(stage, BaselineStage) and stage.baseline is not None:
            stage = stage.against(*published_baseline(stage.baseline, store))
        stage = _with_files(stage, [source for sources in inputs.values() for source in sources])
        if paired_port is not None and isinstance(stage, PairingStage) and stage.pairs is not None:
            stage = stage.with_pairs(table_of_pairs(stage.pairs))
        product = stage.produces(products)
    except (StageError, StoreError) as error:
        raise PipelineError(f"node {wired.name!r}: {error}", wired.where) from error
    return Typed(
        variant=variant,
        stage=stage,
        product=dataclasses.replace(product, node=variant.name),
        corpora=_corpora(variant, product, nodes, paired_port),
        items=_items(variant, product, nodes, paired_port),
        paired_port=paired_port,
    )


def keyed(node: Typed, nodes: Mapping[str, Node], shard_duration_s: float) -> Node:
    """Step 4 of the graph: give a node the key of everything that decides its results.

    Parameters
    ----------
    node : Typed
    nodes : mapping of str to Node
        All nodes that it reads, and its own variants so far.
    shard_duration_s : float
        Audio in a shard, s. It decides what an ingest node makes.

    Raises
    ------
    PipelineError
        Another variant of its declaration has the same key.
    """
    variant, wired = node.variant, node.variant.wired
    key = node_key(
        stage=node.stage.uses,
        version=node.stage.version,
        parameters=key_parameters(node.stage, variant.inputs),
        inputs={
            port: [(nodes[source].folder, nodes[source].key) for source in names]
            for port, names in variant.inputs.items()
        },
        shard_duration_s=None if variant.inputs else shard_duration_s,
    )
    for other in nodes.values():
        if (other.folder, other.key) == (wired.name, key):
            raise PipelineError(
                f"nodes {variant.name!r} and {other.name!r} would make the same product: they differ in nothing that "
                "a key holds (a device changes results by rounding alone). Keep one of them",
                wired.where,
            )
    return Node(
        name=variant.name,
        folder=wired.name,
        key=key,
        stage=node.stage,
        inputs=variant.inputs,
        product=node.product,
        corpora=node.corpora,
        route=wired.route,
        where=wired.where,
        items=node.items,
        paired_port=node.paired_port,
    )


def _check_ports(variant: Variant, nodes: Mapping[str, Node]) -> None:
    wired = variant.wired
    for port, wanted in wired.cls.inputs.items():
        if port not in wired.ports and not wanted.optional:
            given = [name for names in variant.inputs.values() for name in names]
            raise PipelineError(
                f"node {wired.name!r} needs the input {port!r}: the name of a node that makes "
                f"{' or '.join(sorted(wanted.kinds))}{_without_recordings(wanted, given, nodes)}",
                wired.where,
            )
        for source in (nodes[name] for name in variant.inputs.get(port, ())):
            kind = source.product.kind
            if kind not in wanted.kinds and not (kind is Kind.UTTERANCES and Kind.WAVEFORM in wanted.kinds):
                raise PipelineError(
                    f"{port} of {wired.name!r} takes {' or '.join(sorted(wanted.kinds))}, but {source.name!r} "
                    f"makes {kind}{_without_recordings(wanted, [source.name], nodes)}",
                    next(entry.where for entry in wired.ports[port] if entry.value == source.folder),
                )


def _without_recordings(wanted: Input, names: Iterable[str], nodes: Mapping[str, Node]) -> str:
    """Say so if waveforms are wanted of utterances that are mels alone."""
    corpora = {corpus for name in names for corpus in nodes[name].corpora}
    mels = sorted(corpus for corpus in corpora if isinstance(nodes[corpus].product, Mel))
    if not mels or Kind.WAVEFORM not in wanted.kinds:
        return ""
    return f"; {mels[0]!r} holds mels without recordings: name a node of a corpus that has them"


def _with_files(stage: Stage, sources: Iterable[Node]) -> Stage:
    """Return the stage with what it needs of its files, or of the training that makes them."""
    for source in sources:
        if isinstance(stage, FileStage) and isinstance(source.product, Trained):
            return stage.trained(source.product, source.name, source.key)
    return prepared(stage)


def _paired_port(variant: Variant, nodes: Mapping[str, Node]) -> str | None:
    """Return the port that may take another corpus, if its utterances are of another one here."""
    ports = variant.wired.cls.inputs
    own = {
        nodes[name].corpora[0]
        for port, names in variant.inputs.items()
        if not ports[port].other_corpus
        for name in names
    }
    for port, names in variant.inputs.items():
        if ports[port].other_corpus and own and not own & {nodes[name].corpora[0] for name in names}:
            return port
    return None


# What is made of a corpus and another one.
_MEASURED_KINDS = frozenset({Kind.SCORES, Kind.EMBEDDINGS})


def _corpora(variant: Variant, product: Product, nodes: Mapping[str, Node], paired_port: str | None) -> tuple[str, ...]:
    """Return the ingest nodes that utterances come from; raise if they mix several corpora."""
    named = [(port, nodes[name]) for port, names in variant.inputs.items() for name in names]
    # What was trained may serve another corpus than it was trained on.
    read = [(port, source) for port, source in named if not isinstance(source.product, Trained)]
    if isinstance(product, Report):
        return tuple(dict.fromkeys(corpus for _, source in read for corpus in source.corpora))
    own = tuple(dict.fromkeys(source.corpora[0] for port, source in read if port != paired_port))
    if len(own) > 1:
        raise PipelineError(
            f"node {variant.wired.name!r} mixes utterances of {' and '.join(map(repr, own))}: "
            "its inputs must come from one corpus",
            variant.wired.where,
        )
    # What is made of utterances that were joined with others is about the first alone.
    others = (
        corpus
        for _, source in read
        for corpus in (source.corpora if source.product.kind in _MEASURED_KINDS else source.corpora[:1])
    )
    return tuple(dict.fromkeys((*own, *others))) or (variant.name,)


def _items(variant: Variant, product: Product, nodes: Mapping[str, Node], paired_port: str | None) -> tuple[str, ...]:
    """Return the nodes on the way that trimmed or split utterances; raise if inputs differ in that."""
    if isinstance(product, Report):
        return ()
    read = [
        nodes[name]
        for port, names in variant.inputs.items()
        if port != paired_port
        for name in names
        if not isinstance(nodes[name].product, Trained)
    ]
    split = [name for source in read for name in source.items_made if _splits(nodes[name].stage)]
    if paired_port is not None and split:
        raise PipelineError(
            f"node {variant.wired.name!r} pairs recordings of two corpora, and {split[0]!r} has split those of one: "
            f"put it before {split[0]!r}",
            variant.wired.where,
        )
    for source in read[1:]:
        if source.items_made != read[0].items_made:
            whose = " and ".join(f"{one.name!r} ({_made_of(one)})" for one in (read[0], source))
            last = max((read[0], source), key=lambda one: len(one.items_made)).items_made[-1]
            raise PipelineError(
                f"node {variant.wired.name!r} reads {whose}, whose samples don't align: name {last!r}, or what is made "
                "of it, at each port",
                variant.wired.where,
            )
    return read[0].items_made if read else ()


def _splits(stage: Stage) -> bool:
    return isinstance(stage, PreparingStage) and stage.splits


def _made_of(node: Node) -> str:
    """Say which node cut what a node made."""
    return f"cut by {node.items_made[-1]!r}" if node.items_made else "whole recordings"


def table_of_pairs(url: str) -> bytes:
    """Return the bytes of a stage's table of pairs; raise ParameterError if there is no such file."""
    folder, name = folder_and_name(url)
    try:
        return folder.read(name)
    except (OSError, StoreError) as error:
        why = "it does not exist" if isinstance(error, FileNotFoundError) else str(error)
        raise ParameterError("pairs", f"must be a file that can be read, got {url!r}: {why}") from error


def _check_tables(nodes: Mapping[str, Node]) -> None:
    """Raise PipelineError if no node of a declaration uses its table of pairs."""
    used = {node.folder for node in nodes.values() if node.paired_port is not None}
    for node in nodes.values():
        if isinstance(node.stage, PairingStage) and node.stage.pairs is not None and node.folder not in used:
            raise PipelineError(
                f"pairs of {node.folder!r} has no use: its inputs are of the corpus {node.corpora[0]!r} alone, so "
                "their ids tell. Leave it out",
                node.where,
            )
