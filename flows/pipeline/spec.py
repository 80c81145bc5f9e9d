"""Read pipeline.yaml, apply overrides and check its form; the graph checks the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from melmill.cluster.contract import ClusterSpec
from melmill.cluster.errors import ClusterError
from melmill.cluster.registry import DEFAULT_TYPE, cluster_type, field_names, types_with
from melmill.flows.pipeline.convert import build, convert, convert_place, unknown
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.located import Located, parse, parse_override

DEFAULT_SHARD_DURATION_S = 300.0
DEFAULT_MAX_QUARANTINED = 0.01
DEFAULT_TIME_LIMIT_S = 3600.0
# A day. A task holds its shard in memory: 5.5 GB at 16 kHz.
MAX_SHARD_DURATION_S = 24 * 3600.0
# A year. The alarm counts nanoseconds in 64 bits, so that it can't be set to three centuries.
MAX_TIME_LIMIT_S = 365 * 24 * 3600.0

# A number, or one of percent.
SHARE = re.compile(r"\s*(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*%?\s*", re.ASCII)

_FIELDS = ("name", "store", "also", "shard_duration_s", "max_quarantined", "time_limit_s", "stages", "cluster")
NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
RESERVED_NAMES = {*_FIELDS, "runs"}


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A node as written: the stage that it uses, and its other fields."""

    name: str
    uses: Located
    fields: Mapping[str, Located]
    where: str


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A pipeline as written.

    Parameters
    ----------
    name : str
        Name of the project. A store belongs to one project.
    store : str
        Where results go: a path, or any URL that fsspec knows. A leading ``~`` is expanded.
    also : tuple of str
        Other stores of the project, which are only read: what they have done is not done again.
    shard_duration_s : float
        Audio in a shard, s. A shard is the unit of work and of resuming.
    max_quarantined : float
        Share of utterances that may be in quarantine, in [0, 1]. A run with more of them stops.
    time_limit_s : float
        Longest time for a task, s, a year at most. The worker of a longer task is ended. Then each utterance of the
        shard is tried alone, with the same limit.
    declarations : tuple of Declaration
        Nodes in the order written.
    cluster : ClusterSpec
    document : mapping
        The whole document after overrides, as plain values. The store keeps it with every run.
    overrides : tuple of str
        Those that were applied. The store keeps them with every run too.
    """

    name: str
    store: str
    shard_duration_s: float
    max_quarantined: float
    time_limit_s: float
    declarations: tuple[Declaration, ...]
    cluster: ClusterSpec
    document: Mapping[str, Any]
    also: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


def load(path: Path, overrides: Sequence[str] = (), store: str | None = None, also: Sequence[str] = ()) -> Pipeline:
    """Return the pipeline in a file.

    Parameters
    ----------
    path : Path
    overrides : sequence of str
        ``node.field=value`` or ``field=value``, with YAML values. They are applied in order.
    store : str or None
        Replaces the `store` of the file.
    also : sequence of str
        Further stores, after those of the file.

    Raises
    ------
    PipelineError
        The file can't be read, or its form is wrong. The message has ``file:line`` and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise PipelineError(f"pipeline {str(path)!r} can't be read: {reason}") from error
    return read(text, str(path), overrides, store, also)


def read(
    text: str, name: str, overrides: Sequence[str] = (), store: str | None = None, also: Sequence[str] = ()
) -> Pipeline:
    """Return the pipeline in a text, as `load` does; `name` stands before line numbers."""
    document = parse(text, name)
    for override in overrides:
        document = _overridden(document, override)
    if store is not None:
        document = _with(document, ["store"], Located(store, "--store"), "--store")
    if also:
        listed = _listed(_mapping(document, "a pipeline").get("also"))
        stores = [*listed, *(Located(one, "--also") for one in also)]
        document = _with(document, ["also"], Located(stores, "--also"), "--also")
    return replace(_pipeline(document), overrides=tuple(overrides))


def _pipeline(document: Located) -> Pipeline:
    fields = _mapping(document, "a pipeline")
    for name, value in fields.items():
        if name not in _FIELDS:
            raise PipelineError(unknown("field", name, _FIELDS, "a pipeline"), value.where)
    for name in ("name", "store", "stages"):
        if name not in fields:
            raise PipelineError(f"a pipeline needs the field {name!r}", document.where)
    if fields["name"].value == "":
        raise PipelineError("name must be the project's, got ''", fields["name"].where)
    duration = fields.get("shard_duration_s", Located(DEFAULT_SHARD_DURATION_S, document.where))
    time_limit = fields.get("time_limit_s", Located(DEFAULT_TIME_LIMIT_S, document.where))
    return Pipeline(
        name=convert(fields["name"], str, "name"),
        store=convert_place(fields["store"], str, "store"),
        also=tuple(convert_place(one, str, "also") for one in _listed(fields.get("also"))),
        shard_duration_s=_seconds(duration, "shard_duration_s", MAX_SHARD_DURATION_S, "a day"),
        max_quarantined=_share(fields.get("max_quarantined", Located(DEFAULT_MAX_QUARANTINED, document.where))),
        time_limit_s=_seconds(time_limit, "time_limit_s", MAX_TIME_LIMIT_S, "a year"),
        declarations=tuple(_declaration(name, value) for name, value in _mapping(fields["stages"], "stages").items()),
        cluster=_cluster(fields.get("cluster")),
        document=document.plain(),
    )


