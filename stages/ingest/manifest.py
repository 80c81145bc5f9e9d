"""Lists of the files of a corpus that are wanted, as acoustic models and vocoders are trained from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from melmill.stages.ingest.collection import Found
from melmill.stages.numeric.errors import ParameterError

NAMED = 3


class Entry(NamedTuple):
    """A line of a manifest: its number from 1, the path without its suffix, and the text, empty where it has none."""

    line: int
    stem: str
    text: str


def parse_manifest(text: str, stem: Callable[[str], str]) -> list[Entry]:
    r"""Return the entries of a manifest: a line each, ``path`` or ``path|text``; of several texts the last is taken.

    >>> parse_manifest("wavs/a.wav|Hello.\n\nwavs/b\n", lambda path: path.removesuffix(".wav"))
    [Entry(line=1, stem='wavs/a', text='Hello.'), Entry(line=3, stem='wavs/b', text='')]
    """
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        path, *texts = (field.strip() for field in line.split("|"))
        if path:
            entries.append(Entry(number, stem(path.removeprefix("./")), next(filter(None, reversed(texts)), "")))
    return entries


def listed(
    found: Sequence[Found], entries: Sequence[Entry], stem: Callable[[str], str], manifest: str, root: str
) -> list[Found]:
    """Return the files that a manifest lists, in the order found.

    Parameters
    ----------
    found : sequence of Found
    entries : sequence of Entry
    stem : callable
        Takes the suffix off a path.
    manifest, root : str
        Names, for messages.

    Raises
    ------
    ParameterError
        The manifest is empty, lists a file twice, or one that is not there.
    """
    if not entries:
        raise ParameterError("manifest", f"must list files, got {manifest!r} with none: a line each, path or path|text")
    seen: dict[str, int] = {}
    for entry in entries:
        if seen.setdefault(entry.stem, entry.line) != entry.line:
            raise ParameterError(
                "manifest",
                f"must list each file once, got {entry.stem!r} on lines {seen[entry.stem]} and {entry.line} of "
                f"{manifest!r}",
            )
    there = {f: stem(f.file.path) for f in found}
    held = frozenset(there.values())
    missing = [entry for entry in entries if entry.stem not in held]
    if missing:
        names = ", ".join(f"{entry.stem!r} (line {entry.line})" for entry in missing[:NAMED])
        more = f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
        raise ParameterError(
            "manifest",
            f"must list files below {root!r}, got {manifest!r} with {len(missing):,} of {len(entries):,} that are not "
            f"there: {names}{more}; paths are relative to root and read like {there[found[0]]!r}",
        )
    return [f for f in found if there[f] in seen]
