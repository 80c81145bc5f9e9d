"""How a corpus differs from its catalogue: rows that are retired, and files that have other times.

The parts of a catalogue never change. A recording that is gone, or that has changed, retires its
row. Lists of retired rows lie beside the parts. They are numbered, and never change either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import pyarrow as pa

from melmill.storage.errors import DamagedData, damaged
from melmill.storage.files.location import Location
from melmill.storage.records import record_name
from melmill.storage.tables import from_numpy, from_parquet, to_numpy, to_parquet, with_seal, without_seal

_LISTS = "retired-"
_SEEN = "seen.parquet"
_RETIRED_SCHEMA = pa.schema(
    [("shard", pa.int64()), ("utterance_id", pa.string()), ("path", pa.string()), ("reason", pa.string())]
)
_SEEN_SCHEMA = pa.schema(
    [("shard", pa.int64()), ("path", pa.string()), ("size_bytes", pa.int64()), ("mtime_ns", pa.int64())]
)

Read = Callable[[str], bytes]


class Reason(StrEnum):
    """Why a row is retired."""

    CHANGED = "changed"
    MENDED = "mended"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, order=True)
class Retired:
    """Name a row of a catalogue that counts no more. An id may have a row in a later shard."""

    shard: int
    utterance_id: str
    path: str
    reason: Reason


@dataclass(frozen=True, slots=True, order=True)
class Seen:
    """Hold size and time of a file that holds what its row says, though the row has others."""

    shard: int
    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Revisions:
    """Hold the retired rows of a catalogue, and the files with other times than it has of them.

    It is immutable, as a catalogue is.

    Parameters
    ----------
    lists : tuple of tuple of Retired
        Rows that were retired together, in the order of time.
    n_stored : int
        Lists that are on disk already.
    seen : mapping of (int, str) to Seen
        By shard and path.
    seen_stored : bool
        Whether `seen` is on disk already.
    """

    lists: tuple[tuple[Retired, ...], ...] = ()
    n_stored: int = 0
    seen: Mapping[tuple[int, str], Seen] = field(default_factory=dict)
    seen_stored: bool = True

    @classmethod
    def read(cls, location: Location, names: Iterable[str], *, without_last: bool = False) -> Revisions:
        """Return what is stored among the files `names` of a catalogue's folder.

        Parameters
        ----------
        location : Location
        names : iterable of str
        without_last : bool
            Leave out the last list of retired rows.

        Raises
        ------
        DamagedData
            A list of retired rows is damaged or missing.
        """
        names = set(names)
        if without_last:
            names -= set(list_names(names)[-1:])
        lists = read_lists(location, names, location.read)
        seen: list[Seen] = []
        if _SEEN in names:
            # Without it, files are only compared once more.
            with suppress(DamagedData, FileNotFoundError):
                seen = [Seen(*row) for row in _rows(location.read(_SEEN), _SEEN_SCHEMA, f"{location.url}/{_SEEN}")]
        return cls(lists=lists, n_stored=len(lists), seen={(one.shard, one.path): one for one in seen})

    @cached_property
    def retired(self) -> Mapping[int, frozenset[str]]:
        """Ids of the retired rows, by shard."""
        return by_shard(self.lists)

    @cached_property
    def by_record(self) -> Mapping[str, frozenset[str]]:
        """Ids of the retired rows, by the name of their shard's record."""
        return {record_name(shard): ids for shard, ids in self.retired.items()}

    @property
    def n_retired(self) -> int:
        """Number of retired rows."""
        return sum(map(len, self.retired.values()))

    @property
    def retires_more(self) -> bool:
        """Whether it has a list that is not on disk yet."""
        return len(self.lists) > self.n_stored

    def retiring(self, rows: Iterable[Retired]) -> Revisions:
        """Return revisions with more retired rows."""
        more = tuple(sorted(rows))
        return replace(self, lists=(*self.lists, more)) if more else self

    def seeing(self, files: Iterable[Seen]) -> Revisions:
        """Return revisions with other sizes and times of files."""
        seen = {**self.seen, **{(one.shard, one.path): one for one in files}}
        return self if seen == self.seen else replace(self, seen=seen, seen_stored=False)

    def write(self, location: Location) -> None:
        """Store what is not on disk yet.

        Raises
        ------
        AlreadyThere
            Another run retired others.
        """
        for index in range(self.n_stored, len(self.lists)):
            location.put(_list_name(index), _list_bytes(self.lists[index]))
        if not self.seen_stored:
            columns = zip(
                *((one.shard, one.path, one.size_bytes, one.mtime_ns) for one in self._still_seen), strict=True
            )
            arrays = [list(column) for column in columns] or [[] for _ in _SEEN_SCHEMA.names]
            table = pa.table(dict(zip(_SEEN_SCHEMA.names, arrays, strict=True)), schema=_SEEN_SCHEMA)
            location.replace(_SEEN, to_parquet(with_seal(table)))

    def replace_last(self, location: Location) -> None:
        """Store the list that is not on disk yet, in place of a damaged one."""
        location.replace(_list_name(self.n_stored), _list_bytes(self.lists[self.n_stored]))

    @property
    def _still_seen(self) -> list[Seen]:
        retired = {(row.shard, row.path) for rows in self.lists for row in rows}
        return sorted(one for place, one in self.seen.items() if place not in retired)


