"""Readers of any folder: files by their suffix, texts from beside them, tables and manifests."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.reader import Annotate, CorpusFile, Reader, read_texts, some_of
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.utterance import SourceFile, shortened

AUDIO_SUFFIXES = ("flac", "wav", "ogg", "oga", "opus", "mp3", "aiff", "aif", "au", "caf", "w64", "rf64")
"""Formats that libsndfile decodes and that corpora come in."""

MEL_SUFFIXES = ("npy",)
METADATA = "metadata.csv"
SKIPPED = "-"
LEVELS = ("subset", "speaker", "chapter", SKIPPED)
_TRANSCRIPTS = (".normalized.txt", ".txt")
_NAMED_IN_ERRORS = 3
# The name of a file has 255 bytes at most. This leaves room for a suffix.
LONGEST_ID = 200


@dataclass(frozen=True, kw_only=True)
class FolderReader(Reader):
    """Read files of any folder; the id of an utterance is its path (``wavs/a.wav`` is ``wavs--a``).

    Its text comes from the manifest, from a file beside it (``a.normalized.txt`` or ``a.txt``), or
    from a ``metadata.csv`` as LJSpeech has it. For the other fields see
    `melmill.stages.ingest.reader.Reader`.

    Parameters
    ----------
    folders : tuple of str
        What the folders below `root` stand for, the outermost first: ``subset``, ``speaker``,
        ``chapter``, or ``-`` for nothing. Deeper folders stand for nothing.
    manifest : str or None
        Path of a list of the files wanted, below the root; None: all files. It has a line
        ``path`` or ``path|text`` for each; paths are below the root, with or without their suffix.
    """

    folders: tuple[str, ...] = ("subset", "speaker", "chapter")
    manifest: str | None = None

    suffixes: ClassVar[tuple[str, ...]]
    """Suffixes of its files, without the dot."""

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        for name in self.folders:
            if name not in LEVELS:
                raise ParameterError("folders", f"must hold only {', '.join(LEVELS)}, got {name!r}")
        named = [name for name in self.folders if name != SKIPPED]
        if len(set(named)) < len(named):
            raise ParameterError("folders", f"must name each level once, got {list(self.folders)!r}")
        if self.subsets is not None and "subset" not in named:
            raise ParameterError(
                "subsets", f"can't be chosen where no folder is a subset: folders is {list(self.folders)!r}"
            )

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen and what the folders mean."""
        chosen = {**super().identity(), "folders": list(self.folders)}
        return chosen if self.manifest is None else {**chosen, "manifest": self.manifest}

    def find(self, tree: CorpusTree, files: Sequence[SourceFile]) -> Sequence[CorpusFile]:
        """Return the files with the reader's suffixes, or those that the manifest lists."""
        entries = []
        for file in files:
            match = _named(*self.suffixes).fullmatch(file.path)
            # Names with a leading dot are what systems leave behind: "._a.wav", ".Trashes/".
            if match and not is_hidden(file.path):
                levels = dict(zip(self.folders, file.path.split("/")[:-1], strict=False))
                entries.append(
                    CorpusFile(
                        file,
                        utterance_id(match["stem"]),
                        subset=levels.get("subset", ""),
                        speaker_id=levels.get("speaker", ""),
                        chapter_id=levels.get("chapter", ""),
                    )
                )
        return entries if self.manifest is None or not entries else self._listed(entries, tree, self.manifest)

    def left_out(self, files: Sequence[SourceFile], found: Sequence[CorpusFile]) -> Iterable[str]:
        """Return a line on hidden files; see `Reader.left_out`."""
        named = _named(*self.suffixes).fullmatch
        hidden = [file.path for file in files if is_hidden(file.path) and named(file.path) and not is_litter(file.path)]
        return [f"{len(hidden):,} passed over, hidden by a dot: {some_of(hidden)}"] if hidden else []

    def annotate(self, tree: CorpusTree, files: Sequence[SourceFile], chosen: Sequence[CorpusFile]) -> Annotate:
        """Return a function that adds the text of a file, unless the manifest gave one."""
        texts = _Texts(tree, files)
        return lambda entry: entry if entry.text else entry._replace(text=texts.text(entry.path))

    def _listed(self, entries: Sequence[CorpusFile], tree: CorpusTree, manifest: str) -> list[CorpusFile]:
        """Return the files that the manifest lists, in their own order, with its texts."""
        try:
            data = tree.read(manifest)
        except OSError as error:
            raise ParameterError(
                "manifest", f"must be a file below {self.root!r}, got {manifest!r}: {error.strerror}"
            ) from error
        lines = parse_manifest(data.decode("utf-8-sig", errors="replace"))
        if not lines:
            raise ParameterError(
                "manifest", f"must list files, got {manifest!r} with none: a line each, path or path|text"
            )
        listed: dict[str, ManifestLine] = {}
        for line in lines:
            if listed.setdefault(line.stem, line) is not line:
                raise ParameterError(
                    "manifest",
                    f"must list each file once, got {line.stem!r} on lines {listed[line.stem].number} and "
                    f"{line.number} of {manifest!r}",
                )
        present = {_stem(entry.path) for entry in entries}
        missing = [line for line in lines if line.stem not in present]
        if missing:
            names = ", ".join(f"{line.stem!r} (line {line.number})" for line in missing[:_NAMED_IN_ERRORS])
            more = f" and {len(missing) - _NAMED_IN_ERRORS:,} more" if len(missing) > _NAMED_IN_ERRORS else ""
            raise ParameterError(
                "manifest",
                f"must list files below {self.root!r}, got {manifest!r} with {len(missing):,} of {len(lines):,} that "
                f"are not there: {names}{more}; paths are relative to root and read like {_stem(entries[0].path)!r}",
            )
        wanted = [(entry, listed.get(_stem(entry.path))) for entry in entries]
        return [entry._replace(text=line.text) for entry, line in wanted if line]


