"""Folders of records and of the files that they prove: reading, publishing and dropping them.

A record is written after the files that it names, with their checksums and its own. Packs hold
copies of many records in one file, so that a resume reads few files.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from melmill.storage.corpus.shard_set import ShardSet
from melmill.storage.errors import AlreadyThere, StoreError, damaged
from melmill.storage.files.location import Location
from melmill.storage.proof.inventory import Inventory, gists_of, shards_of, size_problem, take_inventory, unpacked_gists
from melmill.storage.proof.packs import MIN_UNPACKED, MIN_UNPACKED_LOCAL, Copy, Gist, Packs
from melmill.storage.proof.record import (
    RECORDS,
    Facts,
    Record,
    StoredFile,
    record_file,
    record_name,
    record_names,
    record_order,
    sealed,
    split_place,
    unsealed,
)

__all__ = [
    "RECORDS",
    "Facts",
    "Record",
    "RecordedFolder",
    "StoredFile",
    "record_file",
    "record_name",
    "record_order",
    "sealed",
    "unsealed",
]

# An object store answers in tens of milliseconds, whatever the request.
_REMOTE_READERS = 16
_ATTEMPTS = 10
# It breaks up writers that act in step. Nothing that is stored depends on it.
_JITTER = random.SystemRandom()

R = TypeVar("R")


class RecordedFolder:
    """A folder of files and of the records that prove them.

    Parameters
    ----------
    location : Location
        The folder. Records are in ``records/`` below it.
    """

    def __init__(self, location: Location) -> None:
        self.location = location

    def home(self, record: Record) -> Location:
        """Return the folder that has the files of a record: this one, or one of another store."""
        return Location(record.at) if record.at else self.location

    def record(self, name: str) -> Record | None:
        """Return a record, None where there is none, or its file can't be parsed or is another's."""
        try:
            return Record.of_name(self.location.read(record_file(name)), name)
        except FileNotFoundError:
            return None

    def records(self, names: Collection[str] | None = None, *, reread: bool = False) -> dict[str, Record]:
        """Return the stored records by name and in order: all, or those called `names`.

        On an object store, this takes one request per thousand records, and one for each that is
        unpacked.

        Parameters
        ----------
        names : collection of str or None
        reread : bool
            Whether to read the file of each, though a pack holds it.
        """
        if not reread and (names is None or len(names) > _REMOTE_READERS):
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
        """Copy unpacked records into packs if they are many."""
        packs = self._packs()
        if len(packs.names) < self.min_unpacked:
            return
        missing = packs.missing
        if len(missing) >= self.min_unpacked:
            read = self.each(self._copy, missing)
            packs.add({name: copy for name, copy in zip(missing, read, strict=True) if copy is not None})

    @property
    def min_unpacked(self) -> int:
        """Number of records from which they are packed."""
        return MIN_UNPACKED if self.location.is_remote else MIN_UNPACKED_LOCAL

    def _copy(self, name: str) -> Copy | None:
        try:
            data, tag = self.location.read_tagged(record_file(name))
        except FileNotFoundError:
            return None
        return Copy(tag, data) if tag is not None and Record.from_json(data) is not None else None

    def inventory(self) -> Inventory:
        """Return what a plan asks of all records, in little memory for any number of them.

        The files that they name are looked at for their sizes.
        """
        packs = self._packs()
        names = packs.names or self.record_names()
        return take_inventory(names, packs.gists(), lambda some: self._read_records(some).values(), self._size_of())

    def gists(self, shards: Set[int]) -> Iterator[Gist]:
        """Yield what a plan asks of the records of some shards, in no order."""
        if len(shards) <= _REMOTE_READERS:
            yield from map(Gist.of, self.records([record_name(shard) for shard in shards]).values())
            return
        packs = self._packs()
        recorded = shards_of(packs.names or self.record_names())
        unread = recorded.mask & ShardSet.of(shards).sized(len(recorded.mask))
        yield from gists_of(unread, packs.gists())
        yield from unpacked_gists(unread, lambda some: self._read_records(some).values())

    def _size_of(self) -> Callable[[str], int | None]:
        """Return what tells the sizes of files. On remote stores each folder is listed once."""
        folders: dict[tuple[str, str], dict[str, int]] = {}

        def size(name: str) -> int | None:
            at, file = split_place(name)
            place = Location(at) if at else self.location
            if not place.is_remote:
                return place.size(file)
            folder, _, below = file.partition("/")
            if (at, folder) not in folders:
                folders[at, folder] = (place / folder).tree()
            return folders[at, folder].get(below)

        return size

    def record_names(self) -> list[str]:
        """Return the names of all record files in order, also of damaged ones."""
        return record_names((self.location / RECORDS).sizes())

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
        for name in record.files if not record.at else ():
            self.location.remove(name)

    def damage(self, record: Record) -> str | None:
        """Return the first problem of a record's files by their sizes, None where there is none."""
        return self.size_problem(record, record.files)

    def size_problem(self, record: Record, files: Iterable[str]) -> str | None:
        """Return the first problem of some of a record's files by size, None if there is none."""
        expected = {name: stored.n_bytes for name, stored in record.files.items()}
        home = self.home(record)
        return size_problem(expected, {name: home.size(name) for name in files})

    def problems(self, record: Record) -> dict[str, str]:
        """Return the problems of a record's files by file, after reading them all."""
        problems = {}
        for name, stored in record.files.items():
            try:
                problem = _difference(StoredFile.of(self.home(record).read(name)), stored)
            except FileNotFoundError:
                problem = "is missing"
            if problem:
                problems[name] = f"{problem}, in {record.at}" if record.at else problem
        return problems

    def read_whole(self, record: Record, name: str) -> bytes:
        """Return a record's file, checked against the record; raise DamagedData."""
        try:
            data = self.home(record).read(name)
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
        return f"node {record.node!r}, record {record.name!r}, file {self.home(record).url}/{name}"

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


def _difference(found: StoredFile, stored: StoredFile) -> str | None:
    if found.n_bytes != stored.n_bytes:
        return f"has {found.n_bytes} bytes, expected {stored.n_bytes}"
    return None if found == stored else f"has checksum {found.sha256[:12]}, expected {stored.sha256[:12]}"
