"""How two runs differ: fields of their pipelines, keys of their nodes and why, and versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from melmill.flows.runs.addresses import ResolvedRun
from melmill.storage.description import ProductDescription
from melmill.storage.errors import StoreError


@dataclass(frozen=True, kw_only=True)
class Change:
    """One value that differs. `before` or `after` is None where a run has no such value."""

    name: str
    before: object
    after: object


@dataclass(frozen=True, kw_only=True)
class NodeChange:
    """A node that does not mean the same product in both runs.

    Parameters
    ----------
    node : str
    change : {"added", "removed", "changed"}
    before, after : str or None
        Keys of its products.
    reasons : tuple of str
        Why the keys differ, a line each: the stage, its version, parameters, inputs.
    """

    node: str
    change: Literal["added", "removed", "changed"]
    before: str | None
    after: str | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunDifference:
    """How run `b` differs from run `a`.

    Parameters
    ----------
    a, b : str
        Ids of the runs.
    fields : tuple of Change
        Of the pipelines, by dotted name.
    nodes : tuple of NodeChange
        In the order of the pipelines. Nodes with equal keys mean the same product and are left out.
    n_same : int
        Nodes that mean the same product in both.
    versions : tuple of Change
        Of the packages that results may depend on, of Python, and the git commit.
    around : tuple of Change
        Host, executor, overrides, utterances: what decides no key.
    """

    a: str
    b: str
    fields: tuple[Change, ...]
    nodes: tuple[NodeChange, ...]
    n_same: int
    versions: tuple[Change, ...]
    around: tuple[Change, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def run_difference(a: ResolvedRun, b: ResolvedRun) -> RunDifference:
    """Return how run `b` differs from run `a`, of the same store or of two."""
    before, after = _facts(a), _facts(b)
    return RunDifference(
        a=a.run_id,
        b=b.run_id,
        fields=tuple(changes_between(flat(a.manifest.pipeline), flat(b.manifest.pipeline))),
        nodes=tuple(_node_changes(a, b)),
        n_same=sum(name in b.manifest.nodes and _key(b, name) == _key(a, name) for name in a.manifest.nodes),
        versions=tuple(changes_between(before["versions"], after["versions"])),
        around=tuple(changes_between(before["around"], after["around"])),
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, by dotted names.

    >>> flat({"stages": {"gla": {"n_iter": 4}}})
    {'stages.gla.n_iter': 4}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the values that differ, in the order of their names in `before` and then in `after`."""
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Change(name=name, before=before.get(name), after=after.get(name))


def _facts(run: ResolvedRun) -> dict[str, dict[str, Any]]:
    facts, outcome = run.facts, run.outcome
    if facts is None:
        return {"versions": {}, "around": {}}
    commit = facts.git_commit and f"{facts.git_commit}{' with changes' if facts.git_dirty else ''}"
    return {
        "versions": {**facts.versions, **({"git commit": commit} if commit else {})},
        "around": {
            "host": facts.host,
            "executor": facts.executor,
            "overrides": " ".join(facts.overrides) or None,
            "utterances": None if outcome is None else outcome.utterances,
        },
    }


def _key(run: ResolvedRun, node: str) -> tuple[str, str]:
    entry = run.manifest.nodes[node]
    return entry.folder, entry.key


def _node_changes(a: ResolvedRun, b: ResolvedRun) -> Iterator[NodeChange]:
    for name in dict.fromkeys((*a.manifest.nodes, *b.manifest.nodes)):
        before, after = a.manifest.nodes.get(name), b.manifest.nodes.get(name)
        if before is not None and after is not None:
            if before.key != after.key or before.folder != after.folder:
                reasons = tuple(_reasons(_description(a, name), _description(b, name)))
                yield NodeChange(node=name, change="changed", before=before.key, after=after.key, reasons=reasons)
        elif after is not None:
            yield NodeChange(node=name, change="added", before=None, after=after.key)
        elif before is not None:
            yield NodeChange(node=name, change="removed", before=before.key, after=None)


def _description(run: ResolvedRun, node: str) -> ProductDescription | None:
    try:
        return run.store.product(*_key(run, node)).description
    except StoreError:
        return None


def _reasons(before: ProductDescription | None, after: ProductDescription | None) -> Iterator[str]:
    """Say why two products have different keys, from their descriptions."""
    if before is None or after is None:
        which = "both products" if before is None and after is None else "a product"
        yield f"the store has no description of {which} any more"
        return
    if before.stage != after.stage:
        yield f"stage {before.stage} -> {after.stage}"
    elif before.version != after.version:
        yield f"version of stage {after.stage} {before.version} -> {after.version}"
    for change in changes_between(flat(before.parameters), flat(after.parameters)):
        yield f"{change.name} {shown(change.before)} -> {shown(change.after)}"
    if before.catalogue == (before.node, before.key) and before.shard_duration_s != after.shard_duration_s:
        yield f"shard_duration_s {before.shard_duration_s:g} -> {after.shard_duration_s:g}"
    for port in dict.fromkeys((*before.inputs, *after.inputs)):
        olds, news = before.inputs.get(port, ()), after.inputs.get(port, ())
        if list(olds) != list(news):
            names = [sorted({node for node, _ in pairs}) for pairs in (olds, news)]
            if names[0] == names[1]:
                changed = sorted({node for node, key in news if (node, key) not in set(olds)} or {*names[1]})
                yield f"input {', '.join(changed)} differs"
            else:
                yield f"input {port} {', '.join(names[0]) or 'nothing'} -> {', '.join(names[1]) or 'nothing'}"


def shown(value: object) -> str:
    """Return a value as a line of a difference has it, at most 60 characters."""
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