class ManifestLine(NamedTuple):
    """Hold a line of a manifest: number from 1, path without suffix, and text or ``""``."""

    number: int
    stem: str
    text: str


def parse_manifest(text: str) -> list[ManifestLine]:
    r"""Return the lines of a manifest, ``path`` or ``path|text``; the last of several texts counts.

    >>> parse_manifest("wavs/a.wav|Hello.\n\nwavs/b\n")
    [ManifestLine(number=1, stem='wavs/a', text='Hello.'), ManifestLine(number=3, stem='wavs/b', text='')]
    """
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        path, *texts = (field.strip() for field in line.split("|"))
        if path:
            lines.append(ManifestLine(number, _stem(path.removeprefix("./")), next(filter(None, reversed(texts)), "")))
    return lines


class _Texts:
    """Look texts up beside the file, else in the nearest ``metadata.csv`` at or above it."""

    def __init__(self, tree: CorpusTree, files: Sequence[SourceFile]) -> None:
        self._tree = tree
        self._paths = frozenset(file.path for file in files if file.path.endswith((*_TRANSCRIPTS, METADATA)))
        self._tables: dict[str, dict[str, str]] = {}

    def text(self, path: str) -> str:
        stem = path.rpartition(".")[0]
        for suffix in _TRANSCRIPTS:
            if stem + suffix in self._paths:
                return " ".join(read_texts(self._tree, stem + suffix).split())
        folder, _, name = stem.rpartition("/")
        below = name
        while True:
            path = f"{folder}/{METADATA}" if folder else METADATA
            if path not in self._tables:
                self._tables[path] = parse_metadata(read_texts(self._tree, path)) if path in self._paths else {}
            text = self._tables[path].get(below) or self._tables[path].get(name, "")
            if text or not folder:
                return text
            folder, _, inner = folder.rpartition("/")
            below = f"{inner}/{below}"


def is_hidden(path: str) -> bool:
    """Return whether a name in a path begins with a dot."""
    return path.startswith(".") or "/." in path


def is_litter(path: str) -> bool:
    """Return whether a file is what macOS leaves beside each file (``._a.wav``)."""
    return path.rpartition("/")[2].startswith("._")


def utterance_id(stem: str) -> str:
    """Return an id that can name a file, from a path without its suffix.

    It depends on the path alone, so that files added later change no id. Letters, digits, marks on
    letters, ``_``, ``.`` and ``-`` stay. A long id ends with a hash in place of what is cut off.

    >>> utterance_id("p225/p225_001"), utterance_id("rain & wind/take 1")
    ('p225--p225_001', 'rain_wind--take_1')
    """
    made = "--".join("".join(map(_allowed, part)) for part in stem.split("/"))
    made = re.sub("\0+", "_", made)
    return made if len(made.encode()) <= LONGEST_ID else shortened(made, LONGEST_ID)


def _allowed(char: str) -> str:
    # Marks tell letters apart: those of Indic scripts, and accents that stand by themselves.
    return char if char.isalnum() or char in "_.-" or unicodedata.category(char)[0] == "M" else "\0"


def parse_metadata(table: str) -> dict[str, str]:
    r"""Return the texts of a ``metadata.csv`` as LJSpeech has it, by id.

    A line has an id, a text and perhaps a normalised text, with bars between. The id is a file's
    name, or its path below the table's folder, with or without suffix. Of several texts the last
    is taken. Lines of another form are passed over.

    >>> parse_metadata("LJ001-0001|in 1455|in fourteen fifty-five\nwavs/LJ001-0002.wav|a|\nnothing\n")
    {'LJ001-0001': 'in fourteen fifty-five', 'wavs/LJ001-0002': 'a'}
    """
    rows = ([field.strip() for field in line.split("|")] for line in table.splitlines())
    return {_stem(row[0]): next(filter(None, reversed(row[1:])), "") for row in rows if len(row) > 1}


def _stem(path: str) -> str:
    match = _named(*AUDIO_SUFFIXES, *MEL_SUFFIXES).fullmatch(path)
    return match["stem"] if match else path


@cache
def _named(*suffixes: str) -> re.Pattern[str]:
    # Names may hold line ends, and end with spaces.
    return re.compile(rf"(?P<stem>.+)\.(?:{'|'.join(suffixes)})\s*", flags=re.IGNORECASE | re.DOTALL)
