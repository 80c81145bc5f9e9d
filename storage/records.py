"""Records: the proof that a node's work on a shard is stored. Nothing else counts as done.

A record is written after the files that it names, with their checksums and its own. On object
stores, packs hold copies of many records in one file, so that a resume takes few requests.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from melmill.storage.errors import AlreadyThere, StoreError, damaged
from melmill.storage.files.location import Location

RECORDS = "records"

# A product has fewer records than this before they are packed, and fewer packs before they are
# merged.
MIN_UNPACKED = 32
MAX_PACKS = 8

_SEAL = "sha256"
_PACK = re.compile(r"packed-([0-9a-f]{64})\.z")
_SUFFIX = ".json"
# An object store answers in tens of milliseconds, whatever the request.
_REMOTE_READERS = 16
_ATTEMPTS = 10
# A hundred years, s. A record that says more is none.
_LONGEST_S = 100 * 365 * 24 * 3600.0
# It breaks up writers that act in step. Nothing that is stored depends on it.
_JITTER = random.SystemRandom()

R = TypeVar("R")


def sealed(fields: Mapping[str, object]) -> bytes:
    """Return fields, in their order and with their checksum, as the bytes of a JSON file."""
    return (json.dumps({**fields, _SEAL: _checksum(fields)}, indent=1) + "\n").encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """Return the fields of a file's bytes. Older versions wrote no checksum; that is accepted.

    Raises
    ------
    ValueError
        The bytes are not JSON, not fields, or do not fit their checksum.
    """
    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise ValueError(f"expected a mapping, got {type(fields).__name__}")
    seal = fields.pop(_SEAL, None)
    if seal is not None and seal != _checksum(fields):
        raise ValueError("its checksum is not that of its fields")
    return fields


def _checksum(fields: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Size and SHA-256 (hexadecimal) of a file as it was written."""

    n_bytes: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> StoredFile:
        """Return size and checksum of a file that holds `data`."""
        return cls(n_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What only the worker knows about an attempt.

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
        Pool of the task, what it computed on, and which process of `host` (and thread, on the CPU)
        did it.
    busy_s : float or None
        Part of `compute_s` in which the device was busy. None where the stage does not measure it.
    peak_mem_bytes : int
        Largest resident size of the worker process during the task. 0 where it was not measured.
    levels : mapping of str to int, float or str
        What an ingest node counted of the levels of its recordings. Empty for nothing to say.
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
    levels: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The proof that what a node made of one shard is stored.

    Parameters
    ----------
    node, key : str
        Whose product it is.
    name : str
        Of the record: the shard's number in six digits or more, or ``all-<hash>`` for what is made
        of all shards.
    n_utterances : int
        In the shard.
    absent : tuple of str
        Ids without data in this product, as they were quarantined here or before.
    n_quarantined : int
        Quarantined here.
    files : mapping of str to StoredFile
        By name relative to the product's folder.
    duration_s : float
        Audio in the shard, s.
    compute_s, started_at, host, attempt, versions, pool, device, worker, busy_s, peak_mem_bytes
        See `Facts`.
    levels
        See `Facts`.
    wall_s : float
        From the task's start until all files were stored, s. 0 where it was not measured.
    n_retired : int
        Utterances that the corpus of a training had retired before.
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
    levels: Mapping[str, int | float | str] = field(default_factory=dict)
    wall_s: float = 0.0
    n_retired: int = 0

    def to_json(self) -> bytes:
        """Return the record as the bytes of its file."""
        fields = asdict(self)
        if not self.n_retired:
            # Older versions don't know it, and read stores where nothing is retired.
            del fields["n_retired"]
        return sealed(fields)

    @classmethod
    def from_json(cls, data: bytes) -> Record | None:
        """Return the record of a file's bytes, None for other bytes, which count as no record."""
        try:
            fields = unsealed(data)
            fields["files"] = {name: StoredFile(**stored) for name, stored in fields["files"].items()}
            record = cls(**fields | {"absent": tuple(fields["absent"])})
            return record if record._is_plausible() else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def _is_plausible(self) -> bool:
        """Tell whether all fields have their types, and times and numbers are such."""
        texts = (self.node, self.key, self.name, self.host, self.pool, self.device, self.worker, *self.absent)
        counts = (self.n_utterances, self.n_quarantined, self.attempt, self.peak_mem_bytes)
        times = (self.duration_s, self.compute_s, self.wall_s, self.busy_s or 0.0)
        return (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(count, int) and count >= 0 for count in counts)
            and all(isinstance(time, int | float) and 0 <= time <= _LONGEST_S for time in times)
            and all(isinstance(file.n_bytes, int) and isinstance(file.sha256, str) for file in self.files.values())
            and isinstance(self.versions, dict)
            and datetime.fromisoformat(self.started_at).tzinfo is not None
        )


