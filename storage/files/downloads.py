"""Files of corpora from web servers: resumed after interruptions, and whole only once they are verified."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from melmill.storage.errors import SourceError

# Attempts without a new byte, and pauses between them, s.
_PAUSES_S = (0.2, 1.0, 5.0, 15.0)
_TIMEOUT_S = 60.0
_BLOCK = 1 << 20
_SPARE = 64 << 20
_SCHEMES = ("http://", "https://")

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and all bytes, 0 where nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Say which file is wanted, where it may be had, and what proves that it is whole.

    Parameters
    ----------
    name : str
    urls : tuple of str
        The first that answers is taken.
    n_bytes : int
        0: unknown, the server's answer counts.
    sha256, md5 : str
        In hexadecimal; empty: unknown.
    """

    name: str
    urls: tuple[str, ...]
    n_bytes: int = 0
    sha256: str = ""
    md5: str = ""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """Say how a file came to be there.

    Parameters
    ----------
    path : Path
    n_bytes : int
    sha256 : str
        Of what is there.
    is_new : bool
        Whether it was fetched, rather than there already.
    is_verified : bool
        Whether a checksum of its publisher proves it.
    """

    path: Path
    n_bytes: int
    sha256: str
    is_new: bool
    is_verified: bool


def fetch_file(wanted: Wanted, folder: Path, progress: Progress = lambda done, total: None) -> Fetched:
    """Return a file that is whole in a folder, fetched unless it is there already.

    It grows under another name, with ``.part`` at the end, and gets its name when size and checksum are
    right. An interrupted fetch goes on where it stopped, if the server still has the same file.

    Raises
    ------
    SourceError
        No address has the file, it is not what was published, or there is no room.
    """
    for url in wanted.urls:
        if not url.startswith(_SCHEMES):
            raise SourceError(f"an address must begin with http:// or https://, got {url!r}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        final = folder / wanted.name
        if final.exists():
            return _checked_there(wanted, final)
        part = _Part(wanted, folder)
        part.fetch(progress)
        return part.finished(final)
    except OSError as error:
        raise SourceError(f"{folder} can't be written: {error.strerror or error}") from error


def _checked_there(wanted: Wanted, final: Path) -> Fetched:
    problem, digests = _problem(wanted, final, 0)
    if problem:
        raise SourceError(
            f"{final} is there, and is not what was published ({problem}): move it away, and fetch it again"
        )
    return Fetched(
        path=final,
        n_bytes=final.stat().st_size,
        sha256=digests["sha256"],
        is_new=False,
        is_verified=bool(wanted.sha256 or wanted.md5),
    )


def _problem(wanted: Wanted, path: Path, n_bytes: int) -> tuple[str, Mapping[str, str]]:
    """Return why a file is not the one that is wanted, empty if it is, and its checksums."""
    size, expected = path.stat().st_size, wanted.n_bytes or n_bytes
    if expected and size != expected:
        return f"{size:,} bytes, expected {expected:,}", {}
    hashes = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            for one in hashes.values():
                one.update(block)
    digests = {name: one.hexdigest() for name, one in hashes.items()}
    for name, said in (("sha256", wanted.sha256), ("md5", wanted.md5)):
        if said and digests[name] != said:
            return f"{name.upper()} {digests[name][:12]}, expected {said[:12]}", digests
    return "", digests


def _received(answer: http.client.HTTPResponse) -> bytes:
    """Return what comes next; raise URLError where the network fails, which is not the fault of the folder."""
    try:
        return answer.read(_BLOCK)
    except OSError as error:
        raise urllib.error.URLError(error) from error


class _Changed(Exception):
    """The server has another file than the one that was begun."""


class _Part:
    """A file that is not whole yet, and what the server said of it."""

    def __init__(self, wanted: Wanted, folder: Path) -> None:
        self.wanted = wanted
        self.path = folder / f"{wanted.name}.part"
        self.about = folder / f"{wanted.name}.part.json"
        self.n_bytes = 0

    def fetch(self, progress: Progress) -> None:
        """Fetch what is missing, from the first address that has it."""
        problems = []
        for url in self.wanted.urls:
            problem = self._from(url, progress)
            if not problem:
                return
            problems.append(f"{url}: {problem}")
        raise SourceError(
            f"{self.wanted.name} can't be fetched: {'; '.join(problems)}. "
            + (f"{self._size():,} bytes are kept: run it again to go on, or " if self._size() else "Try again, or ")
            + "name a mirror"
        )

    def _from(self, url: str, progress: Progress) -> str:
        """Fetch from one address; return why that failed, or an empty text."""
        failures, problem = 0, ""
        while failures <= len(_PAUSES_S):
            before = self._size()
            try:
                if self._transfer(url, progress):
                    return ""
                problem = "the transfer was cut off"
            except _Changed:
                self._forget()
                continue
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in (408, 429):
                    return f"the server answers {error.code} {error.reason}"
                problem = f"the server answers {error.code} {error.reason}"
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                problem = str(getattr(error, "reason", "") or error) or type(error).__name__
            failures = 0 if self._size() > before else failures + 1
            if failures and failures <= len(_PAUSES_S):
                time.sleep(_PAUSES_S[failures - 1])
        return problem

    def _transfer(self, url: str, progress: Progress) -> bool:
        """Take what the server sends; return whether the file is as long as it should be."""
        start = self._size()
        request = urllib.request.Request(url, headers={"User-Agent": "melmill", "Accept-Encoding": "identity"})
        stamp = self._stamp()
        if start and not stamp:
            start = 0
        if start:
            request.add_header("Range", f"bytes={start}-")
            request.add_header("If-Range", stamp)
        try:
            answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code == 416 and start:  # nothing follows: it is whole, or another file
                if start == self.wanted.n_bytes:
                    self.n_bytes = start
                    return True
                raise _Changed from error
            raise
        with answer:
            total = self._total(answer, start)
            if self.wanted.n_bytes and total and total != self.wanted.n_bytes:
                raise SourceError(
                    f"{url} has {total:,} bytes, and {self.wanted.name} was published with {self.wanted.n_bytes:,}: "
                    "name another mirror"
                )
            if answer.status != 206:
                start = 0
            self._remember(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
            self._check_room(total, start)
            done = start
            with self.path.open("r+b" if start else "wb") as file:
                file.truncate(start)
                file.seek(start)
                try:
                    while block := _received(answer):
                        file.write(block)
                        done += len(block)
                        progress(done, total)
                except http.client.IncompleteRead as error:
                    file.write(error.partial)
                    done += len(error.partial)
                file.flush()
                os.fsync(file.fileno())
        self.n_bytes = total
        expected = total or self.wanted.n_bytes
        return not expected or done >= expected

    def _total(self, answer: http.client.HTTPResponse, start: int) -> int:
        """Return the length of the whole file, 0 where the server does not say it."""
        if answer.status == 206:
            said = str(answer.headers.get("Content-Range") or "")
            unit, _, total = said.partition("/")
            if not unit.startswith(f"bytes {start}-"):
                raise _Changed
            return int(total) if total.isdigit() else 0
        length = str(answer.headers.get("Content-Length") or "")
        return int(length) if length.isdigit() else 0

    def _check_room(self, total: int, start: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if total and total - start + _SPARE > free:
            raise SourceError(
                f"there is no room for {self.wanted.name} in {self.path.parent}: {total - start:,} bytes are missing, "
                f"{free:,} are free"
            )

    def finished(self, final: Path) -> Fetched:
        """Return the file under its name, once it is proven to be whole."""
        problem, digests = _problem(self.wanted, self.path, self.n_bytes)
        if problem:
            self._forget()
            raise SourceError(
                f"{self.wanted.name} is not what was published ({problem}): what was fetched is removed; fetch it "
                "again, or name another mirror"
            )
        size = self.path.stat().st_size
        self.path.replace(final)
        self.about.unlink(missing_ok=True)
        is_verified = bool(self.wanted.sha256 or self.wanted.md5)
        return Fetched(path=final, n_bytes=size, sha256=digests["sha256"], is_new=True, is_verified=is_verified)

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _stamp(self) -> str:
        """Return what the server said when the file was begun, by which it knows it; empty for nothing."""
        try:
            said = json.loads(self.about.read_text())["stamp"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        # A weak tag proves no bytes.
        return "" if not isinstance(said, str) or said.startswith("W/") else said

    def _remember(self, stamp: str) -> None:
        self.about.write_text(json.dumps({"stamp": stamp, "name": self.wanted.name}))

    def _forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)
