"""Corpora in memory, and what a reader makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
