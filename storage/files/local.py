"""Files of a local or mounted file system, written so that no crash leaves half a file."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from stat import S_ISDIR

from melmill.storage.errors import StoreError, StoreFull, StoreUnwritable

# EFBIG is the limit on file size of the process, which acts as a quota.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}
# Files that are open and flushed at the same time: a long recording has thousands, a process may open fewer.
_AT_ONCE = 64
# The name of a file that a writer left behind when it was killed.
TEMPORARY = re.compile(r"(?:.*/)?\.[0-9a-f]{32}\.writing")


class LocalFiles:
    """Implement `Files` with plain system calls.

    A file is written under a hidden name, flushed to the disk and linked to its name. Unlike a
    rename, the link fails if another writer was first. Then the folder is flushed: from here on,
    neither a kill nor a power failure can undo the file or leave half of it.
    """

    def read(self, path: str) -> bytes:
        """Return a file's bytes; raise FileNotFoundError."""
        with _store_errors(path, "read"), open(path, "rb", buffering=0) as file:  # noqa: PTH123 - see Location._path
            return file.read()

    def read_range(self, path: str, start: int, stop: int | None) -> bytes:
        """Return some of a file's bytes, fewer where it ends before; raise FileNotFoundError."""
        with _store_errors(path, "read"), open(path, "rb", buffering=0) as file:  # noqa: PTH123 - see Location._path
            if start < 0:
                start = max(0, os.fstat(file.fileno()).st_size + start)
            file.seek(start)
            return file.read() if stop is None else file.read(stop - start)

    def read_tagged(self, path: str) -> tuple[bytes, str | None]:
        """Return a file's bytes and its tag; raise FileNotFoundError."""
        with _store_errors(path, "read"), open(path, "rb", buffering=0) as file:  # noqa: PTH123 - see Location._path
            return file.read(), _tag(os.fstat(file.fileno()))

    def create(self, path: str, data: bytes) -> bool:
        """Write a file durably unless it exists; return whether it was written."""
        final = Path(path)
        with _store_errors(path, "write"):
            if final.exists():
                _flush_folder(final.parent)
                return False
            with _temporary_file(final, data) as temporary:
                created = _link(temporary, final)
            _flush_folder(final.parent)
        return created

    def create_all(self, files: Mapping[str, bytes]) -> dict[str, bool]:
        """Write files durably, each unless it exists; return by path whether it was written.

        Many are flushed at the same time, which takes a disk little longer than to flush one.
        """
        created: dict[str, bool] = {}
        left = iter(files.items())
        while some := dict(islice(left, _AT_ONCE)):
            created |= self._create_some(some)
        return created

    def _create_some(self, files: Mapping[str, bytes]) -> dict[str, bool]:
        """Do as `create_all`; all files are open at the same time."""
        folders: set[Path] = set()
        temporaries: dict[str, _Temporary] = {}
        try:
            for path, data in files.items():
                with _store_errors(path, "write"):
                    final = Path(path)
                    folders |= {final.parent, *_made(final.parent)}
                    if not final.exists():
                        temporaries[path] = _Temporary(final, data)
            _at_once({path: temporary.flush for path, temporary in temporaries.items()})
            created = dict.fromkeys(files, False)
            for path, temporary in temporaries.items():
                with _store_errors(path, "write"):
                    created[path] = _link(temporary.path, Path(path))
            _at_once({str(folder): partial(_flush_folder, folder) for folder in sorted(folders)})
        finally:
            for temporary in temporaries.values():
                temporary.remove()
        return created

    def replace(self, path: str, data: bytes) -> None:
        """Write a file durably and atomically in place of any that exists."""
        final = Path(path)
        with _store_errors(path, "write"):
            with _temporary_file(final, data) as temporary:
                temporary.replace(final)
            _flush_folder(final.parent)

    def remove(self, path: str) -> None:
        """Remove a file if it exists."""
        with _store_errors(path, "remove"), suppress(FileNotFoundError):
            Path(path).unlink()
            _flush_folder(Path(path).parent)

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove those files that exist; each folder is flushed once."""
        folders = set()
        for path in paths:
            with _store_errors(path, "remove"), suppress(FileNotFoundError):
                Path(path).unlink()
                folders.add(Path(path).parent)
        for folder in sorted(folders):
            with _store_errors(str(folder), "remove"):
                _flush_folder(folder)

    def remove_empty(self, path: str) -> None:
        """Remove a folder and those below it that hold no file."""
        with _store_errors(path, "remove"):
            for folder, _, _ in os.walk(path, topdown=False):
                # Others may remove it, or write into it.
                with suppress(FileNotFoundError), _kept_if_full():
                    Path(folder).rmdir()

    def modified_s(self, path: str) -> float | None:
        """Return when a file was written, s; None where there is no such file."""
        with _store_errors(path, "check"), suppress(FileNotFoundError, NotADirectoryError):
            return Path(path).stat().st_mtime
        return None

    def exists(self, path: str) -> bool:
        """Return whether a file or folder exists."""
        with _store_errors(path, "check"):
            return Path(path).exists()

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes, None where there is no such file."""
        # Without a Path or a context: a plan does this for every file.
        try:
            return os.stat(path).st_size  # noqa: PTH116
        except FileNotFoundError:
            return None
        except OSError as error:
            raise store_error(error, path, "check") from error

    def stamp(self, path: str) -> str | None:
        """Return the size and time of a file as text, None where there is no such file."""
        with _store_errors(path, "check"), suppress(FileNotFoundError, NotADirectoryError):
            status = Path(path).stat()
            return None if S_ISDIR(status.st_mode) else f"{status.st_size}-{status.st_mtime_ns}"
        return None

    def sizes(self, path: str, *, below: bool) -> dict[str, int]:
        """Return the sizes of a folder's files by relative name, with subfolders if `below`."""
        with _store_errors(path, "list"):
            return dict(_list_files(path, "", below=below))

    def tags(self, path: str) -> dict[str, str]:
        """Return sizes, times and numbers of inodes as tags: a file that was replaced has another."""
        with _store_errors(path, "list"):
            return dict(_tagged_files(path, ""))

    def folders(self, path: str) -> list[str]:
        """Return the names of the subfolders of a folder."""
        with _store_errors(path, "list"), suppress(FileNotFoundError), os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
        return []

    def make(self, path: str) -> None:
        """Make a folder with its parents."""
        with _store_errors(path, "make"):
            _make_folder(Path(path))


