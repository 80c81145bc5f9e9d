"""The types of cluster by name: modules of `melmill.cluster.types`, and other packages' types."""

from __future__ import annotations

import difflib
import pkgutil
from dataclasses import fields
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TypeGuard, get_args, get_type_hints

import melmill.cluster.types
from melmill.cluster.contract import ClusterSpec, Pool
from melmill.cluster.errors import ClusterError

GROUP = "melmill.clusters"
DEFAULT_TYPE = "local"


@cache
def _built_in() -> frozenset[str]:
    return frozenset(module.name for module in pkgutil.iter_modules(melmill.cluster.types.__path__))


@cache
def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def cluster_types() -> list[str]:
    """Return the names of all types, built in and of the entry-point group `melmill.clusters`."""
    return sorted({*_built_in(), *_installed()})


@cache
def cluster_type(name: str) -> type[ClusterSpec]:
    """Return the type of cluster called `name`.

    A built-in type is the subclass of ClusterSpec in the module of its name.

    Raises
    ------
    ClusterError
        There is no such type, or an entry point names something else.
    """
    if name in _built_in():
        module = import_module(f"melmill.cluster.types.{name}")
        (found,) = (value for value in vars(module).values() if _is_type(value) and value.__module__ == module.__name__)
        return found
    if name not in _installed():
        near = difflib.get_close_matches(name, cluster_types(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ClusterError(f"cluster: no type is called {name!r}{hint} (types: {', '.join(cluster_types())})", "type")
    entry = _installed()[name]
    loaded = entry.load()
    if not _is_type(loaded):
        package = entry.dist.name if entry.dist else entry.value
        raise ClusterError(
            f"cluster: type {name!r} of the package {package!r} must be a subclass of ClusterSpec with a type, "
            f"got {loaded!r}",
            "type",
        )
    return loaded


def types_with(field: str) -> list[str]:
    """Return the names of the types that add a field called `field`, or whose pools do."""
    shared = {one.name for cls in (ClusterSpec, Pool) for one in fields(cls)}
    if field in shared:
        return []
    return [name for name in cluster_types() if field in field_names(cluster_type(name))]


def field_names(cls: type[ClusterSpec]) -> set[str]:
    """Return the names of the fields of a type and of its pools."""
    _, pool = get_args(get_type_hints(cls)["pools"])
    return {one.name for owner in (cls, pool) for one in fields(owner)}


def _is_type(value: object) -> TypeGuard[type[ClusterSpec]]:
    return isinstance(value, type) and issubclass(value, ClusterSpec) and hasattr(value, "type")
