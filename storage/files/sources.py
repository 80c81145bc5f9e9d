"""The files of a corpus, which are only read: local, in an object store, or behind fsspec."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from melmill.storage.errors import ImpossibleKey, SourceError, StoreError
from melmill.storage.files.archives import Archive, is_archive, opened
from melmill.storage.files.cells import read_cell, rows_of
from melmill.storage.files.objects import NO_PATH, ObjectFiles, is_object_store
from melmill.storage.files.places import absolute
from melmill.storage.utterance import SourceFile

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Pauses between attempts to read a file, s.
READ_PAUSES_S = (0.1, 1.0)

# What is wrong with one folder or link, rather than with the disk.
_OWN_FAULTS = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR}

# Terminals would obey them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


INSIDE = "//"
"""Separates the path of an archive or a table from what is read in it (``a.tar//b.wav``)."""

# Says which part of a recording an utterance is. The file is the same.
_PART = re.compile(r"//#.*$", re.DOTALL)


class _Reader(Protocol):
    def exists(self, path: str) -> bool: ...
    def read(self, path: str, n: int) -> bytes: ...
    def walk(self, path: str) -> Iterator[SourceFile]: ...
    def folders(self, path: str) -> list[str]: ...
    def stat(self, path: str) -> SourceFile | None: ...


@dataclass(frozen=True)
class SourceTree:
    """Read the files under a corpus root by their path relative to it, with ``/``.

    A file that can't be read raises the OSError that says why. A root that can't be reached raises
    SourceError: a disk that is not mounted must not look like a thousand missing files.

    Parameters
    ----------
    url : str
        A local path, which is made absolute, a URL of an object store, or any other URL that fsspec
        knows. A local path may be that of an archive.

    Notes
    -----
    A path may lead on into a file: ``a.tar//b.wav`` is a member of an archive, and
    ``a.parquet//audio/7`` is a cell of a table. What follows ``//#`` says which part of a recording
    is meant, and does not matter here.
    """

    url: str

    def __post_init__(self) -> None:
        """Make a local path absolute, so that it means the same in every process."""
        try:
            object.__setattr__(self, "url", absolute(self.url))
        except StoreError as error:
            raise SourceError(f"no corpus at {self.url}: {error}") from error

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    @cached_property
    def _reader(self) -> _Reader:
        if "://" not in self.url:
            return _Packed(opened(self.url)) if self._is_packed else _Local()
        return _Objects(self.url) if is_object_store(self.url) else _Remote(self.url)

    @cached_property
    def _is_packed(self) -> bool:
        return "://" not in self.url and is_archive(self.url) and Path(self.url).is_file()

    def walk(self) -> Iterator[SourceFile]:
        """Yield all files, sorted by path, and what can't be taken with its `problem`.

        These are names that are not UTF-8, named pipes, sockets and devices, links that lead to
        themselves, and folders that this user may not list.

        Raises
        ------
        SourceError
            The root or a folder can't be read.
        """
        self._check_root()
        try:
            for file in self._reader.walk(self.url):
                yield file if file.path.isascii() else _named(file)
        except OSError as error:
            raise SourceError(f"corpus at {self.url}: can't list {error.filename or ''}: {error.strerror}") from error

    def folders(self, path: str = "") -> list[str]:
        """Return the names of the folders in a folder, sorted."""
        self._check_root()
        return sorted(self._reader.folders(self._full_path(path)))

    def read(self, path: str) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        OSError
            It can't be read.
        SourceError
            The whole corpus is gone.
        """
        return self.head(path, -1)

    def read_patiently(self, path: str) -> bytes:
        """Return a file's bytes as `read` does. What the file system fails at often passes after a pause."""
        for pause_s in READ_PAUSES_S:
            try:
                return self.read(path)
            except FileNotFoundError:
                raise
            except OSError:
                time.sleep(pause_s)
        return self.read(path)

    def head(self, path: str, n: int) -> bytes:
        """Return a file's first `n` bytes, or all where it is shorter; raise as `read` does."""
        path = _PART.sub("", path) if "//#" in path else path
        try:
            if INSIDE in path:
                outer, inner = path.split(INSIDE, 1)
                return self._read_inside(outer, inner, n)
            return self._reader.read(self._full_path(path), n)
        except OSError:
            self._check_root()
            raise

    def _read_inside(self, path: str, inner: str, n: int) -> bytes:
        if is_archive(path):
            return self._archive(path).read(inner, n)
        data = read_cell(self._local(path), inner)
        return data if n < 0 else data[:n]

    @property
    def _is_local(self) -> bool:
        return "://" not in self.url and not self._is_packed

    def _archive(self, path: str) -> Archive:
        return opened(self._local(path))

    def _local(self, path: str) -> str:
        if not self._is_local:
            raise SourceError(
                f"{path!r} of {self.url!r} can't be read in place: only archives and tables in a local folder can be; "
                "copy it there"
            )
        return self._full_path(path)

    def members(self, path: str) -> Iterator[SourceFile]:
        """Yield the members of an archive below the root, sorted, with paths that `read` takes.

        Raises
        ------
        OSError
            It can't be read.
        SourceError
            It is no archive, is cut off, or lies in an object store.
        """
        for file in self._archive(path).files():
            yield replace(file, path=f"{path}{INSIDE}{file.path}")

    def rows(self, path: str, columns: Sequence[str] | None = None) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a Parquet or an Arrow file, without the bytes of its binary columns.

        Of a column of audio, which holds bytes and a path, a row has ``{"path": ..., "n_bytes": ...}``.

        Raises
        ------
        OSError
            It can't be read.
        SourceError
            It is damaged, or has no such column.
        """
        return rows_of(self._local(path), columns)

    def files(self, paths: Iterable[str]) -> dict[str, SourceFile]:
        """Return those of some paths below the root that are files."""
        wanted = dict.fromkeys(paths)
        if not self._is_local:
            return {file.path: file for file in self.walk() if file.path in wanted and not file.problem}
        self._check_root()
        found = ((path, self._reader.stat(self._full_path(path))) for path in wanted)
        return {path: replace(file, path=path) for path, file in found if file is not None}

    def _check_root(self) -> None:
        try:
            problem = "" if self._is_packed or self._reader.exists(self.url) else "it does not exist"
        except (OSError, ValueError) as error:  # a ValueError: no folder can have such a URL
            problem = getattr(error, "strerror", None) or str(error)
        if (
            "://" in self.url
            and is_archive(self.url)
            and (problem or not any(True for _ in self._reader.walk(self.url)))
        ):
            raise SourceError(f"no corpus at {self.url}: an archive is read on a local disk only, so copy it to one")
        if problem:
            raise SourceError(f"no corpus at {self.url}: {problem}. Check the path, and that the disk is mounted.")

    def _full_path(self, path: str) -> str:
        # Split by hand: a plan does this for every file, and making a Path takes as long as a
        # header.
        if path.startswith("/") or "//" in path or ".." in path.split("/"):
            raise SourceError(f"corpus at {self.url}: {path!r} leads out of it: expected a path below its root")
        if self._is_packed:
            return path
        return f"{self.url.rstrip('/')}/{path}" if path else self.url


class _Local:
    def exists(self, path: str) -> bool:
        # Opening it tells a folder without permission from one that does not exist.
        try:
            os.scandir(path).close()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def read(self, path: str, n: int) -> bytes:
        # Opening a named pipe would wait for a writer.
        with open(path, "rb", buffering=0, opener=_open_at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise OSError(errno.EINVAL, f"it is {_kind(mode)}, not a file", path)
            return file.read(n)

    def stat(self, path: str) -> SourceFile | None:
        try:
            status = os.stat(path)  # noqa: PTH116 - a plan does this for every file
        except (FileNotFoundError, NotADirectoryError, ValueError):  # a ValueError: NUL is in no name
            return None
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
                raise
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return SourceFile(path=path, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)

    def folders(self, path: str) -> list[str]:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir()]

    def walk(self, path: str) -> Iterator[SourceFile]:
        # Not by recursion: there are folders nested more deeply than Python's calls may be.
        levels = [iter(_listed(_Folder(path, "", frozenset())))]
        while levels:
            found = next(levels[-1], None)
            if found is None:
                levels.pop()
            elif isinstance(found, SourceFile):
                yield found
            else:
                levels.append(iter(_listed(found)))


class _Packed:
    """The members of an archive that is the root."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def exists(self, path: str) -> bool:
        del path
        return True

    def read(self, path: str, n: int) -> bytes:
        return self._archive.read(path, n)

    def walk(self, path: str) -> Iterator[SourceFile]:
        del path
        return self._archive.files()

    def folders(self, path: str) -> list[str]:
        above = f"{path}/" if path else ""
        below = (name.removeprefix(above) for name in self._archive.members if name.startswith(above))
        return list({name.partition("/")[0] for name in below if "/" in name})

    def stat(self, path: str) -> SourceFile | None:
        member = self._archive.members.get(path)
        return None if member is None else SourceFile(path=path, size_bytes=member.size_bytes, mtime_ns=member.mtime_ns)


class _Folder(NamedTuple):
    """A folder to list: its path, its path below the root with a final ``/``, and links above."""

    path: str
    prefix: str
    above: frozenset[Path]


def _listed(folder: _Folder) -> list[SourceFile | _Folder]:
    try:
        with os.scandir(folder.path) as entries:
            found = [(entry.name, entry, _is_folder(entry)) for entry in entries]
    except OSError as error:
        # What else goes wrong is the disk's fault, and then the corpus is not what it seems.
        if not folder.prefix or error.errno not in _OWN_FAULTS:
            raise
        return [_problem(folder.prefix, f"folder that can't be listed ({error.strerror})")]
    # A folder sorts as its name with "/", so that the complete paths come out sorted.
    found.sort(key=lambda one: f"{one[0]}/" if one[2] else one[0])
    listed = (_entry(folder, entry, is_folder) for _, entry, is_folder in found)
    return [one for one in listed if one is not None]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself, or to what this user may not see.
        return False


def _entry(folder: _Folder, entry: os.DirEntry[str], is_folder: bool) -> SourceFile | _Folder | None:
    path = folder.prefix + entry.name
    if is_folder:
        if not entry.is_symlink():
            return _Folder(entry.path, f"{path}/", folder.above)
        target = Path(entry.path).resolve()
        if target in folder.above.union(Path(entry.path).absolute().parents):
            # Corpora often contain links. One that leads back up would be followed for ever.
            return None
        return _Folder(entry.path, f"{path}/", folder.above | {target})
    try:
        status = entry.stat()
    except FileNotFoundError:
        if not entry.is_symlink():
            return None  # it was removed after it was listed
        # A broken link counts as a file. Reading it then fails.
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        if error.errno not in _OWN_FAULTS:
            raise
        return _problem(path, f"link that can't be followed ({error.strerror})")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        return _problem(path, _kind(status.st_mode).removeprefix("a "))
    return SourceFile(path=path, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _named(file: SourceFile) -> SourceFile:
    """Return a file, with a problem if no text can hold its name."""
    try:
        file.path.encode()
    except UnicodeEncodeError:
        return _problem(file.path, "name that is not UTF-8 (rename it)")
    return file


def _problem(path: str, problem: str) -> SourceFile:
    # What stands for bytes that are not UTF-8 could be neither printed nor stored.
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    shown = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", shown)
    return SourceFile(path=shown, size_bytes=0, mtime_ns=0, problem=problem)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


class _Objects:
    def __init__(self, url: str) -> None:
        self._files = ObjectFiles(url)

    def exists(self, path: str) -> bool:
        try:
            return self._files.exists(path)
        except ImpossibleKey:
            return True

    def read(self, path: str, n: int) -> bytes:
        return self._files.read(path) if n < 0 else self._files.read_head(path, n)

    def folders(self, path: str) -> list[str]:
        try:
            return self._files.folders(path)
        except ImpossibleKey:
            found, _ = self._files.walk_tolerant(path)
            return list({name.partition("/")[0] for name in found if "/" in name})

    def stat(self, path: str) -> SourceFile | None:
        raise NotImplementedError(path)  # files are found by a listing

    def walk(self, path: str) -> Iterator[SourceFile]:
        found, impossible = self._files.walk_tolerant(path)
        named = sorted([*found.items(), *((key, None) for key in impossible)], key=lambda one: one[0])
        for name, meta in named:
            if meta is None:
                yield _problem(name, f"key that can't be a path: it has {NO_PATH} (rename the object)")
            elif meta["size"] or self._files.size(f"{path}/{name}") is not None:
                yield SourceFile(path=name, size_bytes=meta["size"], mtime_ns=_mtime_ns(meta))
            # Else it stands for a folder: its key ends with a slash, and nothing has the name without.


class _Remote:
    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        try:
            self._fs: AbstractFileSystem = url_to_fs(url)[0]
        except Exception as error:  # each file system has its own for a URL that it can't take
            raise SourceError(f"no corpus at {url}: {error}") from error

    def exists(self, path: str) -> bool:
        return bool(self._fs.isdir(path))

    def read(self, path: str, n: int) -> bytes:
        return bytes(self._fs.cat_file(path, end=None if n < 0 else n))

    def folders(self, path: str) -> list[str]:
        entries = self._fs.ls(path, detail=True)
        return [entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory"]

    def stat(self, path: str) -> SourceFile | None:
        raise NotImplementedError(path)  # files are found by a listing

    def walk(self, path: str) -> Iterator[SourceFile]:
        root = self._fs._strip_protocol(path).rstrip("/") + "/"
        for name, meta in sorted(self._fs.find(path, detail=True).items()):
            relative = name.removeprefix(root)
            if meta.get("type", "file") in ("file", "link"):
                yield SourceFile(path=relative, size_bytes=int(meta["size"]), mtime_ns=_mtime_ns(meta))
            else:
                yield _problem(relative, f"special file ({meta['type']})")


def _mtime_ns(meta: Mapping[str, Any]) -> int:
    # File systems name it differently. One that does not know it gives 0: then only the size tells
    # a change.
    value = next((meta[name] for name in ("mtime", "LastModified", "last_modified", "updated") if name in meta), 0)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return int((value.timestamp() if isinstance(value, datetime) else float(value)) * 1_000_000_000)
