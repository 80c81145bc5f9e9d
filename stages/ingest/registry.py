"""All readers by name: melmill's own, and those of other packages."""

from __future__ import annotations

from typing import TypeGuard

from melmill.stages.ingest.reader import Reader
from melmill.stages.plugins import Registry


def _is_reader(value: object) -> TypeGuard[type[Reader]]:
    return isinstance(value, type) and issubclass(value, Reader) and "uses" in vars(value)


READERS: Registry[type[Reader]] = Registry(
    "reader",
    package="melmill.stages.ingest.readers",
    group="melmill.readers",
    is_one=_is_reader,
    name_of=lambda reader: reader.uses,
    order=lambda reader: (0, reader.uses),
)
"""All readers by the name of their stage."""
