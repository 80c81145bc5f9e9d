"""Paths and URLs as people write them, for stores, corpora and single files."""

from __future__ import annotations

import difflib
import os
import re
from functools import cache
from pathlib import Path

from melmill.storage.errors import StoreError
from melmill.storage.files.objects import SCHEMES

# Control characters other than tab and line ends, and halves of surrogate pairs: no file name,
# URL or terminal takes them.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")

# A scheme is longer than the letter of a drive, and two slashes follow its colon.
_ONE_SLASH = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/(?P<rest>[^/].*)?", flags=re.DOTALL)


def read_place(place: str, owner: str = "a path or URL") -> str:
    """Return a path or URL as it is meant, with the home folder in place of a leading ``~``.

    Every store, corpus and single file comes through here, from YAML, the command line or Python.

    Parameters
    ----------
    place : str
        A path, or a URL of an object store or of any other file system of fsspec.
    owner : str
        What is a place, for errors.

    Raises
    ------
    StoreError
        It is empty or holds a control character. It begins with the home folder of an unknown user,
        with an unknown scheme, or with a scheme and one slash.

    >>> read_place("S3://bucket/x"), read_place("runs/x")
    ('s3://bucket/x', 'runs/x')
    """
    if not place:
        raise StoreError(f"{owner} must be a path or URL, got '': write . for the working directory")
    if UNPRINTABLE.search(place):
        raise StoreError(f"{owner} must hold no control characters and be UTF-8, got {place!r}")
    if slashed := _ONE_SLASH.fullmatch(place):
        slashes = ":///" if slashed["scheme"].lower() == "file" else "://"
        right = f"{slashed['scheme']}{slashes}{slashed['rest'] or ''}"
        raise StoreError(f"{owner} must have two slashes after the scheme, got {place!r}: write {right}")
    scheme, slashes, path = place.partition("://")
    # fsspec chains its file systems by "::", and checks such URLs itself.
    if slashes and not place.startswith("/") and "::" not in scheme:
        if problem := _unknown_scheme(scheme.lower()):
            raise StoreError(f"{owner} has {problem}, got {place!r}")
        if scheme.lower() != "file":
            return f"{scheme.lower()}://{path}"
        place = f"file://{path}"
    path = place.removeprefix("file://")
    if not path.startswith("~"):
        return place
    expanded = os.path.expanduser(path)  # noqa: PTH111 - a Path would drop a final slash
    if expanded.startswith("~"):
        raise StoreError(
            f"{owner} begins with the home folder of an unknown user, got {place!r}: "
            f"write ./{path} for a folder of that name"
        )
    return expanded


def absolute(place: str) -> str:
    """Return a place as `read_place` does, the same in every process: an absolute path, or a URL.

    Neither ends with a slash.
    """
    place = read_place(place)
    if "://" in place and not place.startswith(("/", "file://")):
        return place.rstrip("/")
    return str(Path(place.removeprefix("file://")).absolute())


@cache
def _unknown_scheme(scheme: str) -> str:
    """Say what is wrong with a scheme, ``""`` for nothing."""
    usual = ("file", *SCHEMES)
    if scheme in usual:
        return ""
    from fsspec import available_protocols

    known = [*usual, *sorted(set(available_protocols()) - set(usual))]
    if scheme in known:
        return ""
    # Of equally near names the first is taken: the usual ones.
    near = max(known, key=lambda name: difflib.SequenceMatcher(None, scheme, name).ratio())
    alike = difflib.SequenceMatcher(None, scheme, near).ratio() >= 0.5
    hint = f"did you mean {near}://? " if alike else ""
    return f"the unknown scheme {scheme!r} ({hint}known: {', '.join(usual)}, and those of fsspec, such as memory)"
