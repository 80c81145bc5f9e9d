"""Errors of the store."""

from __future__ import annotations

from melmill.errors import Error


class StoreError(Error, ValueError):
    """The store can't do what was asked of it."""


class StoreMismatch(StoreError):
    """A store belongs to another project or was written in a format that this version can't read."""


class DamagedMark(StoreMismatch):
    """The file that says whose store it is, and of what format, can't be read."""


class DamagedData(StoreError):
    """What the store holds is not what was written: wrong checksum, wrong size or gone."""


class StoreFull(StoreError):
    """No room is left where the store lies."""


class StoreUnwritable(StoreError):
    """The store can't be written or read: permissions, a read-only file system, a failing disk."""


class AlreadyThere(StoreError):
    """A file of that name holds other bytes; what is stored is never overwritten by `put`."""


class SourceError(StoreError):
    """A corpus can't be reached, or a path leads out of it."""


class CatalogueError(StoreError):
    """The catalogue of utterances contradicts itself or what is added to it."""


def damaged(place: str, problem: str) -> DamagedData:
    """Return the error for a damaged `place` (node, record and file) with what to do about it."""
    return DamagedData(
        f"{place}: {problem}. Run `melmill repair` on the store: the next run then redoes just what was damaged."
    )
