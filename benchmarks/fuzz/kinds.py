"""All kinds of input by name. A kind is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from benchmarks.fuzz.contract import Kind

KINDS: Mapping[str, str] = {
    "audio": "benchmarks.fuzz.audio:Audio",
    "settings": "benchmarks.fuzz.pipelines:Settings",
    "pipelines": "benchmarks.fuzz.pipelines:Pipelines",
    "tables": "benchmarks.fuzz.tables:Tables",
    "mels": "benchmarks.fuzz.mels:Mels",
    "checkpoints": "benchmarks.fuzz.checkpoints:Checkpoints",
    "stores": "benchmarks.fuzz.stores:Stores",
}
"""Module and class of each kind."""

SHARES: Mapping[str, float] = {
    "audio": 4.0,
    "settings": 2.0,
    "pipelines": 2.0,
    "tables": 1.5,
    "mels": 1.0,
    "checkpoints": 1.5,
    "stores": 2.0,
}
"""Part of a search's time that a kind takes, relative to the others."""


def kind_class(name: str) -> type[Kind]:
    """Return the class of a kind, by its name or as ``module:class``."""
    module, _, cls = KINDS.get(name, name).partition(":")
    found: type[Kind] = getattr(importlib.import_module(module), cls)
    return found
