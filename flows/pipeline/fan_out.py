"""Step 2 of the graph: make a node for each combination of the values that are listed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melmill.flows.pipeline.convert import field_types, takes_list
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.located import Located
from melmill.flows.pipeline.wire import Wired

# A run has a task for each node and shard.
MAX_NODES = 10_000


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A node to be: a declaration with one value for every field.

    Parameters
    ----------
    name : str
        Name as declared, with the values that were listed (``admm[n_iter=10]``).
    wired : Wired
        Its declaration.
    fields : mapping of str to Located
        One value for each field. A word at a port is a field too.
    inputs : mapping of str to tuple of str
        Names of the variants at each port.
    """

    name: str
    wired: Wired
    fields: Mapping[str, Located]
    inputs: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class _Option:
    """One value on an axis: variants at a port, or the value of a field."""

    label: str
    inputs: Mapping[str, tuple[str, ...]]
    fields: Mapping[str, Located]


_Axis = list[_Option]


def fan_out(wired: Sequence[Wired]) -> list[Variant]:
    """Return the variants of all declarations, in order.

    Parameters
    ----------
    wired : sequence of Wired
        Each after those that it reads.

    Raises
    ------
    PipelineError
        A field is an empty list, or the lists make too many nodes.
    """
    variants: list[Variant] = []
    groups: dict[str, list[str]] = {}
    for one in wired:
        made = _variants(one, groups, MAX_NODES - len(variants))
        groups[one.name] = [variant.name for variant in made]
        variants.extend(made)
    return variants


def _variants(wired: Wired, groups: Mapping[str, Sequence[str]], n_left: int) -> list[Variant]:
    axes = [*_port_axes(wired, groups), *_field_axes(wired)]
    n_made = math.prod(map(len, axes))
    if n_made > n_left:
        raise PipelineError(
            f"the lists of {wired.name!r} and of what it reads make {n_made:,} nodes of it, and a pipeline has at most "
            f"{MAX_NODES:,} in all: list fewer values",
            wired.where,
        )
    variants = []
    for choice in itertools.product(*axes):
        label = ",".join(option.label for axis, option in zip(axes, choice, strict=True) if len(axis) > 1)
        variants.append(
            Variant(
                name=f"{wired.name}[{label}]" if label else wired.name,
                wired=wired,
                fields={name: value for option in choice for name, value in option.fields.items()},
                inputs={port: names for option in choice for port, names in option.inputs.items()},
            )
        )
    return variants


def _port_axes(wired: Wired, groups: Mapping[str, Sequence[str]]) -> list[_Axis]:
    axes = []
    for port, entries in wired.ports.items():
        words = [entry for entry in entries if wired.is_word(port, entry)]
        names = [name for entry in entries if not wired.is_word(port, entry) for name in groups[entry.value]]
        if wired.cls.inputs[port].many:
            axes.append([_Option("", {port: tuple(names)}, {})])
            continue
        axis = [_Option(f"{port}={word.value}", {}, {port: word}) for word in words]
        axis += [_Option(name if port == "from" else f"{port}={name}", {port: (name,)}, {}) for name in names]
        axes.append(axis)
    return axes


def _field_axes(wired: Wired) -> list[_Axis]:
    types = field_types(wired.cls)
    axes = []
    for name, value in wired.fields.items():
        listed = name in types and isinstance(value.value, list) and not takes_list(types[name])
        if listed and not value.value:
            raise PipelineError(f"{name} is an empty list: give at least one value", value.where)
        entries = value.value if listed else [value]
        axes.append([_Option(f"{name}={entry.plain()}", {}, {name: entry}) for entry in entries])
    return axes
