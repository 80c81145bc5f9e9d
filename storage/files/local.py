"""Files of a local or mounted file system, written so that a crash can't tear them."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR

from melmill.storage.errors import StoreError, StoreFull, StoreUnwritable

# EFBIG is a quota in all but name: a limit on file size set for the process.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}
# What a writer that was killed leaves behind.
TEMPORARY = re.compile(r"(?:.*/)?\.[0-9a-f]{32}\.writing")


class LocalFiles:
    """Implement `Files` with plain system calls.

    A file is written under a hidden name, flushed to the disk, linked to its name (which fails if another writer was
    first, unlike a rename) and its folder flushed: after that neither a kill nor a power failure can undo or tear it.
    """

    def read(self, path: str) -> bytes:
        """Return a file's bytes; raise FileNotFoundError."""
        with _explained(path, "read"), open(path, "rb", buffering=0) as file:  # noqa: PTH123 - see Location._path
            return file.read()

    def read_tagged(self, path: str) -> tuple[bytes, str | None]:
        """Return a file's bytes, and no tag."""
        return self.read(path), None

    def create(self, path: str, data: bytes) -> bool:
        """Write a file durably unless one of that name exists; say whether it was written."""
        final = Path(path)
        with _explained(path, "write"):
            if final.exists():
                _flush_folder(final.parent)
                return False
            with _aside(final, data) as temporary:
                created = _linked(temporary, final)
            _flush_folder(final.parent)
        return created

    def replace(self, path: str, data: bytes) -> None:
        """Write a file durably and atomically in place of any that exists."""
        final = Path(path)
        with _explained(path, "write"):
            with _aside(final, data) as temporary:
                temporary.replace(final)
            _flush_folder(final.parent)

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        with _explained(path, "remove"), suppress(FileNotFoundError):
            Path(path).unlink()
            _flush_folder(Path(path).parent)

    def exists(self, path: str) -> bool:
        """Say whether a file or folder exists."""
        with _explained(path, "look at"):
            return Path(path).exists()

    def size(self, path: str) -> int | None:
        """Return the size of a file; None where there is none."""
        with _explained(path, "look at"), suppress(FileNotFoundError):
            return Path(path).stat().st_size
        return None

    def stamp(self, path: str) -> str | None:
        """Return what changes when a file does, its size and its time; None where there is no such file."""
        with _explained(path, "look at"), suppress(FileNotFoundError, NotADirectoryError):
            status = Path(path).stat()
            return None if S_ISDIR(status.st_mode) else f"{status.st_size}-{status.st_mtime_ns}"
        return None

    def sizes(self, path: str, *, below: bool) -> dict[str, int]:
        """Return the sizes of the files of a folder by relative name, with those of its subfolders if `below`."""
        with _explained(path, "list"):
            return dict(_listed(path, "", below=below))

    def tags(self, path: str) -> dict[str, str]:
        """Return no tags."""
        return {}

    def folders(self, path: str) -> list[str]:
        """Return the names of the subfolders of a folder."""
        with _explained(path, "list"), suppress(FileNotFoundError), os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
        return []

    def make(self, path: str) -> None:
        """Make a folder with its parents."""
        with _explained(path, "make"):
            _make_folder(Path(path))


@contextmanager
def _aside(final: Path, data: bytes) -> Iterator[Path]:
    _make_folder(final.parent)
    temporary = final.parent / f".{uuid.uuid4().hex}.writing"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _linked(temporary: Path, final: Path) -> bool:
    try:
        final.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise StoreUnwritable(
                f"{final}: the file system has no hard links, which writing safely needs. Put the store elsewhere."
            ) from error
        raise
    return True


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _listed(folder: str, prefix: str, *, below: bool) -> Iterator[tuple[str, int]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                # A writer's temporary file may vanish between the listing and the look at it.
                with suppress(FileNotFoundError):
                    yield prefix + entry.name, entry.stat().st_size
            elif below:
                yield from _listed(entry.path, f"{prefix}{entry.name}/", below=True)


@contextmanager
def _explained(path: str, verb: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, StoreError):
        raise
    except OSError as error:
        raise explained(error, path, verb) from error


def explained(error: OSError, path: str, verb: str) -> StoreError:
    """Turn what the operating system said of `path` into an error of the store."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StoreFull(f"can't {verb} {path}: {reason}. Free some room, then run again: what is stored is kept.")
    return StoreUnwritable(f"can't {verb} {path}: {reason}. Check that it may be read and written by this user.")
