"""Short forms of a pipeline, written out as the nodes that they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.located import Located
from melmill.flows.pipeline.spec import Declaration
from melmill.stages.contract import Input, Kind
from melmill.stages.errors import UnknownStage
from melmill.stages.registry import stage_class

ORACLE = "oracle"
"""What stands at a port for the recordings that a mel was made from."""

_TRUST_FIELDS = ("metrics", "preset", "predictors", "asr", "pool")
_SETS_FIELDS = ("from", "against", "embedding", "pairs", "pool")


def spelled_out(declarations: Sequence[Declaration]) -> tuple[Declaration, ...]:
    """Return the declarations with their short forms written out.

    - Metrics of whole sets (``fad``, ``kad``) of a node that uses `score` are those of a node NAME-sets
      of the stage `set_score`. Reports on the node get it too.
    - ``trust: true`` of a node that uses `score` is a node NAME-trust of the stage `trust`, with its
      metrics, on the recordings. Reports on the node get it too.
    - ``oracle`` at a port that takes waveforms is the node of the recordings: ``start: oracle`` starts
      an inversion from the phase that the mel lost. A node of that name is meant itself.
    - A node that uses `dedupe` without ``prints`` gets a node NAME-prints of the stage `fingerprint`, of
      the same recordings.

    Raises
    ------
    PipelineError
        A node with ``trust: true`` or a metric of sets names no recordings, or its other node's name is
        taken. A node has metrics of sets alone. Or the mel at whose node ``oracle`` stands has no
        recordings.
    """
    by_name = {one.name: one for one in declarations}
    written: list[Declaration] = []
    companions: dict[str, dict[Kind, str]] = {}
    for declared in (_with_oracle(one, by_name) for one in declarations):
        one = declared
        if _lacks_prints(one):
            written.append(prints := _prints(one, by_name))
            one = dataclasses.replace(one, fields={**one.fields, "prints": Located(prints.name, one.where)})
        wanted = _set_metrics(one)
        score = _without_sets(one, wanted) if wanted else one
        written.append(score)
        made = {Kind.EMBEDDINGS: _sets(one, wanted, by_name)} if wanted else {}
        if _trusts(score):
            made[Kind.TRUST] = _trust(score, by_name)
        written += made.values()
        companions[one.name] = {kind: node.name for kind, node in made.items()}
    return tuple(_reporting(one, companions) for one in written)


def _set_metrics(one: Declaration) -> list[Located]:
    """Return the metrics of a score node that have one value for a whole set."""
    metrics = one.fields.get("metrics")
    if one.uses.value != "score" or metrics is None or not isinstance(metrics.value, list):
        return []
    return [entry for entry in metrics.value if entry.value in _names_of_set_metrics()]


def _names_of_set_metrics() -> set[str]:
    from melmill.stages.score.metric import METRICS

    return {known.name for known in METRICS.values() if known.needs == "set"}


def _without_sets(one: Declaration, wanted: Sequence[Located]) -> Declaration:
    """Return a score node without its metrics of sets, and without the program of their embedding."""
    metrics = one.fields["metrics"]
    left = [entry for entry in metrics.value if entry not in wanted]
    if not left:
        names = " and ".join(str(entry.value) for entry in wanted)
        raise PipelineError(
            f"metrics of {one.name!r} holds {names} alone, of whole sets: name a metric of recordings too, say estoi, "
            "or give the node the stage set_score and a report another score node",
            metrics.where,
        )
    fields = {name: value for name, value in one.fields.items() if name != "embedding"}
    fields["metrics"] = Located(left, metrics.where)
    named, embedded = {entry.value for entry in left}, _embeddings(one)
    programs = {name: program for name, program in _programs(one).items() if name in named or name not in embedded}
    if "predictors" in fields:
        fields["predictors"] = Located(programs, fields["predictors"].where)
    return dataclasses.replace(one, fields=fields)


def _sets(one: Declaration, wanted: Sequence[Located], known: Mapping[str, Declaration]) -> Declaration:
    """Return the node that embeds what a score node compares."""
    name, metrics = f"{one.name}-sets", one.fields["metrics"]
    which = str(wanted[0].value)
    if name in known:
        raise PipelineError(
            f"{which} of {one.name!r} makes a node {name!r}, and there is one already: rename that", known[name].where
        )
    if "against" not in one.fields:
        raise PipelineError(
            f"{which} of {one.name!r} compares with recordings: add 'against', the node of the recordings",
            metrics.where,
        )
    fields = {field: one.fields[field] for field in _SETS_FIELDS if field in one.fields}
    fields["metrics"] = Located(list(wanted), metrics.where)
    programs = {name: program for name, program in _programs(one).items() if name in _embeddings(one)}
    if programs:
        fields["predictors"] = Located(programs, one.fields["predictors"].where)
    return Declaration(name=name, uses=Located("set_score", metrics.where), fields=fields, where=one.where)


def _programs(one: Declaration) -> Mapping[str, Located]:
    given = one.fields.get("predictors")
    return given.value if given is not None and isinstance(given.value, dict) else {}


def _embeddings(one: Declaration) -> list[str]:
    return _names(one.fields["embedding"]) if "embedding" in one.fields else []


def _trusts(one: Declaration) -> bool:
    trust = one.fields.get("trust")
    return one.uses.value == "score" and trust is not None and trust.value is True


def _lacks_prints(one: Declaration) -> bool:
    return one.uses.value == "dedupe" and "prints" not in one.fields and "from" in one.fields


def _prints(one: Declaration, known: Mapping[str, Declaration]) -> Declaration:
    """Return the node that makes the fingerprints for a node that uses `dedupe`."""
    name = f"{one.name}-prints"
    if name in known:
        raise PipelineError(
            f"{one.name!r} makes a node {name!r} of its fingerprints, and there is one already: rename that, or name "
            "it as prints",
            known[name].where,
        )
    fields = {field: one.fields[field] for field in ("from", "pool") if field in one.fields}
    return Declaration(name=name, uses=Located("fingerprint", one.where), fields=fields, where=one.where)


def _trust(one: Declaration, known: Mapping[str, Declaration]) -> Declaration:
    """Return the node that damages the recordings of a score node."""
    name, trust = f"{one.name}-trust", one.fields["trust"]
    if name in known:
        raise PipelineError(
            f"trust of {one.name!r} makes a node {name!r}, and there is one already: rename that", known[name].where
        )
    if "against" not in one.fields:
        raise PipelineError(
            f"trust of {one.name!r} needs recordings to damage: add 'against', the node of the recordings, or give a "
            "node of its own the stage trust",
            trust.where,
        )
    fields = {field: one.fields[field] for field in _TRUST_FIELDS if field in one.fields}
    return Declaration(
        name=name, uses=Located("trust", trust.where), fields={"from": one.fields["against"], **fields}, where=one.where
    )


def _reporting(one: Declaration, companions: Mapping[str, Mapping[Kind, str]]) -> Declaration:
    """Return a node that also reads what stands beside the score nodes that it reports on."""
    port = (_ports(one) or {}).get("from")
    if "from" not in one.fields or port is None or not port.many:
        return one
    given = one.fields["from"]
    added = [
        Located(name, given.where)
        for read in _names(given)
        for kind, name in companions.get(read, {}).items()
        if kind in port.kinds
    ]
    if not added:
        return one
    entries = given.value if isinstance(given.value, list) else [given]
    return dataclasses.replace(one, fields={**one.fields, "from": Located([*entries, *added], given.where)})


def _ports(one: Declaration) -> Mapping[str, Input] | None:
    """Return the input ports of a node; None where its stage is unknown, which is said later."""
    try:
        return stage_class(one.uses.value).inputs if isinstance(one.uses.value, str) else None
    except UnknownStage:
        return None


def _with_oracle(one: Declaration, known: Mapping[str, Declaration]) -> Declaration:
    if ORACLE in known:
        return one
    fields = dict(one.fields)
    for port, takes in (_ports(one) or {}).items():
        if port == "from" or port not in fields or Kind.WAVEFORM not in takes.kinds:
            continue
        given = fields[port]
        if ORACLE not in _names(given):
            continue
        recordings = _recordings(one, known)
        entries = given.value if isinstance(given.value, list) else [given]
        made = [Located(recordings, entry.where) if entry.value == ORACLE else entry for entry in entries]
        fields[port] = Located(made, given.where) if isinstance(given.value, list) else made[0]
    return dataclasses.replace(one, fields=fields)


def _recordings(one: Declaration, known: Mapping[str, Declaration]) -> str:
    """Return the ingest node that the inputs of a node come from."""
    found = list(dict.fromkeys(_ingested(one, known, set())))
    if len(found) != 1:
        what = "none" if not found else " and ".join(map(repr, found))
        raise PipelineError(
            f"oracle at {one.name!r} stands for the recordings that its mel was made from, and there is {what}: name "
            "their node in its place",
            one.where,
        )
    return found[0]


def _ingested(one: Declaration, known: Mapping[str, Declaration], seen: set[str]) -> Iterator[str]:
    """Yield the nodes of recordings that a node's port `from` comes from; a cycle ends it, and is said later."""
    if one.name in seen:
        return
    seen.add(one.name)
    given = one.fields.get("from")
    if given is None:
        if _ports(one) == {}:  # only ingest stages have no inputs
            yield one.name
        return
    for name in _names(given):
        if name in known:
            yield from _ingested(known[name], known, seen)


def _names(given: Located) -> list[str]:
    """Return the names at a port, one or a list; what is no text is refused later."""
    entries = given.value if isinstance(given.value, list) else [given]
    return [entry.value for entry in entries if isinstance(entry.value, str)]
