"""What a corpus reader is, and all of them by name.

A reader is a stage that finds the utterances of a corpus and says what they are.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeGuard

from melmill.stages.contract import CorpusTree, Discovery, Input, Mel, Outcome, Product, Waveform
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.plugins import Registry
from melmill.storage.utterance import SourceFile, Utterance, resampled_length

# Files that a note names.
NAMED = 5
# Characters that a note shows of a path.
_SHOWN = 120


class CorpusFile(NamedTuple):
    """Hold a file that is an utterance, and what the corpus says of it, empty for nothing."""

    file: SourceFile
    utterance_id: str
    subset: str = ""
    speaker_id: str = ""
    chapter_id: str = ""
    text: str = ""
    sex: str = ""
    speaker_name: str = ""

    @property
    def path(self) -> str:
        """Path below the root of the corpus."""
        return self.file.path


Annotate = Callable[[CorpusFile], CorpusFile]


@dataclass(frozen=True, kw_only=True)
class Reader(ABC):
    """Read a corpus.

    A reader is an ingest stage. It says with `find` which files are utterances, and with `annotate`
    what other files say of them. `AudioReader` and `FolderReader` have the rest of a stage, and
    choosing, checking and cataloguing are the same for all.

    Parameters
    ----------
    root : str
        Folder or URL of the corpus.
    subsets : tuple of str or None
        Names of the subsets wanted; None: all.
    files : tuple of str or None
        Patterns of the paths wanted, below the root (``*-000[34].flac``); None: all. ``*`` matches
        any text, ``/`` too.
    """

    root: str = field(metadata={"place": True})
    subsets: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None

    uses: ClassVar[str]
    version: ClassVar[int]
    inputs: ClassVar[Mapping[str, Input]] = {}
    expects: ClassVar[str]
    """What it expects below the root, for messages and documentation."""

    def __post_init__(self) -> None:
        """Check the fields."""
        if not self.root:
            raise ParameterError("root", "must be the folder of the corpus, got ''")
        for name, what in (("subsets", "subset"), ("files", "pattern")):
            if getattr(self, name) == ():
                raise ParameterError(name, f"must name at least one {what}, or be left out for all, got []")

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen; where the corpus lies decides nothing."""
        chosen = {"subsets": None if self.subsets is None else sorted(set(self.subsets))}
        # Absent rather than None, so that keys of products from before there were patterns stay.
        return chosen if self.files is None else {**chosen, "files": sorted(set(self.files))}

    @classmethod
    def recognise(cls, root: str, paths: Sequence[str]) -> Mapping[str, Any] | None:
        """Return the fields that read a folder whose files are mostly of this corpus; else None.

        `melmill init` asks every reader. One that returns None can still be named in a pipeline.

        Parameters
        ----------
        root : str
            Absolute path, or URL.
        paths : sequence of str
            Paths of all audio files below it.
        """
        del root, paths
        return None

    @abstractmethod
    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Waveform | Mel:
        """Describe what is stored: waveforms or mels, with a catalogue."""

    @abstractmethod
    def find(self, tree: CorpusTree, files: Sequence[SourceFile]) -> Iterable[CorpusFile]:
        """Return the files that are utterances, and what their paths say of them.

        Parameters
        ----------
        tree : CorpusTree
            Reads files below the root.
        files : sequence of SourceFile
            All files below the root, sorted by path; others than utterances are passed over.

        Raises
        ------
        ParameterError
            The files do not make up one corpus.
        """

    def left_out(self, files: Sequence[SourceFile], found: Sequence[CorpusFile]) -> Iterable[str]:
        """Return what a person should know of files that are no utterances by their names.

        Parameters
        ----------
        files : sequence of SourceFile
            All files below the root.
        found : sequence of CorpusFile
            What `find` returned.
        """
        del files, found
        return ()

    def annotate(self, tree: CorpusTree, files: Sequence[SourceFile], chosen: Sequence[CorpusFile]) -> Annotate:
        """Return a function that adds what takes reading, such as texts and speakers.

        It is called only for files that are not catalogued yet.

        Parameters
        ----------
        tree : CorpusTree
        files : sequence of SourceFile
            All files below the root.
        chosen : sequence of CorpusFile
            The utterances that are wanted.

        Raises
        ------
        ParameterError
            A file of texts can't be read.
        """
        return lambda entry: entry

    @abstractmethod
    def ingest(self, utterance: Utterance, data: bytes) -> Outcome:
        """Return the array in the bytes of a file; an exception quarantines the utterance."""

    @abstractmethod
    def claims(self, tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
        """Return rate (Hz) and length (samples) that a file claims; zeros if it claims none."""

    def discover(self, tree: CorpusTree, known: Mapping[str, Utterance]) -> Discovery:
        """Return the utterances of the corpus that are wanted, sorted by path, and notes on it.

        Only headers and texts are read.

        Parameters
        ----------
        tree : CorpusTree
        known : mapping of str to Utterance
            Utterances catalogued earlier, by path. One whose file has the same size and time is
            taken as it is.

        Returns
        -------
        Discovery
            A file that claims no length that can be believed has the length 0; ingestion says why.

        Raises
        ------
        ParameterError
            There are no utterances, a subset is missing, a pattern matches nothing, an id occurs
            twice, or a file of texts can't be read.
        """
        listed = list(tree.walk())
        files, notes = [file for file in listed if not file.problem], list(passed_over(listed))
        entries = list(self.find(tree, files))
        if not entries:
            also = "".join(f"; {note}" for note in notes)
            raise ParameterError(
                "root", f"must hold {self.expects}, got {self.root!r} with none among {len(files):,} files{also}"
            )
        notes += self.left_out(files, entries)
        chosen = self._chosen(entries)
        self._check_unique(chosen)
        annotate, sr = self.annotate(tree, files, chosen), self.produces({}).sr
        utterances = []
        for entry in chosen:
            before, file = known.get(entry.path), entry.file
            if before and (before.size_bytes, before.mtime_ns, before.sr) == (file.size_bytes, file.mtime_ns, sr):
                utterances.append(before)
                continue
            said = annotate(entry)
            source_sr, source_n_samples = self.claims(tree, file)
            if source_sr < 1 or source_n_samples < 1:
                source_sr = source_n_samples = 0
            utterances.append(
                Utterance(
                    utterance_id=said.utterance_id,
                    subset=said.subset,
                    speaker_id=said.speaker_id,
                    chapter_id=said.chapter_id,
                    text=said.text,
                    path=said.path,
                    size_bytes=file.size_bytes,
                    mtime_ns=file.mtime_ns,
                    source_sr=source_sr,
                    source_n_samples=source_n_samples,
                    sr=sr,
                    n_samples=resampled_length(source_n_samples, source_sr, sr) if source_n_samples else 0,
                    sex=said.sex,
                    speaker_name=said.speaker_name,
                )
            )
        return Discovery(utterances=utterances, notes=tuple(notes))

    def _chosen(self, entries: Sequence[CorpusFile]) -> Sequence[CorpusFile]:
        """Return the files of the wanted subsets whose path matches a pattern."""
        if self.subsets is not None:
            present = sorted({entry.subset for entry in entries} - {""})
            for subset in self.subsets:
                if subset not in present:
                    near = difflib.get_close_matches(subset, present, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    raise ParameterError(
                        "subsets",
                        f"must be in {self.root!r}, got {subset!r}{hint} (there: {', '.join(present) or 'none'})",
                    )
            entries = [entry for entry in entries if entry.subset in self.subsets]
        if self.files is None:
            return entries
        chosen: set[str] = set()
        for pattern in self.files:
            matches = re.compile(fnmatch.translate(pattern)).match
            matching = [entry.path for entry in entries if matches(entry.path)]
            if not matching:
                raise ParameterError(
                    "files",
                    f"must match files in {self.root!r}, got {pattern!r}, which matches none of its {len(entries):,} "
                    f"utterances; their paths read like {entries[0].path!r}",
                )
            chosen.update(matching)
        return [entry for entry in entries if entry.path in chosen]

    def _check_unique(self, chosen: Iterable[CorpusFile]) -> None:
        seen: dict[str, str] = {}
        for entry in chosen:
            first = seen.setdefault(entry.utterance_id, entry.path)
            if first != entry.path:
                pattern = f"*.{first.rpartition('.')[2]}"
                raise ParameterError(
                    "root",
                    f"must name each utterance once, got {entry.utterance_id!r} twice in {self.root!r}: {first} and "
                    f"{entry.path}; rename one, or choose with subsets or files, say files: {pattern!r}",
                )


def passed_over(files: Iterable[SourceFile]) -> Iterator[str]:
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


def read_texts(tree: CorpusTree, path: str) -> str:
    """Return the content of a file of texts; raise ParameterError where it can't be read."""
    try:
        data = tree.read(path)
    except OSError as error:
        raise ParameterError("root", f"must hold readable transcripts, got {path!r}: {error.strerror}") from error
    # A stray byte in one transcript must not end the discovery of a whole corpus.
    return data.decode("utf-8-sig", errors="replace")


def _is_reader(value: object) -> TypeGuard[type[Reader]]:
    return isinstance(value, type) and issubclass(value, Reader) and "uses" in vars(value)


READERS: Registry[type[Reader]] = Registry(
    "reader",
    package="melmill.stages.ingest.readers",
    group="melmill.readers",
    is_one=_is_reader,
    name_of=lambda reader: reader.uses,
    order=lambda reader: (0, reader.uses),
)
"""All readers by the name of their stage."""
