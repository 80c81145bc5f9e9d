"""Readers of any folder: files by their suffix, texts from beside them, tables and manifests."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any, ClassVar

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.names import compared, is_hidden, split_suffix, stem_of, suffix_of
from melmill.stages.ingest.passed_over import hidden
from melmill.stages.ingest.reader import CorpusFile, Reader
from melmill.stages.ingest.texts.decoding import decoded
from melmill.stages.ingest.texts.lookup import FolderTexts
from melmill.stages.ingest.texts.tables import COLUMNS, SKIPPED, Row, parse_table
from melmill.stages.numeric.checks import check_texts
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.utterance import SourceFile, shortened

LEVELS = ("subset", "speaker", "chapter", SKIPPED)
_NAMED_IN_ERRORS = 3
# The name of a file has 255 bytes at most. This leaves room for a suffix.
LONGEST_ID = 200


@dataclass(frozen=True, kw_only=True)
class FolderReader(Reader):
    """Read files of any folder; the id of an utterance is its path (``wavs/a.wav`` is ``wavs--a``).

    Its text comes from the manifest, from a file beside it (``a.normalized.txt``, ``a.txt`` or
    ``a.lab``), or in a parallel folder (``txt/`` for ``wav48/``), or from a table such as
    ``metadata.csv``. For the other fields see `melmill.stages.ingest.reader.Reader`.

    Parameters
    ----------
    folders : tuple of str
        What the folders below `root` stand for, the outermost first: ``subset``, ``speaker``,
        ``chapter``, or ``-`` for nothing. Deeper folders stand for nothing.
    manifest : str or None
        Path of a list of the files wanted, below the root; None: all files. It has a line
        ``path`` or ``path|text`` for each, or is a table. Paths are below the root, with or without
        their suffix.
    columns : tuple of str or None
        What the columns of the manifest are, or without one those of the tables of texts:
        ``path`` (or ``id``), ``text``, ``speaker``, ``speaker_name``, or ``-`` to skip one. None:
        a header says it. Without a header a table has the columns id, text, and perhaps a
        normalised text.
    """

    folders: tuple[str, ...] = ("subset", "speaker", "chapter")
    manifest: str | None = None
    columns: tuple[str, ...] | None = None

    suffixes: ClassVar[tuple[str, ...]]
    """Suffixes of its files, without the dot."""

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_texts("folders", self.folders, "speaker")
        for name in self.folders:
            if name not in LEVELS:
                raise ParameterError("folders", f"must hold only {', '.join(LEVELS)}, got {name!r}")
        check_columns(self.columns)
        if not isinstance(self.manifest, str | None) or self.manifest == "":
            raise ParameterError("manifest", f"must be the path of a list below the root, got {self.manifest!r}")
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
            stem, suffix = split_suffix(file.path)
            if suffix in self.suffixes and not is_hidden(file.path):
                # Many files share a folder.
                levels = dict(zip(self.folders, map(intern, file.path.split("/")[:-1]), strict=False))
                entries.append(
                    CorpusFile(
                        file,
                        utterance_id(stem),
                        subset=levels.get("subset", ""),
                        speaker_id=levels.get("speaker", ""),
                        chapter_id=levels.get("chapter", ""),
                    )
                )
        return entries if self.manifest is None or not entries else self._listed(entries, tree, self.manifest)

    def passed_over(self, files: Sequence[SourceFile], entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return a line on hidden files; see `Reader.passed_over`."""
        return list(hidden(files, self.suffixes))

    def annotate(self, tree: CorpusTree, files: Sequence[SourceFile], chosen: Sequence[CorpusFile]) -> FolderTexts:
        """Return what adds texts and speakers, unless the manifest gave them."""
        # A manifest with all texts needs no tables, whatever they hold.
        listed = self.manifest is not None and all(entry.text for entry in chosen)
        return FolderTexts(
            tree,
            [] if listed else files,
            [file.path for file in files if suffix_of(file.path) in self.suffixes and not is_hidden(file.path)],
            columns=self.columns if self.manifest is None else None,
            encoding=self.encoding,
            without=self.manifest,
        )

    def _listed(self, entries: Sequence[CorpusFile], tree: CorpusTree, manifest: str) -> list[CorpusFile]:
        """Return the files that the manifest lists, in their own order, with its texts."""
        try:
            data = tree.read(manifest)
        except OSError as error:
            raise ParameterError(
                "manifest", f"must be a file below {self.root!r}, got {manifest!r}: {error.strerror}"
            ) from error
        rows = parse_table(decoded(data, manifest, self.encoding), manifest, self.columns, bare=True).rows
        if not rows:
            raise ParameterError(
                "manifest", f"must list files, got {manifest!r} with none: a line each, path or path|text"
            )
        listed: dict[str, Row] = {}
        for row in rows:
            stem = stem_of(compared(row.name))
            if listed.setdefault(stem, row) is not row:
                raise ParameterError(
                    "manifest",
                    f"must list each file once, got {stem!r} on lines {listed[stem].line} and {row.line} of "
                    f"{manifest!r}",
                )
        present = {stem_of(compared(entry.path)) for entry in entries}
        missing = [(stem, row.line) for stem, row in listed.items() if stem not in present]
        if missing:
            names = ", ".join(f"{stem!r} (line {line})" for stem, line in missing[:_NAMED_IN_ERRORS])
            more = f" and {len(missing) - _NAMED_IN_ERRORS:,} more" if len(missing) > _NAMED_IN_ERRORS else ""
            raise ParameterError(
                "manifest",
                f"must list files below {self.root!r}, got {manifest!r} with {len(missing):,} of {len(rows):,} that "
                f"are not there: {names}{more}; paths are relative to root and read like {stem_of(entries[0].path)!r}",
            )
        wanted = [(entry, listed.get(stem_of(compared(entry.path)))) for entry in entries]
        return [
            entry._replace(
                text=row.text,
                speaker_id=row.speaker_id or entry.speaker_id,
                speaker_name=row.speaker_name or entry.speaker_name,
            )
            for entry, row in wanted
            if row
        ]


def check_columns(columns: Sequence[str] | None) -> None:
    """Raise ParameterError unless columns of a table of texts are declared rightly."""
    if columns is None:
        return
    check_texts("columns", columns, "path")
    for name in columns:
        if name not in COLUMNS:
            raise ParameterError("columns", f"must hold only {', '.join(COLUMNS)}, got {name!r}")
    named = ["path" if name == "id" else name for name in columns if name != SKIPPED]
    if named.count("path") != 1 or len(set(named)) < len(named):
        raise ParameterError(
            "columns", f"must name path (or id) once, and each other column at most once, got {list(columns)!r}"
        )


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
