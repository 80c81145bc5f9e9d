"""Convert YAML values, strictly, to the types that a dataclass declares. Errors have the line."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Literal, TypeAlias, TypeVar, cast

from melmill.cluster.errors import ClusterError
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.located import Located
from melmill.stages.numeric.errors import ParameterError, StageError
from melmill.storage.errors import StoreError
from melmill.storage.files.places import read_place

T = TypeVar("T")

# A type as a field declares it: a class, a union, a Literal or a generic.
Hint: TypeAlias = object

# What YAML 1.1 takes for a value of another type than YAML 1.2 does, with what to write.
_YAML_1_1: dict[Hint, tuple[re.Pattern[str], str]] = {
    bool: (re.compile(r"yes|no|on|off|y|n", re.IGNORECASE), "true or false"),
    int: (re.compile(r"[-+]?(0b[01_]+|0x[\da-f_]+|\d[\d_]*(:[0-5]?\d)*)", re.IGNORECASE), "plain digits"),
    float: (re.compile(r"[-+]?(\d[\d_]*(:[0-5]?\d)*)?(\.[\d_]*)?(e[-+]?\d+)?", re.IGNORECASE), "plain digits"),
}
_VARIABLE = re.compile(r"\$(\{\w+\}|[A-Za-z_]\w*)")
_NAMES: dict[Hint, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
}


def build(cls: type[T], fields: Mapping[str, Located], owner: str, where: str) -> T:
    """Return a dataclass made of YAML values.

    Parameters
    ----------
    cls : type
    fields : mapping of str to Located
    owner : str
        Name of what is made, for errors.
    where : str
        Its ``file:line``.

    Raises
    ------
    PipelineError
        A field is unknown, missing or of the wrong type, or the dataclass refuses it.
    """
    hints = field_types(cls)
    for name, value in fields.items():
        if name not in hints:
            raise PipelineError(unknown("field", name, hints, owner), value.where)
    for field in dataclasses.fields(cast("Any", cls)):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init and required and field.name not in fields:
            example = field.metadata.get("example")
            hint = f", such as {field.name}: {example}" if example else ""
            raise PipelineError(f"{owner} needs the field {field.name!r}{hint}", where)
    places = {field.name for field in dataclasses.fields(cast("Any", cls)) if field.metadata.get("place")}
    values = {
        name: (convert_place if name in places else convert)(value, hints[name], f"{name} of {owner}")
        for name, value in fields.items()
    }
    try:
        return cls(**values)
    except (ParameterError, ClusterError) as error:
        blamed = fields.get(error.field or "")
        raise PipelineError(str(error), blamed.where if blamed else where) from error
    except StageError as error:
        raise PipelineError(f"{owner}: {error}", where) from error


def field_types(cls: type) -> dict[str, Hint]:
    """Return the declared type of every field of a dataclass."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def unknown(what: str, name: str, known: Iterable[str], owner: str) -> str:
    """Return the message that `owner` has no such thing, with the nearest name that it has.

    >>> unknown("field", "momentun", ["momentum"], "griffin_lim")
    "griffin_lim has no field 'momentun'; did you mean 'momentum'?"
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f" ({what}s: {', '.join(sorted(known))})"
    return f"{owner} has no {what} {name!r}{hint}"


def convert(value: Located, hint: Hint, owner: str) -> Any:  # noqa: ANN401 - the hint says what it is
    """Return a value converted to a type; raise PipelineError about `owner` if it does not fit."""
    possible = choices(hint)
    for choice in possible:
        if _fits(value, choice):
            return _made(value, choice, owner)
    raise PipelineError(_mismatch(value, possible, owner), value.where)


def convert_place(value: Located, hint: Hint, owner: str) -> Any:  # noqa: ANN401
    """Return the path or URL of a folder or file, with the home folder in place of a leading ``~``.

    Raises
    ------
    PipelineError
        It is no text. It names a variable such as ``$HOME``, or `read_place` refuses it.
    """
    place = convert(value, hint, owner)
    if not isinstance(place, str):
        return place
    if variable := _VARIABLE.search(place):
        raise PipelineError(
            f"{owner} can't hold a variable, got {place!r}: write {variable[0]} out, or begin with ~ for your home",
            value.where,
        )
    try:
        return read_place(place, owner)
    except StoreError as error:
        raise PipelineError(str(error), value.where) from error


def takes_list(hint: Hint) -> bool:
    """Tell whether a field of this type takes a list as one value. Other fields fan out."""
    return any(typing.get_origin(choice) in (tuple, list) for choice in choices(hint))


def choices(hint: Hint) -> list[Hint]:
    """Return the types that YAML may give a field.

    These are all members of a union but Enums, which only mark defaults (`Unset`).
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [choice for member in typing.get_args(hint) for choice in choices(member)]
    return [] if isinstance(hint, type) and issubclass(hint, Enum) else [hint]


def _fits(value: Located, hint: Hint) -> bool:
    origin, raw = typing.get_origin(hint), value.value
    if origin is Literal:
        return any(raw == word and type(raw) is type(word) for word in typing.get_args(hint))
    if origin in (tuple, list):
        return isinstance(raw, (list, str, int, float))
    if origin in (dict, Mapping) or dataclasses.is_dataclass(hint):
        return isinstance(raw, dict)
    if hint is float:
        return isinstance(raw, (int, float)) and not isinstance(raw, bool)
    return type(raw) is hint


def _made(value: Located, hint: Hint, owner: str) -> Any:  # noqa: ANN401
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (tuple, list):
        return _sequence(value, origin, arguments, owner)
    if origin in (dict, Mapping):
        return {key: convert(entry, arguments[1], f"{key} of {owner}") for key, entry in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value.value, owner, value.where)
    return float(value.value) if hint is float else value.value


def _sequence(value: Located, origin: type, arguments: tuple[Hint, ...], owner: str) -> Any:  # noqa: ANN401
    entries = value.value if isinstance(value.value, list) else [value]
    if origin is tuple and arguments[-1] is not Ellipsis:
        if len(entries) != len(arguments):
            raise PipelineError(f"{owner} must have {len(arguments)} values, got {value.shown()}", value.where)
        return tuple(convert(entry, hint, owner) for entry, hint in zip(entries, arguments, strict=True))
    return origin(convert(entry, arguments[0], owner) for entry in entries)


def _mismatch(value: Located, possible: list[Hint], owner: str) -> str:
    message = f"{owner} must be {' or '.join(map(_name, possible))}, got {value.shown()}"
    for hint, (form, right) in _YAML_1_1.items():
        if hint in possible and isinstance(value.value, str) and form.fullmatch(value.value):
            return f"{message}, which is text in YAML 1.2: write {right}"
    return message


def _name(hint: Hint) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(word) for word in typing.get_args(hint))
    if typing.get_origin(hint) in (tuple, list):
        return "a list"
    if typing.get_origin(hint) in (dict, Mapping) or dataclasses.is_dataclass(hint):
        return "a mapping"
    return _NAMES.get(hint, str(hint))
