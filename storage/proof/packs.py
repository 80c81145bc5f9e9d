"""Packs: copies of many records in one file, so that a plan reads few files.

A pack proves nothing. A copy in it counts if the record's own file is there as it was when it was
copied.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from melmill.storage.errors import DamagedData
from melmill.storage.files.location import Location
from melmill.storage.proof.record import Record, record_names, record_order
from melmill.storage.tables import from_parquet, rows_at, to_parquet

# A product has fewer records than this before they are packed, and fewer small packs before they
# are merged. Requests to an object store take much longer than reading a local file.
MIN_UNPACKED = 32
MIN_UNPACKED_LOCAL = 1024
MAX_PACKS = 8
# Records in a pack at most: what is in memory at a time.
MAX_PACKED = 65_536

_PACK = re.compile(r"packed-([0-9a-f]{64})\.(?:parquet|z)")
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("tag", pa.string()),
        ("data", pa.binary()),
        # What a plan asks of a record.
        ("files", pa.list_(pa.string())),
        ("n_bytes", pa.list_(pa.int64())),
        ("absent", pa.list_(pa.string())),
        ("n_quarantined", pa.int64()),
        ("levels", pa.string()),
        ("counts", pa.string()),
    ]
)


@dataclass(frozen=True)
class Copy:
    """The bytes of a record's file, and the tag that the file had when it was read."""

    tag: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Gist:
    """What a plan asks of a record.

    Parameters
    ----------
    name : str
    n_bytes : mapping of str to int
        Sizes of its files, by `Record.file_place`.
    absent : sequence of str
        Ids without data.
    n_quarantined : int
        Of those, how many were put into quarantine here.
    levels : mapping
        What an ingest node counted of its levels.
    counts : mapping of str to int
        What another node counted of its utterances.
    """

    name: str
    n_bytes: Mapping[str, int]
    absent: tuple[str, ...]
    n_quarantined: int
    levels: Mapping[str, int | float | str]
    counts: Mapping[str, int]

    @classmethod
    def of(cls, record: Record) -> Gist:
        """Return what a plan asks of a record."""
        n_bytes = {record.file_place(file): stored.n_bytes for file, stored in record.files.items()}
        return cls(record.name, n_bytes, record.absent, record.n_quarantined, record.levels, record.counts)


class Packs:
    """The packs among the files of a ``records`` folder, as of one listing. They are read when needed.

    Parameters
    ----------
    location : Location
        The folder.
    tags : mapping of str to str
        By file, from `Location.tags`. Where files have no tags, there are no packs.
    """

    def __init__(self, location: Location, tags: Mapping[str, str]) -> None:
        self._location = location
        self._tags = tags
        self.names = record_names(tags)
        self.files = sorted(name for name in tags if _PACK.fullmatch(name))

    def tables(self, columns: Sequence[str] = _SCHEMA.names) -> Iterator[tuple[str, pa.Table]]:
        """Yield each pack's file with its rows, those left out whose record has changed or is gone."""
        for file in self.files:
            table = _read_pack(self._location, file, columns)
            pairs = zip(table["name"].to_pylist(), table["tag"].to_pylist(), strict=True)
            as_then = [i for i, (name, tag) in enumerate(pairs) if self._tags.get(f"{name}.json") == tag]
            yield file, table if len(as_then) == len(table) else rows_at(table, np.array(as_then, np.int64))

    def gists(self) -> Iterator[Gist]:
        """Yield what a plan asks of the packed records, a record once or more often."""
        for _, table in self.tables([name for name in _SCHEMA.names if name != "data"]):
            columns = (table[name].to_pylist() for name in _SCHEMA.names if name not in ("tag", "data"))
            for name, files, n_bytes, absent, n_quarantined, *said in zip(*columns, strict=True):
                sizes = dict(zip(files, n_bytes, strict=True))
                levels, counts = (json.loads(text) if text else {} for text in said)
                yield Gist(name, sizes, tuple(absent), n_quarantined, levels, counts)

    @cached_property
    def copies(self) -> dict[str, Copy]:
        """Copies of the records by name."""
        return {name: copy for _, table in self.tables() for name, copy in _copies(table).items()}

    @property
    def missing(self) -> list[str]:
        """Names of the records without a copy in a pack."""
        packed = {name for _, table in self.tables(["name", "tag"]) for name in table["name"].to_pylist()}
        return [name for name in self.names if name not in packed]

    def record(self, name: str) -> Record | None:
        """Return a packed record, None where it is not packed or can't be parsed."""
        copy = self.copies.get(name)
        return None if copy is None else Record.of_name(copy.data, name)

    def add(self, copies: Mapping[str, Copy]) -> None:
        """Write packs of further records. If there are `MAX_PACKS` already, merge the small ones."""
        merged = list(self.tables()) if len(self.files) >= MAX_PACKS else []
        small = {file: table for file, table in merged if len(table) < MAX_PACKED}
        packed = {name: copy for table in small.values() for name, copy in _copies(table).items()} | dict(copies)
        names = sorted(packed, key=record_order)
        written = set()
        for first in range(0, len(names), MAX_PACKED):
            data = to_parquet(_table({name: packed[name] for name in names[first : first + MAX_PACKED]}))
            file = f"packed-{hashlib.sha256(data).hexdigest()}.parquet"
            self._location.replace(file, data)
            written.add(file)
        for file in small.keys() - written:
            self._location.remove(file)


def _copies(table: pa.Table) -> dict[str, Copy]:
    columns = (table[name].to_pylist() for name in ("name", "tag", "data"))
    return {name: Copy(tag, data) for name, tag, data in zip(*columns, strict=True)}


def _table(copies: Mapping[str, Copy]) -> pa.Table:
    """Return a pack of copies, without those that are no records."""
    rows = []
    for name, copy in copies.items():
        record = Record.of_name(copy.data, name)
        if record is not None:
            gist = Gist.of(record)
            said = [json.dumps(dict(fields)) if fields else "" for fields in (gist.levels, gist.counts)]
            sizes = list(gist.n_bytes.values())
            head = (name, copy.tag, copy.data, list(gist.n_bytes), sizes)
            rows.append((*head, list(gist.absent), gist.n_quarantined, *said))
    if not rows:
        return _SCHEMA.empty_table()
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=_SCHEMA)


def _read_pack(location: Location, file: str, columns: Sequence[str]) -> pa.Table:
    """Return columns of a pack, without rows where the pack is gone or damaged."""

    # Not made beforehand: Arrow imports pandas for it.
    def nothing() -> pa.Table:
        return _SCHEMA.empty_table().select(columns)

    try:
        data = location.read(file)
    except FileNotFoundError:
        # Another process has just merged it.
        return nothing()
    if file.partition(".")[0] != f"packed-{hashlib.sha256(data).hexdigest()}":
        return nothing()
    if file.endswith(".z"):
        # Older versions wrote these.
        lines = map(json.loads, zlib.decompress(data).decode().splitlines())
        return _table({name: Copy(tag, text.encode()) for name, tag, text in lines}).select(columns)
    try:
        return from_parquet(data, f"{location.url}/{file}", columns)
    except DamagedData:
        return nothing()
