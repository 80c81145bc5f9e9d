"""Packs: what many records say in one file, so that a look at a product of an object store takes few requests.

A pack is a copy and proves nothing: a record counts where the listing shows its own object with the tag that the pack
was made from. Lost, cut off or outdated packs therefore cost requests, never a wrong answer.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from melmill.storage.location import Location
from melmill.storage.records import Record

# Fewer records than this are not worth a pack; more packs than that are merged into one.
WORTH = 32
MERGE = 8

_PACK = re.compile(r"packed-([0-9a-f]{64})\.z")
_SUFFIX = ".json"


@dataclass(frozen=True)
class Copy:
    """A record's file as it was read, with the tag that it had."""

    tag: str
    data: bytes


class Packs:
    """The packs among the files of a ``records`` folder, as one listing shows it.

    Parameters
    ----------
    location : Location
        The folder.
    tags : mapping of str to str
        What `Location.tags` says of it; empty where files have no tags, and then there are no packs.
    """

    def __init__(self, location: Location, tags: Mapping[str, str]) -> None:
        self._location = location
        self.names = sorted(name.removesuffix(_SUFFIX) for name in tags if name.endswith(_SUFFIX))
        self.files = sorted(name for name in tags if _PACK.fullmatch(name))
        self.copies: dict[str, Copy] = {}
        for file in self.files:
            for name, copy in _read(location, file).items():
                if tags.get(name + _SUFFIX) == copy.tag:
                    self.copies[name] = copy

    @property
    def missing(self) -> list[str]:
        """Names of the records that no pack has a copy of."""
        return [name for name in self.names if name not in self.copies]

    def record(self, name: str) -> Record | None:
        """Return a record that is packed; None where it is not, or can't be parsed."""
        copy = self.copies.get(name)
        return None if copy is None else Record.from_json(copy.data)

    def add(self, copies: Mapping[str, Copy]) -> None:
        """Write a pack of further records, and merge packs that have become many."""
        merged = self.files if len(self.files) >= MERGE else []
        data = _packed({**(self.copies if merged else {}), **copies})
        name = f"packed-{hashlib.sha256(data).hexdigest()}.z"
        self._location.replace(name, data)
        for file in merged:
            if file != name:
                self._location.remove(file)


def _packed(copies: Mapping[str, Copy]) -> bytes:
    lines = (json.dumps([name, copy.tag, copy.data.decode()]) for name, copy in sorted(copies.items()))
    return zlib.compress("\n".join(lines).encode(), 1)


def _read(location: Location, file: str) -> dict[str, Copy]:
    """Return the copies in a pack; none where it is gone or damaged."""
    try:
        data = location.read(file)
    except FileNotFoundError:
        # Merged into another one just now.
        return {}
    if file != f"packed-{hashlib.sha256(data).hexdigest()}.z":
        return {}
    return dict(_copies(zlib.decompress(data).decode().splitlines()))


def _copies(lines: Iterable[str]) -> Iterable[tuple[str, Copy]]:
    for line in lines:
        name, tag, text = json.loads(line)
        yield name, Copy(tag, text.encode())
