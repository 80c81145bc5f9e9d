"""A folder on a local file system, in an object store or anywhere that fsspec reaches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

from melmill.storage.errors import AlreadyThere, StoreError, StoreUnwritable
from melmill.storage.files.local import LocalFiles
from melmill.storage.files.objects import ObjectFiles, is_object_store
from melmill.storage.files.places import absolute, read_place
from melmill.storage.files.remote import RemoteFiles

T = TypeVar("T")


class Files(Protocol):
    """A file system as a `Location` uses it. Paths are complete."""

    def read(self, path: str) -> bytes:
        """Return a file's bytes; raise FileNotFoundError."""
        ...

    def read_range(self, path: str, start: int, stop: int | None) -> bytes:
        """Return some of a file's bytes, fewer where it ends before; raise FileNotFoundError.

        `start` is negative where it counts from the end. Then there is no `stop`.
        """
        ...

    def read_tagged(self, path: str) -> tuple[bytes, str | None]:
        """Return a file's bytes and tag, None where files have no tags; raise FileNotFoundError."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write a file durably unless it exists; return whether it was written."""
        ...

    def create_all(self, files: Mapping[str, bytes]) -> dict[str, bool]:
        """Write files durably, each unless it exists; return by path whether it was written."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Write a file durably and atomically in place of any that exists."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file if it exists."""
        ...

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove those files that exist, durably, in few requests."""
        ...

    def remove_empty(self, path: str) -> None:
        """Remove a folder and those below it that hold no file, where there are folders."""
        ...

    def modified_s(self, path: str) -> float | None:
        """Return when a file was written, by its file system's clock, s; None where there is no such file."""
        ...

    def exists(self, path: str) -> bool:
        """Return whether a file or folder exists."""
        ...

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes, None where there is no such file."""
        ...

    def stamp(self, path: str) -> str | None:
        """Return a text that changes whenever the file does, None where there is no such file."""
        ...

    def sizes(self, path: str, *, below: bool) -> dict[str, int]:
        """Return the sizes of a folder's files by relative name, with subfolders if `below`."""
        ...

    def tags(self, path: str) -> dict[str, str]:
        """Return the tags of all files of a folder and below, by relative name.

        On some file systems, files have no tags. Then the mapping is empty.
        """
        ...

    def folders(self, path: str) -> list[str]:
        """Return the names of the subfolders of a folder."""
        ...

    def make(self, path: str) -> None:
        """Make a folder with its parents."""
        ...


