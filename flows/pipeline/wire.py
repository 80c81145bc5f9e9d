"""Step 1 of the graph: resolve the names that declarations use to stages, pools and each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from melmill.flows.pipeline.convert import convert, field_types, unknown
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.located import Located
from melmill.flows.pipeline.pools import Route, route, with_device
from melmill.flows.pipeline.spec import Declaration
from melmill.stages.contract import Stage
from melmill.stages.errors import UnknownStage
from melmill.stages.registry import stage_class

# What follows the name of a declaration that stands for two, in the name of its files.
FILES = "-files"


@dataclass(frozen=True, kw_only=True)
class Wired:
    """A declaration whose names are resolved.

    Parameters
    ----------
    name : str
        Name as declared.
    cls : type of Stage
        The stage that it uses.
    ports : mapping of str to tuple of Located
        What is written at each port: words of the port, and names of other declarations.
    words : mapping of str to frozenset of str
        What of that are words, by port. A port may take any value that is no declaration's name.
    fields : mapping of str to Located
        All other fields. A list may still stand for several nodes.
    route : Route
        Where its tasks go.
    where : str
        ``file:line`` of the declaration.
    """

    name: str
    cls: type[Stage]
    ports: Mapping[str, tuple[Located, ...]]
    words: Mapping[str, frozenset[str]]
    fields: Mapping[str, Located]
    route: Route
    where: str

    def is_word(self, port: str, entry: Located) -> bool:
        """Tell whether an entry is a word of its port.

        A node can have the same name only if it uses the stage of that name: see `wire`.
        """
        return entry.value in self.words[port]

    @property
    def sources(self) -> list[Located]:
        """Names of the declarations that it reads, with their places."""
        return [entry for port, entries in self.ports.items() for entry in entries if not self.is_word(port, entry)]


def wire(declarations: Sequence[Declaration], pools: Collection[str]) -> list[Wired]:
    """Resolve declarations and sort them, each after those that it reads.

    Parameters
    ----------
    declarations : sequence of Declaration
    pools : collection of str
        Names of the cluster's worker pools.

    Raises
    ------
    PipelineError
        There is no stage, node or pool of a name, or declarations read each other in a cycle. Or a
        port has a word that is also the name of a node of another stage: ``start: zero`` with a
        node ``zero`` that uses ``griffin_lim``. A node ``pghi`` that uses ``pghi`` is no such node:
        ``start: pghi`` asks for that method.
    """
    declarations = [one for declaration in declarations for one in _joined(declaration, declarations)]
    names = frozenset(declaration.name for declaration in declarations)
    wired = {declaration.name: _resolved(declaration, names, pools) for declaration in declarations}
    for one in wired.values():
        _check_sources(one, wired)
    return _sorted(wired)


def _joined(declaration: Declaration, others: Sequence[Declaration]) -> list[Declaration]:
    """Return a declaration, or the two that it stands for.

    An ingest stage may say `joined_by`, a stage that joins its utterances with those of another
    corpus. A declaration that has an input of that stage stands for both.
    """
    uses = declaration.uses
    try:
        joining = joined_by(stage_class(uses.value)) if isinstance(uses.value, str) else None
    except UnknownStage:
        return [declaration]  # `_resolved` says it
    if joining is None or not joining.inputs.keys() & declaration.fields.keys():
        return [declaration]
    files = f"{declaration.name}{FILES}"
    if any(other.name == files for other in others):
        raise PipelineError(f"{files!r} is the name of the files of {declaration.name!r}: rename it", declaration.where)
    ours = {*joining.inputs, *field_types(joining)}
    fields = {name: value for name, value in declaration.fields.items() if name in ours}
    given = {name: value for name, value in declaration.fields.items() if name not in ours or name == "pool"}
    return [
        Declaration(name=files, uses=uses, fields=given, where=declaration.where),
        Declaration(
            name=declaration.name,
            uses=Located(joining.uses, uses.where),
            fields={**fields, "from": Located(files, declaration.where)},
            where=declaration.where,
        ),
    ]


def joined_by(cls: type[Stage]) -> type[Stage] | None:
    """Return the stage that joins the utterances of an ingest stage with recordings; None: there is none."""
    name = getattr(cls, "joined_by", None)
    return None if name is None else stage_class(name)


def _resolved(declaration: Declaration, names: frozenset[str], pools: Collection[str]) -> Wired:
    name, where = declaration.name, declaration.where
    try:
        cls = stage_class(convert(declaration.uses, str, f"uses of {name!r}"))
    except UnknownStage as error:
        raise PipelineError(str(error), declaration.uses.where) from error
    fields = dict(declaration.fields)
    to = route(name, fields.pop("pool", None), where, pools)
    ports = {
        port: _entries(fields.pop(port), f"{port} of {name!r}") for port in cls.inputs if port in declaration.fields
    }
    words = {
        port: frozenset(cls.inputs[port].words).union(
            entry.value for entry in entries if cls.inputs[port].values and entry.value not in names
        )
        for port, entries in ports.items()
    }
    fields = with_device(cls, fields, to, where)
    return Wired(name=name, cls=cls, ports=ports, words=words, fields=fields, route=to, where=where)


def _entries(value: Located, owner: str) -> tuple[Located, ...]:
    """Return what is written at a port, one name or a list of names, as a tuple."""
    entries = value.value if isinstance(value.value, list) else [value]
    if not entries:
        raise PipelineError(f"{owner} is an empty list: name at least one node", value.where)
    for entry in entries:
        convert(entry, str, owner)
    return tuple(entries)


def _check_sources(wired: Wired, known: Mapping[str, Wired]) -> None:
    for port, entries in wired.ports.items():
        words = wired.words[port]
        for entry in entries:
            if entry.value not in (*words, *known):
                what = "word or node" if words else "node"
                raise PipelineError(
                    unknown(what, entry.value, [*words, *known], f"{port} of {wired.name!r}"), entry.where
                )
            node = known.get(entry.value)
            if node is not None and entry.value in words and node.cls.uses != entry.value:
                raise PipelineError(
                    f"node {node.name!r} has the name of a word that {port} of {wired.name!r} takes, so "
                    f"{port}: {entry.value} ({entry.where}) would not be the node: rename the node",
                    node.where,
                )


def _sorted(wired: Mapping[str, Wired]) -> list[Wired]:
    """Sort declarations so that each comes after those that it reads; raise on a cycle."""
    done: dict[str, Wired] = {}

    def visit(one: Wired, path: tuple[str, ...]) -> None:
        if one.name in path:
            cycle = " -> ".join([*path[path.index(one.name) :], one.name])
            raise PipelineError(f"cycle: {cycle}", one.where)
        if one.name in done:
            return
        for source in one.sources:
            visit(wired[source.value], (*path, one.name))
        done[one.name] = one

    for one in wired.values():
        visit(one, ())
    return list(done.values())
