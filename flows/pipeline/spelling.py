"""Short forms of a pipeline, written out as the nodes that they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from melmill.flows.errors import PipelineError
from melmill.flows.pipeline.located import Located
from melmill.flows.pipeline.spec import Declaration
from melmill.stages.contract import Input, Kind
from melmill.stages.errors import UnknownStage
from melmill.stages.registry import stage_class

ORACLE = "oracle"
"""What stands at a port for the recordings that a mel was made from."""

_TRUST_FIELDS = ("metrics", "preset", "predictors", "pool")


def spelled_out(declarations: Sequence[Declaration]) -> tuple[Declaration, ...]:
    """Return the declarations with their short forms written out.

    - ``trust: true`` of a node that uses `score` is a node NAME-trust of the stage `trust`, with its
      metrics, on the recordings. Reports on the node get it too.
    - ``oracle`` at a port that takes waveforms is the node of the recordings: ``start: oracle`` starts
      an inversion from the phase that the mel lost. A node of that name is meant itself.
    - A node that uses `dedupe` without ``prints`` gets a node NAME-prints of the stage `fingerprint`, of
      the same recordings.

    Raises
    ------
    PipelineError
        A node with ``trust: true`` names no recordings, or its other node's name is taken. Or the
        mel at whose node ``oracle`` stands has no recordings.
    """
    by_name = {one.name: one for one in declarations}
    oracles = [_with_oracle(one, by_name) for one in declarations]
    trusting = {one.name for one in oracles if _trusts(one)}
    made: list[Declaration] = []
    for one in oracles:
        whole = one
        if _lacks_prints(one):
            made.append(_prints(one, by_name))
            whole = dataclasses.replace(one, fields={**one.fields, "prints": Located(made[-1].name, one.where)})
        made.append(_reporting(whole, trusting))
        if one.name in trusting:
            made.append(_trust(one, by_name))
    return tuple(made)


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


def _trust_name(name: str) -> str:
    return f"{name}-trust"


def _trust(one: Declaration, known: Mapping[str, Declaration]) -> Declaration:
    """Return the node that damages the recordings of a score node."""
    name, trust = _trust_name(one.name), one.fields["trust"]
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


def _reporting(one: Declaration, trusting: set[str]) -> Declaration:
    """Return a node that also reads the trust of the score nodes that it reports on."""
    if "from" not in one.fields or not _takes_trust(one):
        return one
    given = one.fields["from"]
    added = [Located(_trust_name(name), given.where) for name in _names(given) if name in trusting]
    if not added:
        return one
    entries = given.value if isinstance(given.value, list) else [given]
    return dataclasses.replace(one, fields={**one.fields, "from": Located([*entries, *added], given.where)})


def _takes_trust(one: Declaration) -> bool:
    port = (_ports(one) or {}).get("from")
    return port is not None and Kind.TRUST in port.kinds


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