class _Temporary:
    """A new file under a hidden name next to its final one; it stays open until it is flushed.

    So no error of the disk goes unseen.
    """

    def __init__(self, final: Path, data: bytes) -> None:
        self.path = final.parent / f".{uuid.uuid4().hex}.writing"
        self._file = self.path.open("xb", buffering=0)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException:
            self.remove()
            raise

    def flush(self) -> None:
        """Flush the file to the disk."""
        os.fsync(self._file.fileno())
        self._file.close()

    def remove(self) -> None:
        """Remove the hidden name; what was linked or renamed stays."""
        with suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


@contextmanager
def _temporary_file(final: Path, data: bytes) -> Iterator[Path]:
    _make_folder(final.parent)
    temporary = _Temporary(final, data)
    try:
        temporary.flush()
        yield temporary.path
    finally:
        temporary.remove()


def _at_once(flushes: Mapping[str, Callable[[], None]]) -> None:
    """Flush files or folders, each in a thread of its own; errors name its path."""

    def flush(path: str) -> None:
        with _store_errors(path, "write"):
            flushes[path]()

    if not flushes:
        return
    with ThreadPoolExecutor(len(flushes)) as pool:
        for _ in pool.map(flush, flushes):
            pass


def _link(temporary: Path, final: Path) -> bool:
    try:
        final.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise StoreUnwritable(
                f"{final}: the file system has no hard links, which safe writes need. Put the store elsewhere."
            ) from error
        raise
    return True


def _make_folder(folder: Path) -> None:
    for parent in _made(folder):
        _flush_folder(parent)


def _made(folder: Path) -> list[Path]:
    """Make a folder with its parents; return the folders that hold a new one, to be flushed."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
    return [one.parent for one in reversed(missing)]


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _list_files(folder: str, prefix: str, *, below: bool) -> Iterator[tuple[str, int]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                # A writer's temporary file may vanish after it was listed.
                with suppress(FileNotFoundError):
                    yield prefix + entry.name, entry.stat().st_size
            elif below:
                yield from _list_files(entry.path, f"{prefix}{entry.name}/", below=True)


def _tagged_files(folder: str, prefix: str) -> Iterator[tuple[str, str]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _tagged_files(entry.path, f"{prefix}{entry.name}/")
                continue
            with suppress(FileNotFoundError):
                yield prefix + entry.name, _tag(entry.stat())


def _tag(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


@contextmanager
def _kept_if_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


@contextmanager
def _store_errors(path: str, verb: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, StoreError):
        raise
    except OSError as error:
        raise store_error(error, path, verb) from error


def store_error(error: OSError, path: str, verb: str) -> StoreError:
    """Return the store's error for an error of the operating system about `path`."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StoreFull(f"can't {verb} {path}: {reason}. Free some room, then run again: what is stored is kept.")
    return StoreUnwritable(f"can't {verb} {path}: {reason}. Check that this user may read and write it.")