def read_lists(location: Location, names: Iterable[str], read: Read) -> tuple[tuple[Retired, ...], ...]:
    """Return the stored lists of retired rows.

    Parameters
    ----------
    location : Location
        Folder of the catalogue.
    names : iterable of str
        Its files.
    read : callable
        Returns the bytes of one of them.

    Raises
    ------
    DamagedData
        A list is damaged or missing.
    """
    stored = list_names(names)
    missing = sorted({_list_name(index) for index in range(len(stored))}.difference(stored))
    if missing:
        raise damaged(location.url, f"lists of retired utterances are missing: {', '.join(missing)}")
    lists = []
    for name in stored:
        rows = _rows(read(name), _RETIRED_SCHEMA, f"{location.url}/{name}")
        try:
            lists.append(tuple(Retired(shard, one, path, Reason(reason)) for shard, one, path, reason in rows))
        except ValueError as error:
            raise damaged(f"{location.url}/{name}", str(error)) from error
    return tuple(lists)


def by_shard(lists: Iterable[Iterable[Retired]]) -> dict[int, frozenset[str]]:
    """Return the ids of retired rows by shard."""
    ids: dict[int, set[str]] = {}
    for rows in lists:
        for row in rows:
            ids.setdefault(row.shard, set()).add(row.utterance_id)
    return {shard: frozenset(names) for shard, names in ids.items()}


def with_seen(table: pa.Table, seen: Mapping[tuple[int, str], Seen]) -> pa.Table:
    """Return rows with the sizes and times that files were seen with."""
    columns = {name: to_numpy(table[name]).copy() for name in ("size_bytes", "mtime_ns")}
    for row, place in enumerate(zip(table["shard"].to_pylist(), table["path"].to_pylist(), strict=True)):
        if place in seen:
            columns["size_bytes"][row], columns["mtime_ns"][row] = seen[place].size_bytes, seen[place].mtime_ns
    for name, numbers in columns.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), from_numpy(numbers))
    return table


def _rows(data: bytes, schema: pa.Schema, place: str) -> Iterable[tuple[Any, ...]]:
    table = without_seal(from_parquet(data, place), schema, place)
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _list_bytes(rows: Sequence[Retired]) -> bytes:
    columns = zip(*((row.shard, row.utterance_id, row.path, row.reason.value) for row in rows), strict=True)
    named = dict(zip(_RETIRED_SCHEMA.names, map(list, columns), strict=True))
    return to_parquet(with_seal(pa.table(named, schema=_RETIRED_SCHEMA)))


def _list_name(index: int) -> str:
    return f"{_LISTS}{index:06d}.parquet"


def list_names(names: Iterable[str]) -> list[str]:
    """Return the lists of retired rows among the files of a catalogue's folder, by number."""
    return sorted((name for name in names if name.startswith(_LISTS)), key=lambda name: (len(name), name))
