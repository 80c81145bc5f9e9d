"""Corpora in memory, and what a reader makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from melmill.storage.utterance import SourceFile


class MemoryTree:
    """The files of a corpus in memory.

    Parameters
    ----------
    files : mapping of str to bytes
        By path below the root.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def walk(self) -> Iterator[SourceFile]:
        """Iterate over all files, sorted by path."""
        for path in sorted(self._files):
            yield SourceFile(path=path, size_bytes=len(self._files[path]), mtime_ns=1)

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        return self.head(path, -1)

    def head(self, path: str, n: int) -> bytes:
        """Return the first `n` bytes of a file, or all of a shorter file."""
        if path not in self._files:
            raise FileNotFoundError(2, "No such file or directory", path)
        data = self._files[path]
        return data if n < 0 else data[:n]

    def files(self, paths: Iterable[str]) -> dict[str, SourceFile]:
        """Return those of some paths that are files."""
        wanted = set(paths)
        return {file.path: file for file in self.walk() if file.path in wanted}

    def members(self, path: str) -> Iterator[SourceFile]:
        """Refuse: there are no archives in memory."""
        raise FileNotFoundError(2, "No such archive", path)

    def rows(self, path: str, columns: Sequence[str] | None = None) -> Iterator[Mapping[str, Any]]:
        """Refuse: there are no tables in memory."""
        raise FileNotFoundError(2, "No such table", path)
