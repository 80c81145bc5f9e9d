"""From declarations to concrete nodes: fan-out, wiring, contracts and keys, before anything runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melmill.flows.errors import PipelineError
from melmill.flows.pipeline.convert import build, convert, field_types, takes_list, unknown
from melmill.flows.pipeline.keys import node_key
from melmill.flows.pipeline.located import Located
from melmill.flows.pipeline.pools import Route, route, with_device
from melmill.flows.pipeline.spec import Declaration, Pipeline
from melmill.flows.pipeline.stage_files import prepared
from melmill.stages.contract import (
    WHOLE_KINDS,
    FileStage,
    Input,
    Kind,
    Mel,
    Product,
    Report,
    Scores,
    Stage,
    TrainedVocoder,
    TrainingStage,
)
from melmill.stages.errors import UnknownStage
from melmill.stages.numeric.errors import StageError
from melmill.stages.registry import stage_class
from melmill.storage.errors import StoreError

_RECORDINGS = Input(kinds=frozenset({Kind.WAVEFORM}))


@dataclass(frozen=True, kw_only=True)
class Node:
    """One concrete node of the graph.

    Parameters
    ----------
    name : str
        Name with what it was fanned out by (``admm[n_iter=10]``).
    folder : str
        Name as declared; its products lie in ``<store>/<folder>/<key>``.
    key : str
        Fingerprint of everything that decides its results.
    stage : Stage
    inputs : mapping of str to tuple of str
        Names of the nodes at each port.
    product : Product
        What it makes.
    corpora : tuple of str
        Names of the ingest nodes that its utterances come from.
    route : Route
        Where its tasks go.
    where : str
        ``file:line`` of its declaration.
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

    @property
    def is_whole(self) -> bool:
        """Whether it is one task over all utterances, rather than one a shard."""
        return self.product.kind in WHOLE_KINDS

    @property
    def trains(self) -> bool:
        """Whether other nodes wait for it to have learnt from all utterances."""
        return isinstance(self.stage, TrainingStage)

    @property
    def pool(self) -> str:
        """Pool that its tasks go to."""
        return self.route.pool

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all nodes that it reads."""
        return tuple(dict.fromkeys(name for names in self.inputs.values() for name in names))


def build_graph(pipeline: Pipeline) -> dict[str, Node]:
    """Return the nodes of a pipeline by name, each after those that it reads.

    Raises
    ------
    PipelineError
        Unknown stage or field, wrong type, missing input, cycle, wrong kind or broken mel contract, missing pool.
    """
    builder = _Builder(pipeline)
    for declaration in _sorted(pipeline.declarations):
        builder.add(declaration)
    return builder.nodes


def needed_for(nodes: Mapping[str, Node], target: str) -> dict[str, Node]:
    """Return the nodes that `target`, a node's name or declared name, needs, itself included."""
    wanted = [node.name for node in nodes.values() if target in (node.name, node.folder)]
    if not wanted:
        raise PipelineError(
            unknown("node", target, {node.folder for node in nodes.values()}, "the pipeline"), "--until"
        )
    needed: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed.add(name)
            wanted.extend(nodes[name].sources)
    return {name: node for name, node in nodes.items() if name in needed}


def _ports(declaration: Declaration) -> Mapping[str, Input]:
    return _stage_class(declaration).inputs


def _stage_class(declaration: Declaration) -> type[Stage]:
    name = convert(declaration.uses, str, f"uses of {declaration.name!r}")
    try:
        return stage_class(name)
    except UnknownStage as error:
        raise PipelineError(str(error), declaration.uses.where) from error


def _references(declaration: Declaration) -> dict[str, list[Located]]:
    """Return what is written at each port, as a list of located words or node names."""
    found = {}
    for port in _ports(declaration):
        if port in declaration.fields:
            value = declaration.fields[port]
            entries = value.value if isinstance(value.value, list) else [value]
            for entry in entries:
                convert(entry, str, f"{port} of {declaration.name!r}")
            found[port] = entries
    return found


