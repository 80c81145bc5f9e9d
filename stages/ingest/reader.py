"""What a corpus reader is, and all of them by name.

A reader is a stage that finds the utterances of a corpus and says what they are.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import re
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, ClassVar, NamedTuple, TypeGuard

import numpy as np

from melmill.stages.blame import blame, is_of_file
from melmill.stages.contract import CorpusTree, Discovery, Input, Mel, Outcome, Product, Waveform
from melmill.stages.errors import CorpusUnreadable
from melmill.stages.ingest.facts import Facts
from melmill.stages.ingest.known import KeptFiles, Known, label_state, utterances_of
from melmill.stages.ingest.names import AUDIO, suffix_of
from melmill.stages.ingest.passed_over import unreadable
from melmill.stages.ingest.texts.decoding import check_encoding
from melmill.stages.ingest.texts.decoding import read_texts as read_texts
from melmill.stages.numeric.checks import check_texts
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.plugins import Registry
from melmill.storage.utterance import ARCHIVE_SUFFIXES, Labels, SourceFile, Utterance, resampled_length

# Files that are compared with the catalogue at a time.
_COMPARED = 16_384


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


class Annotator(ABC):
    """Add what takes reading to utterances, and know when that must be read again.

    A reader may return a plain function instead. It is asked for every utterance at every plan.
    """

    has_tables = False
    """Whether there is a table that should give texts."""

    @abstractmethod
    def __call__(self, entry: CorpusFile) -> CorpusFile:
        """Return an utterance with its texts and its speaker."""

    def stamp(self, entry: CorpusFile) -> int:
        """Return a number that changes with the files that say what is added; see `stamp_of`.

        While it is the same, the catalogue is believed and the files are not read. With 0 the
        utterance is asked for at every plan, which suits what a few tables say.
        """
        del entry
        return 0

    def notes(self, n_texts: int) -> Sequence[str]:
        """Return what a person should know, a line each, when so many utterances have texts."""
        del n_texts
        return ()


def stamp_of(files: Iterable[SourceFile], *settings: object) -> int:
    """Return a number that changes with the path, the size or the time of a file, or a setting."""
    said = [*((file.path, file.size_bytes, file.mtime_ns) for file in files), *settings]
    return int.from_bytes(hashlib.blake2b(repr(said).encode("utf-8", "surrogatepass"), digest_size=7).digest()) + 1


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
    encoding : str or None
        Encoding of text files that are not UTF-8, such as ``latin-1``. UTF-16 with a byte order
        mark needs no word.
    """

    root: str = field(metadata={"place": True})
    subsets: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None
    encoding: str | None = None

    uses: ClassVar[str]
    version: ClassVar[int]
    inputs: ClassVar[Mapping[str, Input]] = {}
    expects: ClassVar[str]
    """What it expects below the root, for messages and documentation."""
    title: ClassVar[str] = ""
    """Name of the corpus or the format that it reads."""
    facts: ClassVar[Facts | None] = None
    """What is known of the published corpus that it reads."""

    def __post_init__(self) -> None:
        """Check the fields."""
        if not self.root or not isinstance(self.root, str | PathLike):
            raise ParameterError("root", f"must be the folder of the corpus, got {self.root!r}")
        for name, what, example in (("subsets", "subset", "dev-clean"), ("files", "pattern", "*.flac")):
            value = getattr(self, name)
            if value is not None:
                check_texts(name, value, example)
                if not value:
                    raise ParameterError(name, f"must name at least one {what}, or be left out for all, got []")
        check_encoding(self.encoding)

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen; where the corpus lies and what its texts are decide nothing."""
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

    @classmethod
    def recognise_files(cls, root: str, paths: Sequence[str]) -> Mapping[str, Any] | None:
        """Return the fields that read a folder which holds a description of recordings; else None.

        It is asked where `recognise` finds no corpus. Parameters are as there, with all files.
        """
        del root, paths
        return None

    def listed(self, tree: CorpusTree) -> Iterable[SourceFile]:
        """Return the files that `find` chooses from: all below the root."""
        return tree.walk()

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

    def annotate(
        self, tree: CorpusTree, files: Sequence[SourceFile], chosen: Sequence[CorpusFile]
    ) -> Annotate | Annotator:
        """Return what adds all that takes reading, such as texts and speakers.

        Texts may change after the first run. So every plan asks for each utterance, unless an
        `Annotator` says that its files are as they were.

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
            A file of texts can't be read or decoded, or it is not certain what it says.
        """
        return lambda entry: entry

    @abstractmethod
    def ingest(self, utterance: Utterance, data: bytes) -> Outcome:
        """Return the array in the bytes of a file; an exception quarantines the utterance."""

    @abstractmethod
    def claims(self, tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
        """Return rate (Hz) and length (samples) that a file claims; zeros if it claims none.

        An OSError goes through. Where it is the file's own, the file claims nothing. Any other ends
        the plan.
        """

    def can_read(self, path: str) -> bool:
        """Tell whether this process can read a file that `find` returned, by its name.

        One that it can't is passed over, unless it is catalogued already.
        """
        del path
        return True

    def passed_over(self, files: Sequence[SourceFile], entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return a line for each kind of files that look wanted but are no utterances.

        Parameters
        ----------
        files : sequence of SourceFile
            All files below the root.
        entries : sequence of CorpusFile
            What `find` returned.
        """
        del files, entries
        return ()

    def left_out(self, entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return a line for each kind of files that `find` returned and `can_read` refused."""
        del entries
        return ()

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
            Without the utterances that a `melmill.stages.ingest.known.Known` has kept. A file that
            claims no length that can be believed has the length 0; ingestion says why.

        Raises
        ------
        ParameterError
            There are no utterances, a subset is missing, a pattern matches nothing, an id occurs
            twice, or a file of texts can't be read.
        CorpusUnreadable
            This machine can't read a file.
        """
        listed = list(self.listed(tree))
        files = [file for file in listed if not file.problem]
        made = self.find(tree, files)
        found = made if isinstance(made, list) else list(made)
        unread = [entry.path for entry in found if not self.can_read(entry.path)]
        refused = {path for path, one in zip(unread, utterances_of(known, unread), strict=True) if one is None}
        entries = [entry for entry in found if entry.path not in refused]
        left_out = self.left_out([entry for entry in found if entry.path in refused])
        notes = [*unreadable(listed), *left_out, *self.passed_over(files, found)]
        if not entries:
            also = "".join(f"; {note}" for note in notes)
            hint = looks_like(self.root, files, self.uses)
            raise ParameterError(
                "root",
                f"must hold {self.expects}, got {self.root!r} with none among {len(files):,} files{hint}{also}",
            )
        chosen = self._chosen(entries, known)
        self._check_unique(chosen)
        annotate = self.annotate(tree, files, chosen)
        sr, tally, labels = self.produces({}).sr, _Tally(), dict[str, Labels]()
        further = _not_kept(known, chosen, annotate, tally) if isinstance(known, Known) else list(enumerate(chosen))
        utterances: list[Utterance] = []
        new: list[Utterance] = []
        catalogued = utterances_of(known, [entry.path for _, entry in further])
        for (place, entry), before in zip(further, catalogued, strict=True):
            was = before.labels if before else None
            now = _labels(annotate, entry, was)
            if before and now != was:
                labels[before.utterance_id] = now
            one = self._measured(tree, entry, sr, before, now)
            utterances.append(one)
            if before is None:
                new.append(one)
            tally.add(place, entry.path, now.text, one.source_sr)
        notes += _text_notes(annotate, len(chosen), tally)
        notes += self.remarks(tree, new, tally.rates)
        return Discovery(utterances=utterances, notes=tuple(notes), labels=labels)

    def remarks(self, tree: CorpusTree, new: Sequence[Utterance], rates: Mapping[int, int]) -> Sequence[str]:
        """Return what else a person should know of a corpus, a line each.

        Parameters
        ----------
        tree : CorpusTree
        new : sequence of Utterance
            Those that are not catalogued.
        rates : mapping of int to int
            How many of the utterances, new or not, have each rate, Hz. 0: they claim none.
        """
        del tree, new, rates
        return ()

    def _measured(
        self, tree: CorpusTree, entry: CorpusFile, sr: int, before: Utterance | None, now: Labels
    ) -> Utterance:
        """Return the utterance of a file: as it is catalogued if the file is as it was."""
        file = entry.file
        if before and (before.size_bytes, before.mtime_ns, before.sr) == (file.size_bytes, file.mtime_ns, sr):
            return before
        source_sr, source_n_samples = self._claimed(tree, file)
        if source_sr < 1 or source_n_samples < 1:
            source_sr = source_n_samples = 0
        return Utterance(
            utterance_id=entry.utterance_id,
            subset=entry.subset,
            chapter_id=entry.chapter_id,
            path=entry.path,
            size_bytes=file.size_bytes,
            mtime_ns=file.mtime_ns,
            source_sr=source_sr,
            source_n_samples=source_n_samples,
            sr=sr,
            n_samples=resampled_length(source_n_samples, source_sr, sr) if source_n_samples else 0,
            **now._asdict(),
        )

    def _claimed(self, tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
        """Return what `claims` does; zeros if the file is gone or locked.

        Raises
        ------
        CorpusUnreadable
            The machine can't read it.
        """
        try:
            return self.claims(tree, file)
        except (OSError, MemoryError) as error:
            if isinstance(error, OSError) and is_of_file(error):
                return 0, 0
            raise unreadable_here(self.root, file.path, error) from error

    def _chosen(self, entries: Sequence[CorpusFile], known: Mapping[str, Utterance]) -> Sequence[CorpusFile]:
        """Return the files of the wanted subsets whose path matches a pattern.

        A subset or a pattern may choose nothing any more. Then its files are gone, which is no
        mistake in a name.
        """
        if self.subsets is not None:
            present = sorted({entry.subset for entry in entries} - {""})
            for subset in self.subsets:
                if subset not in present and all(one.subset != subset for one in known.values()):
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
            if not matching and not any(map(matches, known)):
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


def unreadable_here(root: str, path: str, error: OSError | MemoryError) -> CorpusUnreadable:
    """Return the error for a corpus that this machine can't read, though its files may be whole."""
    verdict = blame(error)
    remedy = f"; {verdict.remedy}" if verdict.remedy else ""
    reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
    return CorpusUnreadable(f"can't read {path!r} of {root!r} here: {reason}{remedy}, and plan again")


@dataclass
class _Tally:
    """Count the utterances of a corpus.

    Parameters
    ----------
    rates : Counter of int
        Utterances by their rate, Hz.
    n_without : int
        Utterances without a text.
    first_without : (int, str)
        Place among the utterances, and path, of the first of them.
    """

    rates: Counter[int] = field(default_factory=Counter)
    n_without: int = 0
    first_without: tuple[int, str] = (sys.maxsize, "")

    def add(self, place: int, path: str, text: str, source_sr: int) -> None:
        """Count an utterance."""
        self.rates[source_sr] += 1
        if not text:
            self.n_without += 1
            self.first_without = min(self.first_without, (place, path))

    def add_kept(self, first: int, some: Sequence[CorpusFile], kept: KeptFiles) -> None:
        """Count the utterances that are kept of some, of which the first has the given place."""
        rates, counts = np.unique(kept.source_sr[kept.kept], return_counts=True)
        self.rates.update(dict(zip(rates.tolist(), counts.tolist(), strict=True)))
        without = np.flatnonzero(kept.kept & ~kept.has_text).tolist()
        self.n_without += len(without)
        if without:
            self.first_without = min(self.first_without, (first + without[0], some[without[0]].path))


def _not_kept(
    known: Known, chosen: Sequence[CorpusFile], annotate: Annotate | Annotator, tally: _Tally
) -> list[tuple[int, CorpusFile]]:
    """Keep the files that are as catalogued, and count them; return the others with their places."""
    others: list[tuple[int, CorpusFile]] = []
    for first in range(0, len(chosen), _COMPARED):
        some = chosen[first : first + _COMPARED]

        def state_of(i: int, some: Sequence[CorpusFile] = some) -> int:
            return label_state(some[i].utterance_id, _labels(annotate, some[i], None, reading=False))

        kept = known.keep_labelled([entry.file for entry in some], state_of)
        tally.add_kept(first, some, kept)
        others += [(first + i, some[i]) for i in np.flatnonzero(~kept.kept).tolist()]
    return others


def _labels(annotate: Annotate | Annotator, entry: CorpusFile, was: Labels | None, *, reading: bool = True) -> Labels:
    """Return what a corpus says of an utterance, without reading what has not changed.

    Unless `reading`, the labels of an utterance with a stamp are left empty.
    """
    stamp = annotate.stamp(entry) if isinstance(annotate, Annotator) else 0
    if was and stamp and was.text_stamp == stamp:
        return was
    said = annotate(entry) if reading or not stamp else CorpusFile(entry.file, entry.utterance_id)
    return Labels(said.text, said.speaker_id, said.sex, said.speaker_name, stamp)


def _text_notes(annotate: Annotate | Annotator, n_utterances: int, tally: _Tally) -> Iterator[str]:
    """Yield how many utterances have texts, and why others have none, if there is any sign of texts."""
    n_texts = n_utterances - tally.n_without
    asked = annotate if isinstance(annotate, Annotator) else None
    notes = asked.notes(n_texts) if asked else ()
    if n_texts or notes or (asked and asked.has_tables):
        first = f"; first without: {tally.first_without[1]!r}" if tally.n_without else ""
        yield f"{n_texts:,} of {n_utterances:,} utterances have texts{first}"
    yield from notes


def looks_like(root: str, files: Sequence[SourceFile], uses: str = "") -> str:
    """Return what a message says of files that another reader reads, or ``""``.

    Parameters
    ----------
    root : str
    files : sequence of SourceFile
    uses : str
        The reader that finds nothing in them.
    """
    paths = [file.path for file in files]
    audio = [path for path in paths if suffix_of(path) in AUDIO]
    for reader in READERS.values():
        fields = (audio and reader.recognise(root, audio)) or reader.recognise_files(root, paths)
        if fields and reader.uses != uses:
            return f"; this looks like {reader.title or reader.uses}: use uses: {reader.uses}"
    if audio:
        return "; audio_folder reads any folder of audio" if uses != "audio_folder" else ""
    unfinished = next((path for path in paths if path.endswith((".part", ".crdownload", ".aria2", ".download"))), None)
    if unfinished:
        return f"; {unfinished!r} is a download that is not finished: finish it"
    archive = next((path for path in paths if path.lower().endswith(ARCHIVE_SUFFIXES)), None)
    return f"; it holds the archive {archive!r}: say root: {root}/{archive} to read that" if archive else ""


def _is_reader(value: object) -> TypeGuard[type[Reader]]:
    return isinstance(value, type) and issubclass(value, Reader) and "uses" in vars(value)


READERS: Registry[type[Reader]] = Registry(
    "reader",
    package="melmill.stages.ingest.readers",
    group="melmill.readers",
    is_one=_is_reader,
    name_of=lambda reader: reader.uses,
    order=lambda reader: (0, reader.uses),
    nested=True,
)
"""All readers by the name of their stage."""
