"""Archives of a corpus, read in place: tar, compressed tar and zip.

A plain tar and a zip are read where they lie. A compressed tar can only be read from its start, so
its tar is written once to a cache, and read there. The cache may be removed at any time.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import lzma
import os
import shutil
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from melmill.storage.errors import SourceError
from melmill.storage.utterance import ARCHIVE_SUFFIXES, SourceFile

CACHE_VARIABLE = "MELMILL_CACHE"

# Bytes that are unpacked, and hashed at both ends of an archive, at a time.
_BLOCK = 1 << 20
_ENDS = 1 << 16
# Room that is left on the disk of the cache, bytes.
_SPARE = 256 << 20
_VERSION = 1
_DAMAGES = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError)


def is_archive(path: str) -> bool:
    """Tell whether a file is an archive by its name.

    >>> is_archive("a/train-clean-100.tar.gz"), is_archive("a.tar.gz/b.wav")
    (True, False)
    """
    return path.lower().endswith(ARCHIVE_SUFFIXES)


def cache_folder() -> Path:
    """Return the folder where compressed tars are unpacked: ``$MELMILL_CACHE``, or a user's cache."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "melmill"


class Member(NamedTuple):
    """Hold where the bytes of a member of a tar lie, and its time of change."""

    offset: int
    size_bytes: int
    mtime_ns: int


