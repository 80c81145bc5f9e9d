"""Records: the proof that a node's work on one shard is whole; nothing else means done.

- JSON that knows its own checksum, so that a flipped bit is not taken for another value.
- Packs: what many records say in one file, so that a look at a product of an object store takes few requests.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from melmill.storage.files.location import Location

_SEAL = "sha256"


def sealed(fields: Mapping[str, Any]) -> bytes:
    """Return fields as the bytes of a file, in their order, with their checksum."""
    return (json.dumps({**fields, _SEAL: _checksum(fields)}, indent=1) + "\n").encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """Return the fields of a file's bytes; one without a checksum, as older versions wrote them, is believed.

    Raises
    ------
    ValueError
        The bytes are not JSON, not fields, or not those that were written.
    """
    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise ValueError(f"expected fields, got {type(fields).__name__}")
    seal = fields.pop(_SEAL, None)
    if seal is not None and seal != _checksum(fields):
        raise ValueError("its checksum is not that of its fields")
    return fields


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Size and SHA-256 (hexadecimal) of a file as it was written."""

    n_bytes: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> StoredFile:
        """Describe the file that holds `data`."""
        return cls(n_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What only the worker knows of an attempt.

    Parameters
    ----------
    compute_s : float
        Time spent computing, s.
    started_at : str
        ISO 8601, UTC.
    host : str
        Name of the machine.
    attempt : int
        Number of the attempt, from 1.
    versions : mapping of str to str
        Of the packages that decide the result.
    pool, device, worker : str
        Workers that the task was for, what it computed on, and which process (and thread, on the CPU) of `host` did.
    busy_s : float or None
        Of `compute_s`, what the device was at work; None where the stage does not measure it.
    peak_mem_bytes : int
        Largest resident size of the worker process during the task; 0 where it was not taken.
    """

    compute_s: float
    started_at: str
    host: str
    attempt: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)
    pool: str = ""
    device: str = ""
    worker: str = ""
    busy_s: float | None = None
    peak_mem_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Prove that what a node made of one shard is stored.

    Parameters
    ----------
    node, key : str
        Whose product it is.
    name : str
        Of the record: the shard's number in six digits, or ``all-<hash>`` for what is made of all shards.
    n_utterances : int
        In the shard.
    absent : tuple of str
        Ids without data in this product: quarantined here or before.
    n_quarantined : int
        Quarantined here.
    files : mapping of str to StoredFile
        By name relative to the product's folder.
    duration_s : float
        Audio in the shard, s.
    compute_s, started_at, host, attempt, versions, pool, device, worker, busy_s, peak_mem_bytes
        See `Facts`.
    wall_s : float
        From the task's start until all files were stored, s; 0 where it was not measured.
    """

    node: str
    key: str
    name: str
    n_utterances: int
    absent: tuple[str, ...]
    n_quarantined: int
    files: Mapping[str, StoredFile]
    duration_s: float
    compute_s: float
    started_at: str
    host: str
    attempt: int
    versions: Mapping[str, str]
    pool: str = ""
    device: str = ""
    worker: str = ""
    busy_s: float | None = None
    peak_mem_bytes: int = 0
    wall_s: float = 0.0

    def to_json(self) -> bytes:
        """Return the record as the bytes of its file."""
        return sealed(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Record | None:
        """Return the record of a file's bytes; None where they are none, which counts as no record."""
        try:
            fields = unsealed(data)
            fields["files"] = {name: StoredFile(**stored) for name, stored in fields["files"].items()}
            return cls(**fields | {"absent": tuple(fields["absent"])})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def record_name(index: int) -> str:
    """Return the name of the record of a shard.

    >>> record_name(12)
    '000012'
    """
    return f"{index:06d}"


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
