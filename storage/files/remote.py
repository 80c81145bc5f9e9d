"""Files that fsspec reaches: on other machines, or in the memory of the process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from melmill.storage.errors import StoreError, StoreUnwritable
from melmill.storage.files.local import store_error

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class RemoteFiles:
    """Implement `Files` with fsspec.

    Files are written in place. `create` asks for an exclusive write. A file system that has none
    checks first, and two writers in that moment both write.

    Parameters
    ----------
    url : str
        Any URL of the file system.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        try:
            self._fs: AbstractFileSystem = url_to_fs(url)[0]
        except Exception as error:  # each file system has its own for a URL that it can't take
            raise StoreError(f"{url}: {error}") from error

    def read(self, path: str) -> bytes:
        """Return a file's bytes; raise FileNotFoundError."""
        with _store_errors(path, "read"):
            return bytes(self._fs.cat_file(path))

    def read_range(self, path: str, start: int, stop: int | None) -> bytes:
        """Return some of a file's bytes, fewer where it ends before; raise FileNotFoundError."""
        with _store_errors(path, "read"):
            return bytes(self._fs.cat_file(path, start=start, end=stop))

    def read_tagged(self, path: str) -> tuple[bytes, str | None]:
        """Return a file's bytes, and no tag."""
        return self.read(path), None

    def create(self, path: str, data: bytes) -> bool:
        """Write a file durably unless it exists; return whether it was written."""
        with _store_errors(path, "write"):
            try:
                self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
        self._fs.invalidate_cache()
        return True

    def create_all(self, files: Mapping[str, bytes]) -> dict[str, bool]:
        """Write files, each unless it exists; return by path whether it was written."""
        return {path: self.create(path, data) for path, data in files.items()}

    def replace(self, path: str, data: bytes) -> None:
        """Write a file durably and atomically in place of any that exists."""
        with _store_errors(path, "write"):
            self._fs.pipe_file(path, data)
        self._fs.invalidate_cache()

    def remove(self, path: str) -> None:
        """Remove a file if it exists."""
        with _store_errors(path, "remove"), suppress(FileNotFoundError):
            self._fs.rm_file(path)
        self._fs.invalidate_cache()

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove those files that exist, one by one."""
        for path in paths:
            self.remove(path)

    def remove_empty(self, path: str) -> None:
        """Do nothing: not all of these file systems have folders."""

    def modified_s(self, path: str) -> float | None:
        """Return when a file was written, s; None where there is no such file, or it is not known."""
        with _store_errors(path, "check"), suppress(FileNotFoundError):
            return float(self._fs.modified(path).timestamp())
        return None

    def exists(self, path: str) -> bool:
        """Return whether a file or folder exists."""
        with _store_errors(path, "check"):
            return bool(self._fs.exists(path))

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes, None where there is no such file."""
        self._fs.invalidate_cache(path)
        with _store_errors(path, "check"), suppress(FileNotFoundError):
            return int(self._fs.info(path)["size"])
        return None

    def stamp(self, path: str) -> str | None:
        """Return the file system's key of a file's version, None where there is no such file."""
        with _store_errors(path, "check"), suppress(FileNotFoundError):
            return str(self._fs.ukey(path)) if self._fs.isfile(path) else None
        return None

    def sizes(self, path: str, *, below: bool) -> dict[str, int]:
        """Return the sizes of a folder's files by relative name, with subfolders if `below`."""
        self._fs.invalidate_cache()
        root = self._fs._strip_protocol(path).rstrip("/") + "/"
        with _store_errors(path, "list"), suppress(FileNotFoundError):
            found = self._fs.find(path, maxdepth=None if below else 1, detail=True)
            return {name.removeprefix(root): int(info["size"]) for name, info in found.items()}
        return {}

    def tags(self, path: str) -> dict[str, str]:
        """Return no tags."""
        return {}

    def folders(self, path: str) -> list[str]:
        """Return the names of the subfolders of a folder."""
        self._fs.invalidate_cache()
        with _store_errors(path, "list"), suppress(FileNotFoundError):
            entries = self._fs.ls(path, detail=True)
            return [entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory"]
        return []

    def make(self, path: str) -> None:
        """Make a folder with its parents, on file systems that have folders."""
        with _store_errors(path, "make"):
            self._fs.makedirs(path, exist_ok=True)


@contextmanager
def _store_errors(path: str, verb: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, StoreError):
        raise
    except NotImplementedError as error:
        raise StoreUnwritable(f"can't {verb} {path}: its file system is read-only") from error
    except ValueError as error:
        raise StoreError(f"can't {verb} {path}: {error}. Check the URL.") from error
    except OSError as error:
        raise store_error(error, path, verb) from error
