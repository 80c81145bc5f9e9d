"""Files that a reader passes over though their names say that they hold what it looks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from melmill.stages.ingest.names import is_hidden, is_left_behind, suffix_of
from melmill.storage.utterance import SourceFile

# Files that a note names.
NAMED = 5

# Characters that a note shows of a path.
_SHOWN = 120


def count_suffixes(files: Iterable[SourceFile], suffixes: Container[str], taken: Container[str]) -> Counter[str]:
    """Count files by their suffix, in lower case.

    Parameters
    ----------
    files : iterable of SourceFile
    suffixes : container of str
        Suffixes that are counted.
    taken : container of str
        Paths that are not counted. Hidden files are not counted either.
    """
    named = ((suffix_of(file.path), file.path) for file in files if file.path not in taken)
    return Counter(suffix for suffix, path in named if suffix in suffixes and not is_hidden(path))


def hidden(files: Iterable[SourceFile], suffixes: Container[str]) -> Iterator[str]:
    """Yield a line on files of some suffixes that a dot hides, if there are any."""
    paths = [file.path for file in files if is_hidden(file.path) and suffix_of(file.path) in suffixes]
    paths = [path for path in paths if not is_left_behind(path)]
    if paths:
        yield f"{len(paths):,} passed over, hidden by a dot: {some_of(paths)}"


def unreadable(files: Iterable[SourceFile]) -> Iterator[str]:
    """Yield a line on each kind of file that can't be taken, with the names of some."""
    kinds: dict[str, list[str]] = {}
    for file in files:
        if file.problem:
            kinds.setdefault(file.problem, []).append(file.path)
    for problem, paths in kinds.items():
        yield f"{len(paths):,} passed over, {problem}: {some_of(paths)}"


def some_of(paths: Sequence[str]) -> str:
    """Return the first of some paths, for a note.

    >>> some_of(["a"] * 7)
    "'a', 'a', 'a', 'a', 'a' and 2 more"
    """
    more = f" and {len(paths) - NAMED:,} more" if len(paths) > NAMED else ""
    shown = (
        path if len(path) <= _SHOWN else f"{path[: _SHOWN // 2]}...{path[-_SHOWN // 2 :]}" for path in paths[:NAMED]
    )
    return ", ".join(f"'{path}'" for path in shown) + more


def listed(counts: Mapping[str, int]) -> str:
    """Return counts by suffix in words, the most frequent first.

    >>> listed({"sph": 1, "m4a": 4000})
    '4,000 .m4a, 1 .sph'
    """
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n:,} .{suffix}" for suffix, n in ranked)


def note(counts: Mapping[str, int], what: str, remedy: str) -> str:
    """Return a line that says how many files were passed over, and what to do.

    >>> note({"m4a": 1}, "are audio by their names but not read", "convert them")
    '1 file is audio by its name but not read: 1 .m4a; convert it'
    """
    n = sum(counts.values())
    if n == 1:
        for many, one in (("are ", "is "), ("hold ", "holds "), ("their names", "its name"), (" they ", " it ")):
            what = what.replace(many, one)
        remedy = remedy.replace("them", "it")
    return f"{n:,} file{'s' if n != 1 else ''} {what}: {listed(counts)}; {remedy}"
