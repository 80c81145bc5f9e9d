"""JSON Schema of pipeline.yaml, made from the stages, their ports and the blocks of a cluster."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal

from melmill.cluster.registry import DEFAULT_TYPE, cluster_type, cluster_types
from melmill.flows.pipeline.convert import Hint, choices, field_types, takes_list
from melmill.flows.pipeline.pools import ANY, CPU
from melmill.flows.pipeline.spec import (
    DEFAULT_MAX_QUARANTINED,
    DEFAULT_SHARD_DURATION_S,
    DEFAULT_TIME_LIMIT_S,
    MAX_SHARD_DURATION_S,
    MAX_TIME_LIMIT_S,
    NODE_NAME,
    RESERVED_NAMES,
    SHARE,
    Pipeline,
)
from melmill.flows.pipeline.wire import joined_by
from melmill.stages.contract import OneOf, Stage
from melmill.stages.registry import stage_class, stage_names

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

_PLAIN: dict[Hint, str] = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_SECTION = re.compile(r"^Parameters\n-+\n(.*?)(?:\n\n[A-Z]\w+\n-+\n|\Z)", flags=re.DOTALL | re.MULTILINE)
_ENTRY = re.compile(r"^(?P<names>\w+(?:, \w+)*)(?: : .*)?\n(?P<text>(?:^ +.*\n?|\n)*)", flags=re.MULTILINE)


def pipeline_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a pipeline, with all installed stages.

    It knows the form of a pipeline: names of stages and fields, their types, defaults and
    descriptions. Only the graph knows how nodes fit together, and only a stage knows its ranges.
    """
    descriptions = field_descriptions(Pipeline)
    defs: dict[str, Schema] = {}
    stages = {name: stage_class(name) for name in stage_names()}
    for name, cls in stages.items():
        defs[f"stage-{name}"] = _stage(name, cls, defs)
    defs["node"] = _node(stages)
    seconds = {"type": "number", "exclusiveMinimum": 0}
    properties: dict[str, Schema] = {
        "name": {"type": "string", "minLength": 1},
        "store": {"type": "string", "minLength": 1},
        "also": {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}},
                {"type": "null"},
            ]
        },
        "shard_duration_s": {**seconds, "maximum": MAX_SHARD_DURATION_S, "default": DEFAULT_SHARD_DURATION_S},
        "max_quarantined": {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": f"^{SHARE.pattern}$"},
            ],
            "default": DEFAULT_MAX_QUARANTINED,
        },
        "time_limit_s": {**seconds, "maximum": MAX_TIME_LIMIT_S, "default": DEFAULT_TIME_LIMIT_S},
        "stages": {
            "description": "Nodes by name: what each uses, what it reads, and its fields.",
            "type": "object",
            "propertyNames": {"pattern": f"^(?:{NODE_NAME.pattern})$", "not": {"enum": sorted(RESERVED_NAMES)}},
            "additionalProperties": {"$ref": "#/$defs/node"},
        },
        "cluster": _cluster(defs),
    }
    for name, text in descriptions.items():
        if name in properties:
            properties[name].setdefault("description", text)
    return {
        "$schema": DIALECT,
        "title": "melmill pipeline",
        "type": "object",
        "required": ["name", "store", "stages"],
        "additionalProperties": False,
        "properties": properties,
        "$defs": defs,
    }


