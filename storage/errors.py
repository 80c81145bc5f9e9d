"""Errors of the store."""

from __future__ import annotations

from melmill.errors import Error


class StoreError(Error, ValueError):
    """The store can't do what it was asked."""


class StoreMismatch(StoreError):
    """A store belongs to another project, or this version can't read its format."""


class StoreMissing(StoreError):
    """There is no store at a place, as this machine sees it."""


class DamagedMark(StoreMismatch):
    """The file can't be read that says which project the store belongs to, and its format."""


class DamagedData(StoreError):
    """Stored data is not what was written: a file is missing or has another size or checksum."""


class StoreFull(StoreError):
    """The disk or bucket of the store is full."""


class StoreUnwritable(StoreError):
    """The store can't be written or read: permissions, a read-only file system, a failing disk."""


class ImpossibleKey(StoreUnwritable):
    """An object among those of a folder has a key that can't be a path, so that they can't be listed."""


class AlreadyThere(StoreError):
    """A file of that name holds other bytes. `put` never overwrites."""


class StoreBusy(StoreError):
    """Another process deletes in the store, and only one may do so at a time."""


class SourceError(StoreError):
    """A corpus can't be reached, or a path leads out of it."""


class SourceChanged(SourceError):
    """A file of a corpus is gone, or is not the one that was ingested. The store has no copy of it."""


class CatalogueError(StoreError):
    """The catalogue of utterances contradicts itself or what is added to it."""


def damaged(place: str, problem: str) -> DamagedData:
    """Return the error for a damaged `place` (node, record and file), with the way to repair it."""
    return DamagedData(
        f"{place}: {problem}. Run `melmill repair` on the store. The next run then redoes only what was damaged."
    )