def _listed(value: Located | None) -> list[Located]:
    """Return the values of a list, or the one value that stands for a list of it."""
    if value is None or value.value is None:
        return []
    return value.value if isinstance(value.value, list) else [value]


def _declaration(name: str, value: Located) -> Declaration:
    if name in RESERVED_NAMES or not NODE_NAME.fullmatch(name):
        reserved = ", ".join(sorted(RESERVED_NAMES))
        raise PipelineError(
            f"{name!r} can't name a node: use letters, digits, '_' and '-', and none of {reserved}",
            value.where,
        )
    fields = dict(_mapping(value, f"node {name!r}"))
    if "uses" not in fields:
        raise PipelineError(f"node {name!r} needs the field 'uses' with the name of a stage", value.where)
    return Declaration(name=name, uses=fields.pop("uses"), fields=fields, where=value.where)


def _mapping(value: Located, owner: str) -> dict[str, Located]:
    if not isinstance(value.value, dict):
        raise PipelineError(f"{owner} must be a mapping of names to values, got {value.shown()}", value.where)
    return value.value


def _seconds(value: Located, name: str, limit: float, what: str) -> float:
    number: float = convert(value, float, name)
    if not number > 0:
        raise PipelineError(f"{name} must be positive, got {number!r}", value.where)
    if number > limit:
        raise PipelineError(f"{name} must be at most {limit:.0f} ({what}), got {value.shown()}", value.where)
    return number


def _share(value: Located) -> float:
    text = str(value.value).strip()
    share = -1.0
    if SHARE.fullmatch(text):
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0 <= share <= 1:
        raise PipelineError(f"max_quarantined must be a share such as 1 % or 0.01, got {value.shown()}", value.where)
    return share


def _cluster(value: Located | None) -> ClusterSpec:
    if value is None:
        return cluster_type(DEFAULT_TYPE)()
    fields = dict(_mapping(value, "cluster"))
    name = fields.pop("type", Located(DEFAULT_TYPE, value.where))
    try:
        cls = cluster_type(convert(name, str, "type of cluster"))
    except ClusterError as error:
        raise PipelineError(str(error), name.where) from error
    pools = fields["pools"].value if "pools" in fields else {}
    blocks = [fields, *(pool.value for pool in pools.values())] if isinstance(pools, dict) else [fields]
    for field, given in [pair for block in blocks if isinstance(block, dict) for pair in block.items()]:
        others = types_with(field) if field not in field_names(cls) else []
        if others:
            raise PipelineError(
                f"cluster: the field {field!r} is for type {' or '.join(map(repr, others))}, got type {cls.type!r}",
                given.where,
            )
    return build(cls, fields, "cluster", value.where)


def _overridden(document: Located, override: str) -> Located:
    shown = override if len(override) <= 200 else f"{override[:200]}..."
    where = f"--set {shown if shown.isprintable() else repr(shown)}"
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise PipelineError(f"--set needs NAME=VALUE, such as admm.n_iter=50, got {override!r}")
    path = name.split(".")
    if path[0] not in _FIELDS:
        stages = _mapping(document, "a pipeline").get("stages")
        names = list(stages.value) if stages is not None and isinstance(stages.value, dict) else []
        if path[0] in names and len(path) < 2:
            raise PipelineError(f"{path[0]!r} is a node: name a field of it, such as {path[0]}.FIELD=VALUE", where)
        if path[0] not in names:
            raise PipelineError(unknown("node or field", path[0], [*names, *_FIELDS], "the pipeline"), where)
        path = ["stages", *path]
    return _with(document, path, parse_override(text, where), where)


def _with(document: Located, path: Sequence[str], value: Located, where: str) -> Located:
    if not path:
        return value
    if not isinstance(document.value, dict):
        raise PipelineError(f"there is nothing to set {path[0]!r} in: {document.shown()} is not a mapping", where)
    inner = document.value.get(path[0], Located({}, where))
    return Located({**document.value, path[0]: _with(inner, path[1:], value, where)}, document.where)