@dataclass
class Archive:
    """The members of an archive, which are read by their names.

    Parameters
    ----------
    path : str
        Of the archive.
    tar : str
        The tar that holds the members: the archive, or its unpacked copy. Empty for a zip.
    members : mapping of str to Member
        By name, with ``/``. Of a name that occurs twice the last counts, as in tar.
    skipped : tuple of (str, str)
        Names of members that can't be taken, and why.
    """

    path: str
    tar: str
    members: Mapping[str, Member]
    skipped: tuple[tuple[str, str], ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _zip: zipfile.ZipFile | None = field(default=None, repr=False)
    _pid: int = 0

    def files(self) -> Iterator[SourceFile]:
        """Yield all members, sorted by path, and those that can't be taken with their problem."""
        for name, member in sorted(self.members.items()):
            yield SourceFile(path=name, size_bytes=member.size_bytes, mtime_ns=member.mtime_ns)
        for name, problem in self.skipped:
            yield SourceFile(path=name, size_bytes=0, mtime_ns=0, problem=problem)

    def read(self, name: str, n: int = -1) -> bytes:
        """Return the first `n` bytes of a member, or all where `n` is negative; raise OSError."""
        member = self.members.get(name)
        if member is None:
            raise FileNotFoundError(errno.ENOENT, "no such member of the archive", f"{self.path}//{name}")
        size = member.size_bytes if n < 0 else min(n, member.size_bytes)
        if not self.tar:
            return self._unzipped(name, size)
        descriptor = os.open(self.tar, os.O_RDONLY)
        try:
            data = _pread(descriptor, size, member.offset)
        finally:
            os.close(descriptor)
        if len(data) < size:
            raise OSError(errno.EINVAL, "the archive ends inside this member", f"{self.path}//{name}")
        return data

    def _unzipped(self, name: str, size: int) -> bytes:
        try:
            with self._lock:
                # A forked process would move the place in the file of the one that opened it.
                if self._zip is None or self._pid != os.getpid():
                    self._zip, self._pid = zipfile.ZipFile(self.path), os.getpid()
                with self._zip.open(name) as file:
                    return file.read(size)
        except (*_DAMAGES, NotImplementedError, RuntimeError) as error:
            raise OSError(errno.EINVAL, f"the member is damaged or can't be unpacked: {error}", name) from error


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    parts = []
    while size > 0:
        part = os.pread(descriptor, min(size, 1 << 30), offset)
        if not part:
            break
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def opened(path: str) -> Archive:
    """Return an archive, indexed; the index is kept in this process and in the cache.

    Raises
    ------
    OSError
        It can't be read.
    SourceError
        It is no archive, is cut off or damaged, or there is no room to unpack it.
    """
    status = os.stat(path)  # noqa: PTH116 - a plan asks for every member
    return _opened(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _opened(path: str, size_bytes: int, mtime_ns: int) -> Archive:
    try:
        if path.lower().endswith(".zip"):
            return _zipped(path)
        return _indexed(path, size_bytes, mtime_ns)
    except _DAMAGES as error:
        raise SourceError(
            f"the archive {path} is cut off or damaged ({str(error) or type(error).__name__}): fetch it again"
        ) from error


def _zipped(path: str) -> Archive:
    members, skipped = {}, []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            problem = "encrypted member" if info.flag_bits & 1 else _problem(info.filename)
            if problem:
                skipped.append((info.filename, problem))
            else:
                # A zip knows no zone; UTC is the same everywhere.
                members[info.filename] = Member(0, info.file_size, _time_ns(info.date_time))
    return Archive(path, "", members, tuple(skipped))


def _time_ns(said: tuple[int, int, int, int, int, int]) -> int:
    """Return a time of a zip, the earliest that it can say for one that is none."""
    year, month, day, hour, minute, second = said
    try:
        changed = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        changed = datetime(1980, 1, 1, tzinfo=UTC)
    return int(changed.timestamp()) * 10**9


def _problem(name: str) -> str:
    """Return why a name can't be a path below a root; empty if it can."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "" in parts or "." in parts:
        return "name that leads out of the archive, or is no plain path"
    return ""


def _indexed(path: str, size_bytes: int, mtime_ns: int) -> Archive:
    """Return a tar with its index from the cache, or make that."""
    compressed = not path.lower().endswith(".tar")
    ends = _ends_sha256(path, size_bytes)
    said = f"{_VERSION}\0{Path(path).resolve()}\0{size_bytes}\0{mtime_ns}\0{ends}"
    name = hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    folder = cache_folder() / "archives"
    if not compressed and not _can_write(folder):
        return _index_of(path, path)
    index, tar = folder / f"{name}.json", folder / f"{name}.tar" if compressed else Path(path)
    with _locked(folder, name):
        if not (index.is_file() and tar.is_file()):
            if compressed:
                _unpack(path, tar)
            _write(index, json.dumps(_as_plain(_index_of(path, str(tar)))).encode())
        try:
            plain = json.loads(index.read_bytes())
            members = {name: Member(*where) for name, where in plain["members"].items()}
            return Archive(path, str(tar), members, tuple((name, why) for name, why in plain["skipped"]))
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{index} can't be parsed ({error}): remove it, and it is made again") from error


def _as_plain(archive: Archive) -> dict[str, Any]:
    return {"archive": archive.path, "members": archive.members, "skipped": archive.skipped}


def _index_of(path: str, tar: str) -> Archive:
    members: dict[str, Member] = {}
    skipped = []
    with tarfile.open(tar, "r:") as archive:
        for info in archive:
            name = info.name.removeprefix("./")
            if info.islnk() and info.linkname.removeprefix("./") in members:
                members[name] = members[info.linkname.removeprefix("./")]
            elif info.isreg() and not info.issparse():
                problem = _problem(name)
                if problem:
                    skipped.append((name, problem))
                else:
                    members[name] = Member(info.offset_data, info.size, int(info.mtime) * 10**9)
            elif not info.isdir():
                skipped.append((name, "link, device or sparse file in the archive"))
        _check_whole(tar, archive.offset, len(members))
    return Archive(path, tar, members, tuple(skipped))


def _check_whole(tar: str, end: int, n_members: int) -> None:
    """Raise ReadError unless blocks of zeros end a tar, as they do in all that are whole."""
    descriptor = os.open(tar, os.O_RDONLY)
    try:
        block = os.pread(descriptor, tarfile.BLOCKSIZE, end)
    finally:
        os.close(descriptor)
    if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise tarfile.ReadError(f"after {n_members:,} members it does not end as a tar does")


def _ends_sha256(path: str, size_bytes: int) -> str:
    """Return the SHA-256 of both ends of a file, which tells another one of its size and time."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        both = os.pread(descriptor, _ENDS, 0) + os.pread(descriptor, _ENDS, max(0, size_bytes - _ENDS))
    finally:
        os.close(descriptor)
    return hashlib.sha256(both).hexdigest()


@contextlib.contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock of an archive, so that one process of a machine unpacks it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, stat.S_IRUSR | stat.S_IWUSR)
    except OSError as error:
        raise SourceError(
            f"the cache of archives at {folder} can't be written ({error.strerror}): set {CACHE_VARIABLE} to another "
            "folder"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _write(path: Path, data: bytes) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


def _unpack(path: str, tar: Path) -> None:
    """Write the tar of a compressed one to the cache, whole or not at all."""
    # Who holds the lock is alone: others were killed.
    for left in tar.parent.glob(f"{tar.stem}.*.part"):
        left.unlink(missing_ok=True)
    part = tar.with_suffix(f".{os.getpid()}.part")
    written = 0
    try:
        with contextlib.closing(_decompressed(path)) as source, part.open("wb") as target:
            while block := source.read(_BLOCK):
                if written % (64 * _BLOCK) == 0 and shutil.disk_usage(tar.parent).free < _SPARE + 64 * _BLOCK:
                    raise OSError(errno.ENOSPC, "no room")
                target.write(block)
                written += len(block)
        part.replace(tar)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise (tarfile.ReadError(str(error)) if error.errno is None else error) from error
        raise SourceError(
            f"there is no room to unpack {path} in {tar.parent}, after {written / 1e9:.1f} GB: free some, or set "
            f"{CACHE_VARIABLE} to a folder on another disk"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _decompressed(path: str) -> IO[bytes]:
    low = path.lower()
    if low.endswith((".gz", ".tgz")):
        return cast("IO[bytes]", gzip.open(path))
    if low.endswith(("bz2",)):
        return cast("IO[bytes]", bz2.open(path))
    if low.endswith(("xz",)):
        return cast("IO[bytes]", lzma.open(path))
    import pyarrow as pa

    return cast("IO[bytes]", pa.CompressedInputStream(pa.OSFile(path), "zstd"))