def _sorted(declarations: Sequence[Declaration]) -> list[Declaration]:
    """Sort declarations so that each comes after those that it reads; raise on a cycle or an unknown name."""
    by_name = {declaration.name: declaration for declaration in declarations}
    done: dict[str, Declaration] = {}

    def visit(declaration: Declaration, path: tuple[str, ...]) -> None:
        if declaration.name in path:
            cycle = " -> ".join([*path[path.index(declaration.name) :], declaration.name])
            raise PipelineError(f"cycle: {cycle}", declaration.where)
        if declaration.name in done:
            return
        for source in _named_sources(declaration, by_name):
            visit(by_name[source], (*path, declaration.name))
        done[declaration.name] = declaration

    for declaration in declarations:
        visit(declaration, ())
    return list(done.values())


def _named_sources(declaration: Declaration, known: Iterable[str]) -> list[str]:
    names = []
    for port, entries in _references(declaration).items():
        words = _ports(declaration)[port].words
        for entry in entries:
            if entry.value in words:
                continue
            if entry.value not in known:
                what = "word or node" if words else "node"
                raise PipelineError(
                    unknown(what, entry.value, [*words, *known], f"{port} of {declaration.name!r}"), entry.where
                )
            names.append(entry.value)
    return names


class _Builder:
    """Adds declarations one by one to the concrete nodes."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.nodes: dict[str, Node] = {}
        self.groups: dict[str, list[str]] = {}

    def add(self, declaration: Declaration) -> None:
        """Fan a declaration out and add its nodes."""
        cls = _stage_class(declaration)
        fields = dict(declaration.fields)
        to = route(declaration.name, fields.pop("pool", None), declaration.where, self.pipeline.cluster.pools)
        fields = with_device(cls, fields, to, declaration.where)
        ports = {port: entries for port, entries in _references(declaration).items() if fields.pop(port, None)}
        self._check_ports(declaration, cls, ports)
        axes = [*self._port_axes(cls, ports), *_field_axes(cls, fields)]
        self.groups[declaration.name] = []
        for choice in itertools.product(*(axis.options for axis in axes)):
            label = ",".join(option.label for axis, option in zip(axes, choice, strict=True) if len(axis.options) > 1)
            name = f"{declaration.name}[{label}]" if label else declaration.name
            self._add_node(declaration, cls, name, to, choice)

    def _check_ports(self, declaration: Declaration, cls: type[Stage], ports: Mapping[str, list[Located]]) -> None:
        for port, description in cls.inputs.items():
            if port not in ports and not description.optional:
                given = [name for entries in ports.values() for entry in entries for name in self._named(entry)]
                raise PipelineError(
                    f"node {declaration.name!r} needs the input {port!r}: the name of a node that makes "
                    f"{' or '.join(sorted(description.kinds))}{self._without_recordings(description, given)}",
                    declaration.where,
                )
            for entry in ports.get(port, []):
                for name in self._named(entry):
                    self._check_kind(declaration, port, description, self.nodes[name], entry.where)

    def _check_kind(self, declaration: Declaration, port: str, wanted: Input, node: Node, where: str) -> None:
        kind = node.product.kind
        accepted = kind in wanted.kinds or (kind is Kind.UTTERANCES and Kind.WAVEFORM in wanted.kinds)
        if not accepted:
            raise PipelineError(
                f"{port} of {declaration.name!r} takes {' or '.join(sorted(wanted.kinds))}, "
                f"but {node.name!r} makes {kind}{self._without_recordings(wanted, [node.name])}",
                where,
            )

    def _named(self, entry: Located) -> list[str]:
        """Return the nodes that an entry at a port stands for; none for a word."""
        return self.groups.get(entry.value, [])

    def _without_recordings(self, wanted: Input, names: Iterable[str]) -> str:
        """Say so where waveforms are wanted of utterances that are mels alone."""
        corpora = {corpus for name in names for corpus in self.nodes[name].corpora}
        mels = sorted(corpus for corpus in corpora if isinstance(self.nodes[corpus].product, Mel))
        if not mels or Kind.WAVEFORM not in wanted.kinds:
            return ""
        return f"; {mels[0]!r} holds mels without recordings, so there is nothing to score against"

    def _port_axes(self, cls: type[Stage], ports: Mapping[str, list[Located]]) -> list[_Axis]:
        axes = []
        for port, entries in ports.items():
            description = cls.inputs[port]
            words = [entry for entry in entries if entry.value in description.words]
            names = [name for entry in entries if entry not in words for name in self.groups[entry.value]]
            if description.many:
                axes.append(_Axis([_Option("", port, tuple(names))]))
                continue
            options = [_Option(f"{port}={word.value}", field=(port, word)) for word in words]
            options += [_Option(name if port == "from" else f"{port}={name}", port, (name,)) for name in names]
            axes.append(_Axis(options))
        return axes

    def _add_node(
        self, declaration: Declaration, cls: type[Stage], name: str, to: Route, choice: Sequence[_Option]
    ) -> None:
        fields = dict(option.field for option in choice if option.field)
        inputs = {option.port: option.nodes for option in choice if option.port}
        for port in inputs:
            if cls.inputs[port].words:
                fields[port] = Located("node", declaration.where)
        stage = self._prepared(declaration, build(cls, fields, declaration.uses.value, declaration.where), inputs)
        product = self._product(declaration, stage, inputs)
        if isinstance(product, Scores):
            product = dataclasses.replace(product, scored=inputs["from"][0])
        corpora = self._corpora(declaration, name, inputs, product)
        key = node_key(
            stage=stage.uses,
            version=stage.version,
            identity=stage.identity(),
            inputs={
                port: [(self.nodes[source].folder, self.nodes[source].key) for source in names]
                for port, names in inputs.items()
            },
            shard_duration_s=None if inputs else self.pipeline.shard_duration_s,
        )
        self._check_one_of_its_key(declaration, name, key)
        self.groups[declaration.name].append(name)
        self.nodes[name] = Node(
            name=name,
            folder=declaration.name,
            key=key,
            stage=stage,
            inputs=inputs,
            product=product,
            corpora=corpora,
            route=to,
            where=declaration.where,
        )

    def _check_one_of_its_key(self, declaration: Declaration, name: str, key: str) -> None:
        for other in self.groups[declaration.name]:
            if self.nodes[other].key == key:
                raise PipelineError(
                    f"node {name!r} would make the very product of {other!r}: what differs between them is in no key "
                    "(a device changes results by rounding alone). Keep one of them",
                    declaration.where,
                )

    def _prepared(self, declaration: Declaration, stage: Stage, inputs: Mapping[str, tuple[str, ...]]) -> Stage:
        try:
            for source in (self.nodes[name] for names in inputs.values() for name in names):
                if isinstance(stage, FileStage) and isinstance(source.product, TrainedVocoder):
                    return stage.trained(source.product, source.name, source.key)
            return prepared(stage)
        except (StageError, StoreError) as error:
            raise PipelineError(f"node {declaration.name!r}: {error}", declaration.where) from error

    def _product(self, declaration: Declaration, stage: Stage, inputs: Mapping[str, tuple[str, ...]]) -> Product:
        products = {port: [self.nodes[name].product for name in names] for port, names in inputs.items()}
        try:
            return stage.produces(products)
        except StageError as error:
            raise PipelineError(f"node {declaration.name!r}: {error}", declaration.where) from error

    def _corpora(
        self, declaration: Declaration, name: str, inputs: Mapping[str, tuple[str, ...]], product: Product
    ) -> tuple[str, ...]:
        sources = [self.nodes[source] for names in inputs.values() for source in names]
        # A vocoder may work on another corpus than it was trained on.
        corpora = tuple(
            dict.fromkeys(
                corpus
                for source in sources
                if not isinstance(source.product, TrainedVocoder)
                for corpus in source.corpora
            )
        )
        if len(corpora) > 1 and not isinstance(product, Report):
            raise PipelineError(
                f"node {declaration.name!r} mixes utterances of {' and '.join(map(repr, corpora))}: "
                f"its inputs must come from one corpus{self._without_recordings(_RECORDINGS, corpora)}",
                declaration.where,
            )
        return corpora or (name,)


@dataclass(frozen=True)
class _Option:
    """One value on an axis of fan-out: the nodes at a port, or a field's value."""

    label: str
    port: str = ""
    nodes: tuple[str, ...] = ()
    field: tuple[str, Located] | None = None


@dataclass(frozen=True)
class _Axis:
    options: list[_Option]


def _field_axes(cls: type[Stage], fields: Mapping[str, Located]) -> list[_Axis]:
    hints: dict[str, Any] = field_types(cls)
    axes = []
    for name, value in fields.items():
        fans_out = name in hints and isinstance(value.value, list) and not takes_list(hints[name])
        if fans_out and not value.value:
            raise PipelineError(f"{name} is an empty list: give at least one value", value.where)
        entries = value.value if fans_out else [value]
        axes.append(_Axis([_Option(f"{name}={entry.plain()}", field=(name, entry)) for entry in entries]))
    return axes
