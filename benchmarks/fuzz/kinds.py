"""All kinds of input by name. A kind is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

from benchmarks.fuzz.contract import Kind


def _kind(module: str, cls: str) -> Callable[[], type[Kind]]:
    def load() -> type[Kind]:
        found: type[Kind] = getattr(importlib.import_module(f"benchmarks.fuzz.{module}"), cls)
        return found

    return load


KINDS: Mapping[str, Callable[[], type[Kind]]] = {
    "audio": _kind("audio", "Audio"),
    "settings": _kind("pipelines", "Settings"),
    "pipelines": _kind("pipelines", "Pipelines"),
    "tables": _kind("tables", "Tables"),
    "mels": _kind("mels", "Mels"),
    "checkpoints": _kind("checkpoints", "Checkpoints"),
    "stores": _kind("stores", "Stores"),
}

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
