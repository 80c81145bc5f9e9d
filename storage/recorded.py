"""A folder of files that records prove whole, and the protocol by which they get there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from melmill.storage.errors import AlreadyThere, StoreError, damaged
from melmill.storage.files.location import Location
from melmill.storage.records import WORTH, Copy, Packs, Record, StoredFile

RECORDS = "records"

# An object store answers in tens of milliseconds, whatever is asked.
_REMOTE_READERS = 16
_ATTEMPTS = 10
# Two writers in step must fall out of it; nothing that is stored depends on it.
_JITTER = random.SystemRandom()

R = TypeVar("R")


class RecordedFolder:
    """Publish files with a record written last, and tell what is whole, damaged or missing.

    Parameters
    ----------
    location : Location
        The folder; records lie in ``records/`` below it.
    """

    def __init__(self, location: Location) -> None:
        self.location = location

    def record(self, name: str) -> Record | None:
        """Return a record; None where there is none or its file can't be parsed."""
        try:
            return Record.from_json(self.location.read(record_file(name)))
        except FileNotFoundError:
            return None

    def records(self, names: Collection[str] | None = None) -> dict[str, Record]:
        """Return the records that there are, all or those called `names`, by name and in order.

        On an object store many records take a request a thousand and one for each that is in no pack.
        """
        if names is None or len(names) > _REMOTE_READERS:
            packs = self._packs()
            wanted = packs.names if names is None else sorted({*names}.intersection(packs.names))
            if wanted:
                return self._packed_records(packs, wanted)
        return self._read_records(self.record_names() if names is None else sorted(names))

    def _read_records(self, names: Collection[str]) -> dict[str, Record]:
        records = zip(names, self.each(self.record, names), strict=True)
        return {name: record for name, record in records if record is not None}

    def _packed_records(self, packs: Packs, names: Collection[str]) -> dict[str, Record]:
        read = self._read_records([name for name in names if name not in packs.copies])
        found = {name: read.get(name) or packs.record(name) for name in names}
        return {name: record for name, record in found.items() if record is not None}

    def _packs(self) -> Packs:
        folder = self.location / RECORDS
        return Packs(folder, folder.tags())

    def pack(self) -> None:
        """Copy records that are in no pack into one; nothing happens but on object stores."""
        packs = self._packs()
        if len(packs.missing) < WORTH:
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
        """Return the names of all record files, whatever they hold, in order."""
        files = (self.location / RECORDS).sizes()
        return sorted(name.removesuffix(".json") for name in files if name.endswith(".json"))

    def done(self, name: str) -> Record:
        """Return a record; raise StoreError where there is none."""
        record = self.record(name)
        if record is None:
            raise StoreError(f"{self.location.url}: {name!r} has no record, so it is not done. Run the pipeline first.")
        return record

    def drop(self, name: str) -> None:
        """Remove a record, so that what it proved counts as not done."""
        self.location.remove(record_file(name))

    def forget(self, record: Record) -> None:
        """Remove a record and then the files that it claims: what is made anew may be other files."""
        self.drop(record.name)
        for name in record.files:
            self.location.remove(name)

    def damage(self, record: Record) -> str | None:
        """Say what is wrong with a record's files judging by their sizes; None where nothing is."""
        return self.size_problem(record, record.files)

    def size_problem(self, record: Record, files: Iterable[str]) -> str | None:
        """Say what is wrong with some of a record's files judging by their sizes; None where nothing is."""
        return _size_problem(record, {name: self.location.size(name) for name in files})

    def damaged(self, records: Mapping[str, Record]) -> dict[str, str]:
        """Say which records have files that are missing or of another size; lists each folder just once."""
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
        """Say what is wrong with each of a record's files by reading them all; empty where nothing is."""
        found = {name: self._problem(name, stored) for name, stored in record.files.items()}
        return {name: problem for name, problem in found.items() if problem}

    def _problem(self, name: str, stored: StoredFile) -> str | None:
        try:
            return _difference(StoredFile.of(self.location.read(name)), stored)
        except FileNotFoundError:
            return "is missing"

    def read_whole(self, record: Record, name: str) -> bytes:
        """Return a file that a record claims, checked against it; raise DamagedData."""
        try:
            data = self.location.read(name)
        except FileNotFoundError as error:
            raise damaged(self.place(record, name), "is missing") from error
        problem = _difference(StoredFile.of(data), record.files[name])
        if problem:
            raise damaged(self.place(record, name), problem)
        return data

    def place(self, record: Record, name: str) -> str:
        """Name a file in an error."""
        return f"node {record.node!r}, record {record.name!r}, file {self.location.url}/{name}"

    def publish(self, record: Record, files: Mapping[str, bytes], clock: float | None = None) -> Record:
        """Write files durably and then the record that proves them; return the record that counts.

        Where another process was first, its record wins and ours is discarded, provided that the files are what it
        says. Files without such a record are replaced. Writers that got different bytes (a GPU may round otherwise)
        may meet there; so whoever replaced a file, or found a record that its files belie, reads everything once more
        before it leaves, and starts again where it doesn't fit: the last to act leaves a record that its files fit.

        `clock` is what `time.perf_counter` said when the task began; the record then tells how long it took until the
        files were stored.

        Raises
        ------
        StoreError
            Where other writers of other bytes never come to an end.
        """
        for attempt in range(_ATTEMPTS):
            published = self._published(record, files, clock)
            if published is not None:
                return published
            time.sleep(_JITTER.uniform(0.0, 0.01 * 2**attempt))
        raise StoreError(f"{self.location.url}: other writers keep overwriting the files of {record.name!r}")

    def _published(self, record: Record, files: Mapping[str, bytes], clock: float | None) -> Record | None:
        """Return the record that counts, None where writers got into each other's way."""
        alone = True
        for name, data in files.items():
            try:
                self.location.put(name, data)
            except AlreadyThere:
                winner = self._winner(record.name)
                if winner is not None:
                    return winner
                self.drop(record.name)
                self.location.replace(name, data)
                alone = False
        if clock is not None:
            record = replace(record, wall_s=time.perf_counter() - clock)
        try:
            self.location.put(record_file(record.name), record.to_json())
        except AlreadyThere:
            winner = self._winner(record.name)
            if winner is None:
                self.drop(record.name)
            return winner
        return record if alone else self._winner(record.name)

    def _winner(self, name: str) -> Record | None:
        record = self.record(name)
        return None if record is None or self.problems(record) else record

    def each(self, function: Callable[[str], R], names: Collection[str]) -> list[R]:
        """Apply a reading function to names, many at a time where every request takes long."""
        if not self.location.is_remote or len(names) < 2:
            return [function(name) for name in names]
        with ThreadPoolExecutor(_REMOTE_READERS) as pool:
            return list(pool.map(function, names))


def record_file(name: str) -> str:
    """Return the file of a record, relative to its folder."""
    return f"{RECORDS}/{name}.json"


def _size_problem(record: Record, sizes: Mapping[str, int | None]) -> str | None:
    for name, size in sizes.items():
        if size is None:
            return f"{name} is missing"
        if size != record.files[name].n_bytes:
            return f"{name} has {size} bytes, expected {record.files[name].n_bytes}"
    return None


def _difference(found: StoredFile, stored: StoredFile) -> str | None:
    if found.n_bytes != stored.n_bytes:
        return f"has {found.n_bytes} bytes, expected {stored.n_bytes}"
    return None if found == stored else f"has checksum {found.sha256[:12]}, expected {stored.sha256[:12]}"
