"""How a stage's files are read: the layer of stages opens none itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

Read = Callable[[str], bytes]


class Listing(NamedTuple):
    """Hold the files below a folder.

    Parameters
    ----------
    url : str
        Of the folder, absolute.
    names : tuple of str
        Relative to it.
    digest : str
        Of names, sizes and times.
    """

    url: str
    names: tuple[str, ...]
    digest: str


_READERS: list[Read] = []
_LISTERS: list[Callable[[str], Listing]] = []


def read_with(read: Read) -> None:
    """Take the function that returns the bytes of a path or URL."""
    _READERS[:] = [read]


def list_with(list_: Callable[[str], Listing]) -> None:
    """Take the function that lists the files below a folder."""
    _LISTERS[:] = [list_]


def read_file(path: str) -> bytes:
    """Return the bytes of a path or URL; raise FileNotFoundError where there is none."""
    return _READERS[-1](path)


def list_files(folder: str) -> Listing:
    """Return the files below a folder or in an archive."""
    return _LISTERS[-1](folder)