def record_name(index: int) -> str:
    """Return the name of the record of a shard.

    >>> record_name(12)
    '000012'
    """
    return f"{index:06d}"


def record_order(name: str) -> tuple[float, str]:
    """Return the sort key of a record's name: shards by number, then what is made of all shards.

    As texts, names of more than six digits would come too early.

    >>> sorted(["1000000", "all-0f", "999999"], key=record_order)
    ['999999', '1000000', 'all-0f']
    """
    return (int(name), "") if name.isdecimal() else (math.inf, name)


def record_file(name: str) -> str:
    """Return the file of a record, relative to its product's folder."""
    return f"{RECORDS}/{name}{_SUFFIX}"


@dataclass(frozen=True)
class Copy:
    """The bytes of a record's file, and the tag that the file had when it was read."""

    tag: str
    data: bytes


class Packs:
    """The packs among the files of a ``records`` folder, as of one listing.

    Parameters
    ----------
    location : Location
        The folder.
    tags : mapping of str to str
        By file, from `Location.tags`. Where files have no tags, there are no packs.
    """

    def __init__(self, location: Location, tags: Mapping[str, str]) -> None:
        self._location = location
        self.names = _record_names(tags)
        self.files = sorted(name for name in tags if _PACK.fullmatch(name))
        self.copies: dict[str, Copy] = {}
        for file in self.files:
            for name, copy in _read_pack(location, file).items():
                if tags.get(name + _SUFFIX) == copy.tag:
                    self.copies[name] = copy

    @property
    def missing(self) -> list[str]:
        """Names of the records without a copy in a pack."""
        return [name for name in self.names if name not in self.copies]

    def record(self, name: str) -> Record | None:
        """Return a packed record, None where it is not packed or can't be parsed."""
        copy = self.copies.get(name)
        return None if copy is None else _of_name(Record.from_json(copy.data), name)

    def add(self, copies: Mapping[str, Copy]) -> None:
        """Write a pack of further records. If there are `MAX_PACKS` already, merge them into it."""
        merged = self.files if len(self.files) >= MAX_PACKS else []
        packed = {**(self.copies if merged else {}), **copies}
        lines = (
            json.dumps([name, packed[name].tag, packed[name].data.decode()])
            for name in sorted(packed, key=record_order)
        )
        data = zlib.compress("\n".join(lines).encode(), 1)
        name = f"packed-{hashlib.sha256(data).hexdigest()}.z"
        self._location.replace(name, data)
        for file in merged:
            if file != name:
                self._location.remove(file)


def _read_pack(location: Location, file: str) -> dict[str, Copy]:
    """Return the copies in a pack by record, none where the pack is gone or damaged."""
    try:
        data = location.read(file)
    except FileNotFoundError:
        # Another process has just merged it.
        return {}
    if file != f"packed-{hashlib.sha256(data).hexdigest()}.z":
        return {}
    lines = map(json.loads, zlib.decompress(data).decode().splitlines())
    return {name: Copy(tag, text.encode()) for name, tag, text in lines}


def _of_name(record: Record | None, name: str) -> Record | None:
    """Return a record if it has the name of its file: one that was copied proves nothing there."""
    return record if record is not None and record.name == name else None


