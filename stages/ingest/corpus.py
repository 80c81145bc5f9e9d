"""Readers of published corpora: files of known names, texts in known tables, facts of the corpus."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from sys import intern
from typing import Any, ClassVar, NamedTuple

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.decode import AudioReader
from melmill.stages.ingest.names import AUDIO, is_hidden, suffix_of
from melmill.stages.ingest.passed_over import count_suffixes, hidden, note, some_of
from melmill.stages.ingest.reader import Annotator, CorpusFile, stamp_of
from melmill.stages.ingest.texts.decoding import lines, one_line, read_texts
from melmill.storage.utterance import SourceFile

# Tables of a corpus that are compared with its files: others have a table for each.
_MOST_COMPARED = 64


class Said(NamedTuple):
    """Hold what tables of a corpus say of an utterance or of a speaker."""

    text: str = ""
    speaker_id: str = ""
    sex: str = ""
    speaker_name: str = ""


@dataclass(frozen=True, kw_only=True)
class CorpusReader(AudioReader):
    """Read a published corpus; for the fields see `melmill.stages.ingest.decode.AudioReader`."""

    pattern: ClassVar[re.Pattern[str]]
    """Paths of its recordings, below any folders, with groups ``id``, ``speaker``, ``chapter``, ``subset``."""

    @classmethod
    def recognise(cls, root: str, paths: Sequence[str]) -> Mapping[str, Any] | None:
        """Return the root if most files are named as those of the corpus."""
        n = sum(1 for path in paths if cls.pattern.fullmatch(path))
        return {"root": root} if n and 2 * n >= len(paths) else None

    def find(self, tree: CorpusTree, files: Sequence[SourceFile]) -> list[CorpusFile]:
        """Return the files that are named like recordings of the corpus."""
        del tree
        found = ((file, self.pattern.fullmatch(file.path)) for file in files if not is_hidden(file.path))
        return [entry for file, match in found if match and (entry := self.entry(file, match))]

    def entry(self, file: SourceFile, match: re.Match[str]) -> CorpusFile | None:
        """Return the utterance of a file whose path matches; None to pass it over."""
        said = match.groupdict(default="")
        levels = {name: intern(said.get(name, "")) for name in ("subset", "speaker", "chapter")}
        return CorpusFile(file, said["id"], levels["subset"], levels["speaker"], levels["chapter"])

    def passed_over(self, files: Sequence[SourceFile], entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return lines on audio that is named otherwise, and on hidden files."""
        taken = {entry.path for entry in entries}
        suffixes = {suffix_of(path) for path in taken}
        others = [file.path for file in files if suffix_of(file.path) in suffixes and file.path not in taken]
        others = [path for path in others if not is_hidden(path) and not self.is_left_out(path)]
        notes = [f"{len(others):,} passed over, not named as in {self.title}: {some_of(others)}"] if others else []
        counts = count_suffixes(files, AUDIO - suffixes, taken)
        unread = [note(counts, f"are audio by their names but not of {self.title}", "audio_folder reads them")]
        return [*notes, *hidden(files, suffixes), *(unread if counts else [])]

    def is_left_out(self, path: str) -> bool:
        """Tell whether a file of the corpus is passed over on purpose; `passed_over` counts it by itself."""
        del path
        return False

    def annotate(self, tree: CorpusTree, files: Sequence[SourceFile], chosen: Sequence[CorpusFile]) -> Annotator:
        """Return what adds texts and speakers from the tables of the corpus."""
        return CorpusTexts(self, tree, files, chosen)

    @abstractmethod
    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of the tables that say something of utterances."""

    def table_of(self, entry: CorpusFile, tables: Collection[str]) -> Iterable[str]:
        """Return those of the tables that may say something of an utterance: all, unless overridden."""
        del entry
        return tables

    @abstractmethod
    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield what a table says, by the id of an utterance."""

    def speakers(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of the tables that say something of speakers: none, unless overridden."""
        del files
        return ()

    def parse_speakers(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield what a table says, by the id of a speaker."""
        del path, content
        yield from ()


class CorpusTexts(Annotator):
    """Add what the tables of a corpus say. Each is read once, when it is first needed."""

    def __init__(
        self, reader: CorpusReader, tree: CorpusTree, files: Sequence[SourceFile], chosen: Sequence[CorpusFile]
    ) -> None:
        self._reader, self._tree = reader, tree
        self._stats = {file.path: file for file in files}
        # A set that keeps its order.
        self._tables = dict.fromkeys(reader.tables(files)).keys()
        self._speaker_tables = list(reader.speakers(files))
        self._of_speakers: dict[str, Said] | None = None
        self._read = cache(self._parsed)
        # What a corpus itself may be asked for chooses its texts too, and all change with it.
        common = {one.name for one in fields(AudioReader)}
        self._settings = [getattr(reader, one.name) for one in fields(reader) if one.name not in common]
        self._chosen = {entry.utterance_id for entry in chosen}
        self.has_tables = bool(self._tables)

    def stamp(self, entry: CorpusFile) -> int:
        """Return a number for the tables that say something of the utterance."""
        paths = [*self._reader.table_of(entry, self._tables), *self._speaker_tables]
        if not paths:
            return 0
        return stamp_of((self._stats[path] for path in paths), self._reader.encoding, *self._settings)

    def __call__(self, entry: CorpusFile) -> CorpusFile:
        """Return an utterance with its text and its speaker."""
        for path in self._reader.table_of(entry, self._tables):
            said = self._read(path).get(entry.utterance_id)
            if said is not None:
                entry = entry._replace(
                    text=said.text or entry.text,
                    speaker_id=said.speaker_id or entry.speaker_id,
                    sex=said.sex or entry.sex,
                    speaker_name=said.speaker_name or entry.speaker_name,
                )
                if said.text:
                    break
        if self._speaker_tables:
            speaker = self._all_speakers().get(entry.speaker_id)
            if speaker is not None:
                entry = entry._replace(
                    sex=speaker.sex or entry.sex, speaker_name=speaker.speaker_name or entry.speaker_name
                )
        return entry

    def notes(self, n_texts: int) -> Sequence[str]:
        """Return a line for each table that names recordings which are not there, if all are wanted."""
        del n_texts
        reader = self._reader
        if reader.subsets is not None or reader.files is not None or len(self._tables) > _MOST_COMPARED:
            return ()
        notes = []
        for path in self._tables:
            absent = [name for name in self._read(path) if name not in self._chosen]
            if absent:
                notes.append(
                    f"{path}: {len(absent):,} of {len(self._read(path)):,} lines name recordings that are not there; "
                    f"first: {absent[0]!r}"
                )
        return notes

    def _parsed(self, path: str) -> dict[str, Said]:
        content = read_texts(self._tree, path, self._reader.encoding)
        return dict(self._reader.parse(path, content))

    def _all_speakers(self) -> Mapping[str, Said]:
        if self._of_speakers is None:
            contents = ((path, read_texts(self._tree, path, self._reader.encoding)) for path in self._speaker_tables)
            self._of_speakers = {
                name: said for path, content in contents for name, said in self._reader.parse_speakers(path, content)
            }
        return self._of_speakers


def separated(content: str, mark: str | None, n: int) -> Iterator[list[str]]:
    r"""Yield the fields of each line of at least `n`, without blanks around them.

    Parameters
    ----------
    content : str
    mark : str or None
        What separates fields; None: blanks, of which the first `n` - 1 runs do.
    n : int

    >>> list(separated("a|b|c\nd\n", "|", 2)), list(separated("a b c\n", None, 2))
    ([['a', 'b', 'c']], [['a', 'b c']])
    """
    for _, line in lines(content):
        fields = line.split(maxsplit=n - 1) if mark is None else line.split(mark)
        if len(fields) >= n:
            yield [one_line(field) for field in fields]


def named(files: Sequence[SourceFile], pattern: str) -> list[str]:
    """Return the paths that a pattern matches below any folders, without hidden ones."""
    matches = re.compile(rf"(?:.*/)?(?:{pattern})", re.DOTALL).fullmatch
    return [file.path for file in files if matches(file.path) and not is_hidden(file.path)]


def below(pattern: str) -> re.Pattern[str]:
    """Return a pattern of paths below any folders."""
    return re.compile(rf"(?s:.*/)?{pattern}")
