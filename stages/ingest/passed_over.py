"""Files that a reader passes over though their names say that they hold what it looks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from melmill.storage.utterance import SourceFile

AUDIO = frozenset({
    "flac", "wav", "wave", "ogg", "oga", "opus", "mp3", "mp2", "aiff", "aif", "aifc", "au", "snd", "caf", "w64", "rf64",
    "bwf", "sph", "nist", "wv1", "wv2", "shn", "m4a", "m4b", "m4r", "mp4", "m4v", "mov", "aac", "wma", "asf", "wmv",
    "webm", "weba", "mka", "mkv", "avi", "3gp", "3g2", "3ga", "amr", "awb", "wv", "ac3", "eac3", "dts", "ape", "tta",
    "tak", "mpc", "dsf", "dff", "ra", "rm", "spx", "voc", "vox", "gsm", "g722", "g729", "raw", "pcm", "adpcm", "flv",
    "mpg", "mpeg", "ts", "mts", "alac", "oma", "sd2", "iff", "8svx", "svx", "pvf", "paf", "avr", "htk", "ircam", "sf",
})  # fmt: skip
"""Suffixes of audio and of video, which has audio too."""

ARRAYS = frozenset({"npy", "npz", "pt", "pth", "h5", "hdf5", "mat", "pkl", "pickle", "safetensors", "ark", "zarr"})
"""Suffixes of arrays, such as mels."""


# Files that a note names.
NAMED = 5

# Characters that a note shows of a path.
_SHOWN = 120


_LEFT_BEHIND = frozenset({".Trashes", ".Trash", ".AppleDouble", ".Spotlight-V100", ".fseventsd", ".TemporaryItems"})


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
    counts: Counter[str] = Counter()
    for file in files:
        path = file.path
        _, dot, suffix = path.rpartition(".")
        if dot and (suffix := suffix.lower()) in suffixes and path not in taken and not is_hidden(path):
            counts[suffix] += 1
    return counts


def is_hidden(path: str) -> bool:
    """Tell whether a name with a leading dot is in a path, as systems leave them behind.

    >>> is_hidden("s/._a.wav"), is_hidden(".Trashes/a.wav"), is_hidden("s/a.b.wav")
    (True, True, False)
    """
    return path.startswith(".") or "/." in path


def is_litter(path: str) -> bool:
    """Return whether a file is what systems leave behind: ``._a.wav``, or in ``.Trashes``.

    >>> is_litter("s/._a.wav"), is_litter(".Trashes/a.wav"), is_litter("s/.a.wav")
    (True, True, False)
    """
    *folders, name = path.split("/")
    return name.startswith("._") or not _LEFT_BEHIND.isdisjoint(folders)


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