def field_descriptions(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each parameter, in one line."""
    texts: dict[str, str] = {}
    for base in cls.__mro__:
        section = _SECTION.search(inspect.cleandoc(base.__doc__ or ""))
        for entry in _ENTRY.finditer(section[1]) if section else ():
            for name in entry["names"].split(", "):
                texts.setdefault(name, _line(entry["text"]))
    return texts


def summary(cls: type) -> str:
    """Return the first paragraph of a class's docstring in one line, or ``""`` without one."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    # A dataclass without a docstring gets its signature for one.
    return "" if doc.startswith(f"{cls.__name__}(") else _line(doc.split("\n\n")[0])


def _line(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def _cluster(defs: dict[str, Schema]) -> Schema:
    """Return the schema of the block `cluster`, whose fields follow from its type."""
    kinds = {name: cluster_type(name) for name in cluster_types()}
    for name, cls in kinds.items():
        block = _dataclass(cls, defs)
        properties = {"type": {"const": name}, **block["properties"]}
        defs[f"cluster-{name}"] = {"description": summary(cls), **block, "properties": properties}
    return {
        "description": "Where the tasks of the pipeline run.",
        "type": "object",
        "properties": {
            "type": {
                "description": "Kind of cluster.",
                "enum": list(kinds),
                "enumDescriptions": [summary(cls) for cls in kinds.values()],
                "default": DEFAULT_TYPE,
            }
        },
        "allOf": [
            {
                "if": {
                    "properties": {"type": {"const": name}},
                    **({} if name == DEFAULT_TYPE else {"required": ["type"]}),
                },
                "then": {"$ref": f"#/$defs/cluster-{name}"},
            }
            for name in kinds
        ],
    }


def _node(stages: dict[str, type[Stage]]) -> Schema:
    return {
        "type": "object",
        "required": ["uses"],
        "properties": {
            "uses": {
                "description": "Stage that does the work.",
                "enum": list(stages),
                "enumDescriptions": [summary(cls) for cls in stages.values()],
            }
        },
        "allOf": [
            {
                "if": {"properties": {"uses": {"const": name}}, "required": ["uses"]},
                "then": {"$ref": f"#/$defs/stage-{name}"},
            }
            for name in stages
        ],
    }


def _stage(name: str, cls: type[Stage], defs: dict[str, Schema]) -> Schema:
    """Return the schema of a node that uses a stage. Each field may be a list of values."""
    fields = _dataclass(cls, defs, lists=True)
    node = {"type": "string"}
    for port, wanted in cls.inputs.items():
        kinds = " or ".join(sorted(wanted.kinds))
        several = "all of them are taken together" if wanted.many else "each makes a node of its own"
        if wanted.values:
            continue  # the schema of the field takes the names of nodes too
        own = fields["properties"].get(port, {})
        fields["properties"][port] = {
            "description": own.get("description", f"Node that makes {kinds}. With a list of nodes, {several}."),
            **_listed({"anyOf": [{"enum": list(wanted.words)}, node]} if wanted.words else node),
            **({"default": own["default"]} if "default" in own else {}),
        }
    joining = joined_by(cls)
    if joining is not None:
        theirs = _stage(joining.uses, joining, defs)["properties"]
        fields["properties"] |= {port: theirs[port] for port in theirs if port not in ("uses", "from", "pool")}
    pool = {
        "description": f"Worker pool that its tasks go to; '{ANY}' takes GPU workers if the cluster has some.",
        "type": "string",
        "default": CPU,
    }
    return {
        "description": summary(cls),
        "type": "object",
        "required": [port for port, wanted in cls.inputs.items() if not wanted.optional]
        + [name for name in fields["required"] if name not in cls.inputs],
        "additionalProperties": False,
        "properties": {"uses": {"const": name}, **fields["properties"], "pool": pool},
    }


def _listed(value: Schema) -> Schema:
    """Return the schema of a value or a list of values."""
    return {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}


def _dataclass(cls: type, defs: dict[str, Schema], *, lists: bool = False) -> Schema:
    """Return the schema of a mapping that makes a dataclass; with `lists`, its fields fan out."""
    types, hints = field_types(cls), typing.get_type_hints(cls, include_extras=True)
    descriptions = field_descriptions(cls)
    properties: dict[str, Schema] = {}
    required = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        value, default = _value(hints[field.name], defs), field.default
        made = _listed(value) if lists and not takes_list(types[field.name]) else dict(value)
        if field.name in descriptions:
            made["description"] = descriptions[field.name]
        if default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        elif default is not dataclasses.MISSING and not isinstance(default, Enum):
            made["default"] = list(default) if isinstance(default, tuple) else default
        properties[field.name] = made
    made_of = {"type": "object", "required": required, "additionalProperties": False, "properties": properties}
    # Fields of which a mapping has exactly one.
    one_of = getattr(cls, "one_of", ())
    return {**made_of, **({"oneOf": [{"required": [name]} for name in one_of]} if one_of else {})}


def _value(hint: Hint, defs: dict[str, Schema]) -> Schema:
    """Return the schema of one value of a type, as `convert` takes it."""
    schemas = [_choice(choice, defs) for choice in choices(hint)]
    plain = [schema["type"] for schema in schemas if schema.keys() == {"type"}]
    if len(plain) == len(schemas):
        return {"type": plain[0] if len(plain) == 1 else plain}
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _choice(hint: Hint, defs: dict[str, Schema]) -> Schema:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if origin is Annotated:
        notes = [note for note in arguments[1:] if isinstance(note, OneOf)]
        if not notes:
            return _value(arguments[0], defs)
        named: Schema = {"enum": list(notes[0].names())}
        return {"anyOf": [named, _value(arguments[0], defs)]} if notes[0].others else named
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _value(arguments[1], defs)}
    if origin is tuple and arguments[-1] is not Ellipsis:
        items = [_value(argument, defs) for argument in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin in (tuple, list):
        item = _value(arguments[0], defs)
        listed = {"type": "array", "items": item}
        # A single value stands for a list of it, but a mapping does not.
        return listed if dataclasses.is_dataclass(arguments[0]) else {"anyOf": [item, listed]}
    if dataclasses.is_dataclass(hint):
        cls = typing.cast("type", hint)
        name = f"{cls.__module__}.{cls.__qualname__}"
        if name not in defs:
            defs[name] = {"title": cls.__name__, "description": summary(cls), **_dataclass(cls, defs)}
        return {"$ref": f"#/$defs/{name}"}
    raise TypeError(
        f"a field of type {hint!r} has no form in YAML: use plain types, Literal, tuple, dict or dataclasses"
    )