@dataclass(frozen=True)
class Location:
    """A folder whose files can be read and written. It is cheap to make, to pickle and to compare.

    Writes are safe from crashes: a file appears under its name whole and on the disk, or not at
    all. Names that begin with a dot belong to writers, at work or killed. Only `leftovers` lists
    them.

    Parameters
    ----------
    url : str
        A local path, which is made absolute, a URL of an object store (``s3://bucket/...``), or any
        other URL that fsspec knows (``memory://...``). See `read_place`.

    >>> Location("memory://bucket/store") / "mel" / "data"
    Location(url='memory://bucket/store/mel/data')
    """

    url: str

    def __post_init__(self) -> None:
        """Make a local path absolute, so that it means the same in every process."""
        object.__setattr__(self, "url", absolute(self.url))

    @property
    def is_remote(self) -> bool:
        """Whether it is anywhere but on a local or mounted file system."""
        return "://" in self.url

    @cached_property
    def _files(self) -> Files:
        if not self.is_remote:
            return LocalFiles()
        return ObjectFiles(self.url) if is_object_store(self.url) else RemoteFiles(self.url)

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def __truediv__(self, name: str) -> Location:
        return Location(self._path(name))

    def _path(self, name: str) -> str:
        # Split by hand: a resume reads every record, and making a Path takes as long as reading
        # one.
        if name.startswith("/") or ".." in name.split("/"):
            raise StoreError(f"{self.url}: a name inside it can't be {name!r}: it must be relative, without '..'")
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; raise FileNotFoundError."""
        return self._files.read(self._path(name))

    def read_range(self, name: str, start: int, stop: int | None = None) -> bytes:
        """Return a file's bytes from `start` to `stop`, or its last ``-start``; raise FileNotFoundError."""
        return self._files.read_range(self._path(name), start, stop)

    def read_tagged(self, name: str) -> tuple[bytes, str | None]:
        """Return the bytes of a file and its tag, None where files have no tags."""
        return self._files.read_tagged(self._path(name))

    def put(self, name: str, data: bytes) -> None:
        """Write a file durably unless it exists.

        Raises
        ------
        AlreadyThere
            It exists with other bytes.
        """
        while not self._files.create(self._path(name), data):
            # Another process may remove it after the attempt. Then the next attempt succeeds.
            with suppress(FileNotFoundError):
                if self.read(name) == data:
                    return
                raise AlreadyThere(f"{self._path(name)} exists and holds other bytes than the {len(data)} to be stored")

    def put_all(self, files: Mapping[str, bytes]) -> list[str]:
        """Write files durably, each unless it exists; return those that exist with other bytes."""
        created = self._files.create_all({self._path(name): data for name, data in files.items()})
        others = []
        for name, data in files.items():
            if not created[self._path(name)]:
                try:
                    self.put(name, data)
                except AlreadyThere:
                    others.append(name)
        return others

    def check_exclusive(self, name: str) -> None:
        """Raise StoreUnwritable if creating a file that exists overwrites it.

        A server that ignores the condition of a write would let two writers overwrite each other
        silently.
        """
        if self._files.create(self._path(name), self.read(name)):
            raise StoreUnwritable(
                f"{self.url}: the store ignores the condition of a write (If-None-Match) and overwrites files that "
                "exist, so two writers would destroy each other's data. Use a store that has conditional writes."
            )

    def replace(self, name: str, data: bytes) -> None:
        """Write a file durably and atomically, whether it exists or not."""
        self._files.replace(self._path(name), data)

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        self._files.remove(self._path(name))

    def remove_all(self, names: Iterable[str]) -> None:
        """Remove those files that exist, durably, in few requests."""
        self._files.remove_all([self._path(name) for name in names])

    def remove_empty(self) -> None:
        """Remove the folder and those below it that hold no file, where there are folders."""
        self._files.remove_empty(self.url)

    def modified_s(self, name: str) -> float | None:
        """Return when a file was written, s; None where there is no such file.

        The time is that of the clock of the file system or of the server, whatever the machine's own.
        """
        return self._files.modified_s(self._path(name))

    def exists(self, name: str) -> bool:
        """Return whether a file or folder exists."""
        return self._files.exists(self._path(name))

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, None where there is no such file."""
        return self._files.size(self._path(name))

    def stamp(self, name: str) -> str | None:
        """Return a text that changes whenever the file does, None where there is no such file."""
        return self._files.stamp(self._path(name))

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file of this folder, none where there is no folder."""
        return _without_leftovers(self._files.sizes(self.url, below=False))

    def tree(self) -> dict[str, int]:
        """Return the size in bytes of every file in this folder and below, by relative name."""
        return _without_leftovers(self._files.sizes(self.url, below=True))

    def everything(self) -> dict[str, int]:
        """Return what `tree` does, with the files that killed writers left."""
        return self._files.sizes(self.url, below=True)

    def tags(self) -> dict[str, str]:
        """Return the tag of every file of this folder and all below it, by relative name.

        Files with equal tags hold the same bytes. Other remote stores than object stores have none.
        """
        return _without_leftovers(self._files.tags(self.url))

    def leftovers(self) -> list[str]:
        """Return the relative names of files that killed writers left in this folder and below."""
        found = self._files.sizes(self.url, below=True)
        return sorted(found.keys() - _without_leftovers(found).keys())

    def folders(self) -> list[str]:
        """Return the names of its subfolders, sorted, none where there is no folder."""
        return sorted(name for name in self._files.folders(self.url) if not name.startswith("."))

    def make(self) -> None:
        """Make the folder with its parents; raise StoreUnwritable."""
        self._files.make(self.url)


def folder_and_name(url: str) -> tuple[Location, str]:
    """Return the folder and the name of a file; raise StoreError as `read_place` does.

    >>> folder_and_name("memory://bucket/g_0")
    (Location(url='memory://bucket'), 'g_0')
    """
    url = read_place(url)
    folder, _, name = url.rstrip("/").rpartition("/")
    return Location(folder or ("/" if url.startswith("/") else ".")), name


def _without_leftovers(files: dict[str, T]) -> dict[str, T]:
    return {name: fact for name, fact in files.items() if not name.rpartition("/")[2].startswith(".")}
