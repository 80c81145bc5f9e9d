"""Find the text of each file of a folder: beside it, in a parallel folder, or in a table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.names import compared, is_hidden, stem_of
from melmill.stages.ingest.reader import Annotator, CorpusFile, stamp_of
from melmill.stages.ingest.texts.decoding import collapsed, lines, read_texts
from melmill.stages.ingest.texts.tables import Row, parse_table
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.utterance import SourceFile

_TABLE = re.compile(
    r"(?:.*/)?(?:metadata\.(?:csv|tsv|jsonl)|transcripts?\.(?:txt|csv|tsv)|validated\.tsv|[^/]+\.trans\.txt)",
    re.IGNORECASE,
)
# Files of one text each. Those that come first go first.
_COMPANIONS = (".normalized.txt", ".txt", ".lab")
# Folders of texts lie beside folders of recordings: VCTK's txt/ beside wav48_silence_trimmed/.
_TEXT_FOLDERS = frozenset({"txt", "text", "texts", "transcript", "transcripts", "lab"})
_AUDIO_FOLDER = re.compile(r"(?:wav|flac|audio|mp3|clip|mic)\w*", re.IGNORECASE)
_MICROPHONE = re.compile(r"_mic\d+$")
# TIMIT writes the first and the last sample before a text.
_SAMPLE_NUMBERS = re.compile(r"0\s+\d{4,9}\s+(?=\D)")
_TIMED_LABEL = re.compile(r"\d+\s+\d+\s+\S+")
_NAMED = 2


class _Given(NamedTuple):
    """Hold a row that fits a file, and the table that it stands in."""

    table: str
    row: Row

    @property
    def place(self) -> str:
        return f"{self.table}:{self.row.line}"


class FolderTexts(Annotator):
    """Add texts and speakers to the files of a folder.

    The text of a file comes from beside it, from a parallel folder of texts, or from the nearest
    table at or above it. Names match in any normal form of Unicode.

    Parameters
    ----------
    tree : CorpusTree
    files : sequence of SourceFile
        All files of the corpus.
    paths : sequence of str
        Paths of all its utterances, wanted or not: a name that fits several fits none.
    columns : sequence of str or None
        What the columns of tables are; see `parse_table`.
    encoding : str or None
        Encoding of files that are not UTF-8.
    without : str or None
        Path of a file that is no table of texts.

    Raises
    ------
    ParameterError
        A table can't be read, or gives two texts to one utterance.
    """

    def __init__(
        self,
        tree: CorpusTree,
        files: Sequence[SourceFile],
        paths: Sequence[str],
        *,
        columns: Sequence[str] | None = None,
        encoding: str | None = None,
        without: str | None = None,
    ) -> None:
        self._tree = tree
        self._paths = paths
        self._encoding = encoding
        self._notes: list[str] = []
        visible = [file for file in files if not is_hidden(file.path) and file.path != without]
        tables = [file for file in visible if _TABLE.fullmatch(file.path.rstrip())]
        self._companions, self._parallel = _companions(visible)
        self._texts: dict[str, _Given] = {}
        self._speakers: dict[str, _Given] = {}
        self._tables_stamp = stamp_of(tables, encoding, columns)
        self.has_tables = bool(tables)
        if tables:
            self._read_tables([file.path for file in tables], columns)

    def stamp(self, entry: CorpusFile) -> int:
        """Return a number that changes with the file of one text that an utterance has, or 0."""
        file = None if entry.text else self._companion(entry.path)
        return 0 if file is None else stamp_of([file], self._tables_stamp)

    def __call__(self, entry: CorpusFile) -> CorpusFile:
        """Return an utterance with its text and its speaker."""
        stem = _stem(entry.path)
        speaker = self._speakers.get(stem)
        if speaker:
            entry = entry._replace(
                speaker_id=speaker.row.speaker_id, speaker_name=speaker.row.speaker_name or entry.speaker_name
            )
        if entry.text:
            return entry
        file = self._companion(entry.path)
        if file is not None:
            return entry._replace(text=companion_text(read_texts(self._tree, file.path, self._encoding)))
        given = self._texts.get(stem)
        return entry._replace(text=given.row.text) if given else entry

    def notes(self, n_texts: int) -> list[str]:
        """Return what tables leave open, and whether files of texts lie beside no recording."""
        if n_texts or not self._companions:
            return self._notes
        stems = {_MICROPHONE.sub("", _stem(path)) for path in self._paths}
        idle = sorted(file.path for stem, (_, file) in self._companions.items() if stem not in stems)
        # Folders hold a few other files, such as README.txt.
        if 2 * len(idle) < len(self._paths):
            return self._notes
        return [*self._notes, f"{_counted(len(idle), 'file')} of texts fit no recording; first: {idle[0]!r}"]

    def _companion(self, path: str) -> SourceFile | None:
        """Return the file of one text that an utterance has."""
        if not self._companions:
            return None
        stem = _stem(path)
        for name in dict.fromkeys((stem, _MICROPHONE.sub("", stem))):
            if name in self._companions:
                return self._companions[name][1]
            parts = name.split("/")
            for index, part in enumerate(parts[:-1]) if self._parallel else ():
                if _AUDIO_FOLDER.fullmatch(part):
                    key = "/".join(parts[:index]), "/".join(parts[index + 1 :])
                    if key in self._parallel:
                        return self._parallel[key]
        return None

    def _read_tables(self, tables: Sequence[str], columns: Sequence[str] | None) -> None:
        stems = {_stem(path): path for path in self._paths}
        by_name: dict[str, list[str]] = defaultdict(list)
        for stem in stems:
            by_name[stem.rpartition("/")[2]].append(stem)
        # The nearest table comes last, and goes before those above it.
        for path in sorted(tables, key=lambda path: (path.count("/"), path)):
            table = parse_table(read_texts(self._tree, path, self._encoding), path, columns)
            folder = compared(path.rpartition("/")[0])
            missed, shared = [], []
            for row in table.rows:
                fits = _fits(folder, _stem(row.name), stems, by_name)
                if len(fits) == 1:
                    self._give(fits[0], _Given(path, row))
                elif fits:
                    shared.append((row, [stems[stem] for stem in fits]))
                else:
                    missed.append(row)
            if table.note:
                self._notes.append(f"{path}: {table.note}")
            if shared:
                row, fits = shared[0]
                more = f" and {len(fits) - _NAMED:,} more" if len(fits) > _NAMED else ""
                self._notes.append(
                    f"warning: {path}: {_counted(len(shared), 'name')} of several files, none of which gets a text; "
                    f"first: line {row.line:,} {row.name!r} fits {', '.join(map(repr, fits[:_NAMED]))}{more}; "
                    "write paths"
                )
            if missed:
                self._notes.append(
                    f"{path}: {_counted(len(missed), 'line')} of {len(table.rows):,} fit no file; "
                    f"first: line {missed[0].line:,} {missed[0].name!r}"
                )

    def _give(self, stem: str, given: _Given) -> None:
        """Note what a table says of a file.

        Raises
        ------
        ParameterError
            A table of the same folder says something else.
        """
        for known, field in ((self._texts, "text"), (self._speakers, "speaker_id")):
            said = getattr(given.row, field)
            if not said:
                continue
            before = known.get(stem)
            beside = before is not None and before.table.rpartition("/")[0] == given.table.rpartition("/")[0]
            if before is not None and beside and getattr(before.row, field) != said:
                raise ParameterError(
                    "root",
                    f"must hold one {field.removesuffix('_id')} for each utterance, got two for {stem!r}: "
                    f"{getattr(before.row, field)!r} ({before.place}) and {said!r} ({given.place}); remove one",
                )
            known[stem] = given


def _stem(path: str) -> str:
    return stem_of(compared(path))


def _companions(
    files: Iterable[SourceFile],
) -> tuple[dict[str, tuple[int, SourceFile]], dict[tuple[str, str], SourceFile]]:
    """Return the files of one text each, by the path that a recording has, or would have.

    Returns
    -------
    beside : dict of str to (int, SourceFile)
        By path without suffix, with the rank of the suffix.
    parallel : dict of (str, str) to SourceFile
        Those in a folder of texts, by the path to that folder and the path below it.
    """
    beside: dict[str, tuple[int, SourceFile]] = {}
    for file in files:
        path = compared(file.path).rstrip()
        lower = path.lower()
        if not lower.endswith(_COMPANIONS) or _TABLE.fullmatch(path):
            continue
        rank, suffix = next((rank, end) for rank, end in enumerate(_COMPANIONS) if lower.endswith(end))
        stem = path[: -len(suffix)]
        # Paths are sorted, so ".txt" comes after ".TXT", and goes before it.
        if stem not in beside or rank <= beside[stem][0]:
            beside[stem] = rank, file
    parallel = {}
    for stem, (_, file) in beside.items():
        parts = stem.split("/")
        for index, part in enumerate(parts[:-1]):
            if part.lower() in _TEXT_FOLDERS:
                parallel["/".join(parts[:index]), "/".join(parts[index + 1 :])] = file
    return beside, parallel


def companion_text(content: str) -> str:
    r"""Return the text in a file of one text, without TIMIT's sample numbers; "" if it has labels.

    A ``.lab`` may hold a text, or labels of one line each with the times where they begin and end.

    >>> companion_text("0 46797 She had\nyour dark suit.\n"), companion_text("0 50 sil\n50 97 h#\n")
    ('She had your dark suit.', '')
    """
    found = [line.strip() for _, line in lines(content)]
    if len(found) > 1 and all(map(_TIMED_LABEL.match, found)):
        return ""
    text = collapsed(content)
    return _SAMPLE_NUMBERS.sub("", text, count=1) if _SAMPLE_NUMBERS.match(text) else text


def _fits(folder: str, name: str, stems: Mapping[str, str], by_name: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the utterances that a name in a table of a folder fits, by path or by the end of it."""
    below = f"{folder}/" if folder else ""
    if below + name in stems:
        return [below + name]
    end = f"/{name}"
    return [
        stem for stem in by_name.get(name.rpartition("/")[2], ()) if stem.startswith(below) and f"/{stem}".endswith(end)
    ]


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