class RecordedFolder:
    """A folder of files and of the records that prove them.

    Parameters
    ----------
    location : Location
        The folder. Records are in ``records/`` below it.
    """

    def __init__(self, location: Location) -> None:
        self.location = location

    def record(self, name: str) -> Record | None:
        """Return a record, None where there is none, or its file can't be parsed or is another's."""
        try:
            return _of_name(Record.from_json(self.location.read(record_file(name))), name)
        except FileNotFoundError:
            return None

    def records(self, names: Collection[str] | None = None) -> dict[str, Record]:
        """Return the stored records by name and in order: all, or those called `names`.

        On an object store, this takes one request per thousand records, and one for each that is
        unpacked.
        """
        if names is None or len(names) > _REMOTE_READERS:
            packs = self._packs()
            wanted = packs.names
            if names is not None:
                wanted = sorted({*names}.intersection(packs.names), key=record_order)
            if wanted:
                read = self._read_records([name for name in wanted if name not in packs.copies])
                found = {name: read.get(name) or packs.record(name) for name in wanted}
                return {name: record for name, record in found.items() if record is not None}
        return self._read_records(self.record_names() if names is None else sorted(names, key=record_order))

    def _read_records(self, names: Collection[str]) -> dict[str, Record]:
        records = zip(names, self.each(self.record, names), strict=True)
        return {name: record for name, record in records if record is not None}

    def _packs(self) -> Packs:
        folder = self.location / RECORDS
        return Packs(folder, folder.tags())

    def pack(self) -> None:
        """Copy unpacked records into a pack if there are `MIN_UNPACKED`, on object stores only."""
        packs = self._packs()
        if len(packs.missing) < MIN_UNPACKED:
            return
        read = self.each(self._copy, packs.missing)
        packs.add({name: copy for name, copy in zip(packs.missing, read, strict=True) if copy is not None})

    def _copy(self, name: str) -> Copy | None:
        try:
            data, tag = self.location.read_tagged(record_file(name))
        except FileNotFoundError:
            return None
        return Copy(tag, data) if tag is not None and Record.from_json(data) is not None else None

    def record_names(self) -> list[str]:
        """Return the names of all record files in order, also of damaged ones."""
        return _record_names((self.location / RECORDS).sizes())

    def done(self, name: str) -> Record:
        """Return a record; raise StoreError where there is none."""
        record = self.record(name)
        if record is None:
            raise StoreError(f"{self.location.url}: {name!r} has no record, so it is not done. Run the pipeline first.")
        return record

    def drop(self, name: str) -> None:
        """Remove a record, so that its work counts as not done."""
        self.location.remove(record_file(name))

    def forget(self, record: Record) -> None:
        """Remove a record and then its files: the next attempt may write other files."""
        self.drop(record.name)
        for name in record.files:
            self.location.remove(name)

    def damage(self, record: Record) -> str | None:
        """Return the first problem of a record's files by their sizes, None where there is none."""
        return self.size_problem(record, record.files)

    def size_problem(self, record: Record, files: Iterable[str]) -> str | None:
        """Return the first problem of some of a record's files by size, None if there is none."""
        return _size_problem(record, {name: self.location.size(name) for name in files})

    def damaged(self, records: Mapping[str, Record]) -> dict[str, str]:
        """Return the records with missing files or other sizes, each with a problem.

        Each folder is listed once.
        """
        folders = sorted({name.partition("/")[0] for record in records.values() for name in record.files})
        sizes = {
            f"{folder}/{name}": size for folder in folders for name, size in (self.location / folder).tree().items()
        }
        problems = {
            name: _size_problem(record, {file: sizes.get(file) for file in record.files})
            for name, record in records.items()
        }
        return {name: problem for name, problem in problems.items() if problem}

    def problems(self, record: Record) -> dict[str, str]:
        """Return the problems of a record's files by file, after reading them all."""
        problems = {}
        for name, stored in record.files.items():
            try:
                problem = _difference(StoredFile.of(self.location.read(name)), stored)
            except FileNotFoundError:
                problem = "is missing"
            if problem:
                problems[name] = problem
        return problems

    def read_whole(self, record: Record, name: str) -> bytes:
        """Return a record's file, checked against the record; raise DamagedData."""
        try:
            data = self.location.read(name)
        except FileNotFoundError as error:
            raise damaged(self.place(record, name), "is missing") from error
        if name not in record.files:
            raise damaged(self.place(record, name), "is not named by its record")
        problem = _difference(StoredFile.of(data), record.files[name])
        if problem:
            raise damaged(self.place(record, name), problem)
        return data

    def place(self, record: Record, name: str) -> str:
        """Return the name of a file in error messages."""
        return f"node {record.node!r}, record {record.name!r}, file {self.location.url}/{name}"

    def publish(self, record: Record, files: Mapping[str, bytes], clock: float | None = None) -> Record:
        """Write files durably, then the record that proves them; return the record that counts.

        If another process was first, its record wins and ours is discarded, provided that its files
        fit. Files without such a record are replaced. Two writers can have different bytes, as a
        GPU may round differently. So a writer that replaced a file, or found a record that does not
        fit its files, reads everything again. It starts over if the record does not fit. Thus the
        last writer leaves a record that fits its files.

        Parameters
        ----------
        clock : float or None
            `time.perf_counter` at the start of the task, for the record's `wall_s`.

        Raises
        ------
        StoreError
            Other writers of other bytes never finish.
        """
        for attempt in range(_ATTEMPTS):
            published = self._published(record, files, clock)
            if published is not None:
                return published
            time.sleep(_JITTER.uniform(0.0, 0.01 * 2**attempt))
        raise StoreError(f"{self.location.url}: other writers keep overwriting the files of {record.name!r}")

    def _published(self, record: Record, files: Mapping[str, bytes], clock: float | None) -> Record | None:
        """Return the record that counts, None where another writer interfered."""
        others = self.location.put_all(files)
        for name in others:
            winner = self._winner(record.name)
            if winner is not None:
                for ours in files.keys() - winner.files.keys():
                    self.location.remove(ours)
                return winner
            self.drop(record.name)
            self.location.replace(name, files[name])
        if clock is not None:
            record = replace(record, wall_s=time.perf_counter() - clock)
        try:
            self.location.put(record_file(record.name), record.to_json())
        except AlreadyThere:
            winner = self._winner(record.name)
            if winner is None:
                self.drop(record.name)
            return winner
        return self._winner(record.name) if others else record

    def _winner(self, name: str) -> Record | None:
        record = self.record(name)
        return None if record is None or self.problems(record) else record

    def each(self, function: Callable[[str], R], names: Collection[str]) -> list[R]:
        """Return a reading function's results for names. On remote stores, many run at a time."""
        if not self.location.is_remote or len(names) < 2:
            return [function(name) for name in names]
        with ThreadPoolExecutor(_REMOTE_READERS) as pool:
            return list(pool.map(function, names))


def _record_names(files: Iterable[str]) -> list[str]:
    """Return the names of the records among the files of a ``records`` folder, in order."""
    return sorted((file.removesuffix(_SUFFIX) for file in files if file.endswith(_SUFFIX)), key=record_order)


def _size_problem(record: Record, sizes: Mapping[str, int | None]) -> str | None:
    for name, size in sizes.items():
        if name not in record.files:
            return f"{name} is not named by its record"
        if size is None:
            return f"{name} is missing"
        if size != record.files[name].n_bytes:
            return f"{name} has {size} bytes, expected {record.files[name].n_bytes}"
    return None


def _difference(found: StoredFile, stored: StoredFile) -> str | None:
    if found.n_bytes != stored.n_bytes:
        return f"has {found.n_bytes} bytes, expected {stored.n_bytes}"
    return None if found == stored else f"has checksum {found.sha256[:12]}, expected {stored.sha256[:12]}"
