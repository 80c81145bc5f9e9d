"""One folder of a store, on a local file system, in an object store or anywhere that fsspec reaches."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from melmill.storage.errors import AlreadyThere, StoreError, StoreUnwritable
from melmill.storage.files.object_client import is_object_store


class Files(Protocol):
    """What a file system offers to a `Location`; paths are whole."""

    def read(self, path: str) -> bytes:
        """Return a file's bytes; raise FileNotFoundError."""
        ...

    def read_tagged(self, path: str) -> tuple[bytes, str | None]:
        """Return a file's bytes and its tag, None where files have none; raise FileNotFoundError."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write a file durably unless one of that name exists; say whether it was written."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Write a file durably and atomically in place of any that exists."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        ...

    def exists(self, path: str) -> bool:
        """Say whether a file or folder exists."""
        ...

    def size(self, path: str) -> int | None:
        """Return the size of a file; None where there is none."""
        ...

    def stamp(self, path: str) -> str | None:
        """Return what changes when a file does; None where there is no such file."""
        ...

    def sizes(self, path: str, *, below: bool) -> dict[str, int]:
        """Return the sizes of the files of a folder by relative name, with those of its subfolders if `below`."""
        ...

    def tags(self, path: str) -> dict[str, str]:
        """Return the tags of the files of a folder and below by relative name; empty where files have none."""
        ...

    def folders(self, path: str) -> list[str]:
        """Return the names of the subfolders of a folder."""
        ...

    def make(self, path: str) -> None:
        """Make a folder with its parents."""
        ...


@dataclass(frozen=True)
class Location:
    """Name a folder and read and write its files; cheap to make, to pickle and to compare.

    Writing is crash-safe: a file appears under its name whole and on the disk, or not at all. Names that begin with
    a dot belong to writers at work (or killed) and are never listed but by `leftovers`.

    Parameters
    ----------
    url : str
        A local path, made absolute, a URL of an object store (``s3://bucket/...``) or any other that fsspec knows
        (``memory://...``).

    >>> Location("memory://bucket/store") / "mel" / "data"
    Location(url='memory://bucket/store/mel/data')
    """

    url: str

    def __post_init__(self) -> None:
        """Make a local path absolute, so that it means the same in every process."""
        local = not self.is_remote
        url = str(Path(self.url.removeprefix("file://")).absolute()) if local else self.url.rstrip("/")
        object.__setattr__(self, "url", url)

    @property
    def is_remote(self) -> bool:
        """Whether it is anywhere but on a local or mounted file system."""
        return "://" in self.url and not self.url.startswith("file://")

    @cached_property
    def _files(self) -> Files:
        if not self.is_remote:
            from melmill.storage.files.local import LocalFiles

            return LocalFiles()
        if is_object_store(self.url):
            from melmill.storage.files.objects import ObjectFiles

            return ObjectFiles(self.url)
        from melmill.storage.files.remote import RemoteFiles

        return RemoteFiles(self.url)

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def __truediv__(self, name: str) -> Location:
        return Location(self._path(name))

    def _path(self, name: str) -> str:
        # Split by hand: a resume asks for every record, and making a Path takes as long as reading one.
        if name.startswith("/") or ".." in name.split("/"):
            raise StoreError(f"{self.url}: a name inside it can't be {name!r}: it must be relative, without '..'")
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; raise FileNotFoundError."""
        return self._files.read(self._path(name))

    def read_tagged(self, name: str) -> tuple[bytes, str | None]:
        """Return the bytes of a file and its tag as `tags` has it, None where there are none."""
        return self._files.read_tagged(self._path(name))

    def put(self, name: str, data: bytes) -> None:
        """Write a file durably, once: raise AlreadyThere if it exists with other bytes."""
        while not self._files.create(self._path(name), data):
            # Another process may remove it between the attempt and the look; the next attempt then succeeds.
            with suppress(FileNotFoundError):
                if self.read(name) == data:
                    return
                raise AlreadyThere(f"{self._path(name)} exists and holds other bytes than the {len(data)} to be stored")

    def check_exclusive(self, name: str) -> None:
        """Raise StoreUnwritable unless a file that exists is protected from being created once more.

        A server that ignores the condition of a write would let two writers overwrite each other without a word.
        """
        if self._files.create(self._path(name), self.read(name)):
            raise StoreUnwritable(
                f"{self.url}: the store overwrites files that it was asked to create only where there are none "
                "(If-None-Match), so writers could not be kept apart. Use a store that offers conditional writes."
            )

    def replace(self, name: str, data: bytes) -> None:
        """Write a file durably and atomically, whether it exists or not."""
        self._files.replace(self._path(name), data)

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""
        self._files.remove(self._path(name))

    def exists(self, name: str) -> bool:
        """Say whether a file or folder exists."""
        return self._files.exists(self._path(name))

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None where there is none."""
        return self._files.size(self._path(name))

    def stamp(self, name: str) -> str | None:
        """Return what changes when a file does (its size and its time); None where there is no such file."""
        return self._files.stamp(self._path(name))

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file of this folder; empty where there is no folder."""
        return _without_leftovers(self._files.sizes(self.url, below=False))

    def tree(self) -> dict[str, int]:
        """Return the size in bytes of every file of this folder and all below it, by relative name."""
        return _without_leftovers(self._files.sizes(self.url, below=True))

    def tags(self) -> dict[str, str]:
        """Return a tag of every file of this folder and all below it by relative name, as its listing tells it.

        Files of equal tags hold the same bytes. Empty where listings tell no tags: on all but object stores.
        """
        return self._files.tags(self.url)

    def leftovers(self) -> list[str]:
        """Return the relative names of what killed writers left in this folder and below."""
        found = self._files.sizes(self.url, below=True)
        return sorted(found.keys() - _without_leftovers(found).keys())

    def folders(self) -> list[str]:
        """Return the names of its subfolders, sorted; empty where there is no folder."""
        return sorted(name for name in self._files.folders(self.url) if not name.startswith("."))

    def make(self) -> None:
        """Make the folder with its parents; raise StoreUnwritable."""
        self._files.make(self.url)


def folder_and_name(url: str) -> tuple[Location, str]:
    """Return the folder and the name of a file.

    >>> folder_and_name("memory://bucket/g_0")
    (Location(url='memory://bucket'), 'g_0')
    """
    folder, _, name = url.rstrip("/").rpartition("/")
    return Location(folder or ("/" if url.startswith("/") else ".")), name


def _without_leftovers(sizes: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if not name.rpartition("/")[2].startswith(".")}
