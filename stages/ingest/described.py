"""Readers of recordings that files describe: manifests, data folders, tables and shards."""

from __future__ import annotations

import gzip
import json
import posixpath
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.decode import AudioReader
from melmill.stages.ingest.folder import utterance_id
from melmill.stages.ingest.names import stem_of
from melmill.stages.ingest.parts import Part, Span, file_of
from melmill.stages.ingest.reader import CorpusFile
from melmill.stages.ingest.texts.decoding import decoded, lines, one_line
from melmill.stages.numeric.checks import shown
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.utterance import SourceFile

# A segment may end so much after its recording: times are rounded, s. It is cut at the end.
TOLERANCE_S = 0.05
_NAMED = 3


class Described(NamedTuple):
    """Hold what a description says of one utterance; texts are ``""`` where it says nothing.

    Parameters
    ----------
    where : str
        Place in the description, for messages: ``wav.scp:7``.
    id, audio : str
        Id, and the path of the recording as they are written. Without an id it is made of the path, and
        of the first sample of a segment.
    folder : str
        Folder of the description below the root, to which paths are relative.
    span : Span or None
        Which part of the recording it is; None: all of it.
    channel : int or None
        Number of its channel, from 0.
    file : SourceFile or None
        The recording, where the description holds it.
    """

    where: str
    id: str
    audio: str
    folder: str = ""
    text: str = ""
    speaker_id: str = ""
    sex: str = ""
    speaker_name: str = ""
    subset: str = ""
    chapter_id: str = ""
    span: Span | None = None
    channel: int | None = None
    file: SourceFile | None = None


@dataclass
class Tally:
    """Count what of a description is passed over, by the reason, and keep what else is to be said."""

    passed: dict[str, list[str]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def skip(self, reason: str, what: str) -> None:
        """Count something that is passed over."""
        self.passed.setdefault(reason, []).append(what)

    def notes(self) -> Iterator[str]:
        """Yield a line for each reason, with the first that it is true of."""
        for reason, what in self.passed.items():
            more = f" and {len(what) - _NAMED:,} more" if len(what) > _NAMED else ""
            yield f"{len(what):,} passed over, {reason}: {', '.join(what[:_NAMED])}{more}"
        yield from self.said


class Found(list[CorpusFile]):
    """Hold the utterances of a description, and what a person should know of it."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DescribedReader(AudioReader):
    """Read recordings that a description names; for the fields see `melmill.stages.ingest.decode.AudioReader`.

    Recordings that it names and that are not there are passed over, and counted. So are segments that
    are no part of their recordings. The samples of an utterance are exactly those from its first to its
    last: a recording of another rate is cut first, and then resampled.
    """

    where_field: ClassVar[str] = "manifest"
    """The field that says where the description lies, for messages."""

    @abstractmethod
    def describe(self, tree: CorpusTree, files: Sequence[SourceFile], tally: Tally) -> Iterable[Described]:
        """Yield what the description says of each utterance, and count what it can't say.

        Raises
        ------
        ParameterError
            It can't be read.
        """

    def find(self, tree: CorpusTree, files: Sequence[SourceFile]) -> Found:
        """Return the utterances whose recordings are there, sorted by path."""
        tally = Tally()
        rows = list(self.describe(tree, files, tally))
        located = self._located(tree, rows, tally)
        entries: dict[str, CorpusFile] = {}
        spans: dict[str, list[tuple[int, int, str]]] = {}
        n_cut = 0
        for row, file in located:
            part, cut = self._part(tree, row, file, tally)
            if part is None:
                continue
            n_cut += cut
            path = file.path if part.is_whole else f"{file.path}{part}"
            if path in entries:
                tally.skip("naming what an earlier line names", row.where)
                continue
            if part.start is not None and part.n_samples is not None:
                spans.setdefault(f"{file.path}:{part.channel}", []).append((part.start, part.n_samples, row.where))
            entries[path] = _entry(row, replace(file, path=path), part)
        found = Found(sorted(entries.values(), key=lambda entry: entry.path))
        if n_cut:
            tally.said.append(
                f"{n_cut:,} segments end up to {TOLERANCE_S * 1000:.0f} ms after their recording: cut there"
            )
        tally.said += _overlaps(spans)
        found.notes = tuple(tally.notes())
        return found

    def passed_over(self, files: Sequence[SourceFile], entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return a line for each reason for which something was passed over."""
        return entries.notes if isinstance(entries, Found) else ()

    def _part(self, tree: CorpusTree, row: Described, file: SourceFile, tally: Tally) -> tuple[Part | None, bool]:
        """Return which part of a recording an utterance is, None for none; and whether it was cut."""
        if row.span is None:
            return Part(channel=row.channel), False
        if row.span.problem:
            tally.skip("segments that are none", f"{row.where} ({row.span.problem})")
            return None, False
        sr, n_total = self.recording_claims(tree, file)
        if not n_total:
            tally.skip("segments of recordings that can't be read", f"{row.where} ({file.path!r})")
            return None, False
        start, n_samples = row.span.samples(sr, n_total)
        over = start + n_samples - n_total
        if n_samples < 1 or start >= n_total or over > TOLERANCE_S * sr:
            tally.skip(
                "segments that are none",
                f"{row.where} (samples {start:,} to {start + n_samples:,} of {n_total:,})",
            )
            return None, False
        n_samples -= max(0, over)
        whole = (start, n_samples) == (0, n_total)
        return Part(None if whole else start, None if whole else n_samples, row.channel), over > 0

    def _located(
        self, tree: CorpusTree, rows: Sequence[Described], tally: Tally
    ) -> Iterator[tuple[Described, SourceFile]]:
        """Yield the utterances whose recordings are below the root, with these."""
        wanted = [() if row.file else self._candidates(row) for row in rows]
        there = tree.files(path for paths in wanted for path in paths) if any(wanted) else {}
        outside: list[Described] = []
        for row, paths in zip(rows, wanted, strict=True):
            file = row.file or next((there[path] for path in paths if path in there), None)
            if file is not None:
                yield row, file
            elif not paths:
                outside.append(row)
            else:
                tally.skip("naming files that are not there", f"{shown(row.audio)} ({row.where})")
        if outside:
            reason = f"naming files outside of root ({self._remedy(outside)})"
            for row in outside:
                tally.skip(reason, f"{shown(row.audio)} ({row.where})")

    def _candidates(self, row: Described) -> tuple[str, ...]:
        """Return the paths below the root that a recording may have; none if it lies elsewhere."""
        audio = row.audio.removeprefix("file://")
        if "://" in audio:
            return ()
        if audio.startswith("/"):
            root = absolute(self.root)
            below = posixpath.normpath(audio).removeprefix(root.rstrip("/") + "/") if root else audio
            return () if below.startswith("/") else (below,)
        paths = (posixpath.normpath(posixpath.join(folder, audio)) for folder in (row.folder, ""))
        return tuple(dict.fromkeys(path for path in paths if path != ".." and not path.startswith("../")))

    def _remedy(self, outside: Sequence[Described]) -> str:
        places = [row.audio.removeprefix("file://") for row in outside]
        root = absolute(self.root)
        if not root or not all(place.startswith("/") for place in places):
            return "they are no local files: fetch them first"
        common = posixpath.commonpath([root, *map(posixpath.normpath, places)])
        inner = posixpath.relpath(root, common)
        return f"say root: {common} and {self.where_field}: below it, as in {inner}/..."


def absolute(root: str) -> str:
    """Return the absolute path of a local root, ``""`` for a URL."""
    root = str(root).removeprefix("file://")
    return "" if "://" in root else posixpath.normpath(str(PurePosixPath(str(Path.cwd()), root)))


@dataclass(frozen=True, kw_only=True)
class ManifestReader(DescribedReader):
    """Read recordings that one file names, or several; see `DescribedReader`.

    Parameters
    ----------
    manifest : str or tuple of str or None
        Path of the description below `root`, or several. None: all below `root` that look like one.
        Where there are several, each is a subset by its name.
    """

    manifest: str | tuple[str, ...] | None = None

    signs: ClassVar[tuple[str, ...]]
    """How the names of descriptions end."""

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        given = self._given
        if self.manifest is not None and not (given and all(isinstance(one, str) and one for one in given)):
            raise ParameterError("manifest", f"must be a path below root, or a list of some, got {self.manifest!r}")

    @property
    def _given(self) -> tuple[str, ...]:
        if self.manifest is None:
            return ()
        given = (self.manifest,) if isinstance(self.manifest, str) else tuple(self.manifest)
        root = absolute(self.root).rstrip("/") + "/"
        return tuple(one.removeprefix(root) if isinstance(one, str) and one.startswith("/") else one for one in given)

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen, with the names of the descriptions."""
        chosen = super().identity()
        return {**chosen, "manifest": sorted(self._given)} if self._given else chosen

    @classmethod
    def looks_described(cls, path: str) -> bool:
        """Tell whether a file looks like a description of this kind, by its name."""
        return path.lower().endswith(cls.signs) and not PurePosixPath(path).name.startswith(".")

    @classmethod
    def recognise_files(cls, root: str, paths: Sequence[str]) -> Mapping[str, Any] | None:
        """Return the root if it holds a description of this kind."""
        return {"root": root} if any(map(cls.looks_described, paths)) else None

    def listed(self, tree: CorpusTree) -> Iterable[SourceFile]:
        """Return the descriptions that are given, or all files below the root."""
        if not self._given:
            return tree.walk()
        there = tree.files(self._given)
        for one in self._given:
            if one not in there:
                raise ParameterError("manifest", f"must be a file below {self.root!r}, got {one!r}, which is not there")
        return list(there.values())

    def descriptions(self, files: Sequence[SourceFile]) -> list[str]:
        """Return the paths of the descriptions."""
        return list(self._given) or [file.path for file in files if self.looks_described(file.path)]


def _entry(row: Described, file: SourceFile, part: Part) -> CorpusFile:
    name = row.id or stem_of(file_of(file.path))
    if not row.id and part.start is not None:
        name += f"-{part.start:09d}"
    return CorpusFile(
        file,
        utterance_id(name),
        subset=row.subset,
        speaker_id=row.speaker_id,
        chapter_id=row.chapter_id,
        text=one_line(row.text),
        sex=row.sex,
        speaker_name=row.speaker_name,
    )


def _overlaps(spans: Mapping[str, list[tuple[int, int, str]]]) -> Iterator[str]:
    """Yield a line on segments that share samples with the one before."""
    shared = []
    for some in spans.values():
        end = 0
        for start, n_samples, where in sorted(some):
            if start < end:
                shared.append(where)
            end = max(end, start + n_samples)
    if shared:
        more = f" and {len(shared) - _NAMED:,} more" if len(shared) > _NAMED else ""
        yield (
            f"{len(shared):,} segments overlap others of their recording, whose samples are taken twice: "
            f"{', '.join(shared[:_NAMED])}{more}"
        )


def text_lines(tree: CorpusTree, path: str, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers; it may be compressed by gzip.

    Raises
    ------
    ParameterError
        It can't be read, unpacked or decoded.
    """
    try:
        data = tree.read(path)
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ParameterError(
            "root", f"must hold whole files, got {path!r}, which is cut off or damaged: {error}"
        ) from error
    except OSError as error:
        raise ParameterError("root", f"must hold readable files, got {path!r}: {error.strerror or error}") from error
    return lines(decoded(data, path, encoding))


def json_lines(tree: CorpusTree, path: str, encoding: str | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a file of JSON lines, or of a JSON list, with their places.

    Raises
    ------
    ParameterError
        It can't be read, or a line is no object.
    """
    numbered = list(text_lines(tree, path, encoding))
    if numbered and numbered[0][1].lstrip().startswith("["):
        try:
            values = json.loads("\n".join(line for _, line in numbered))
        except (ValueError, RecursionError) as error:
            raise ParameterError("root", f"must hold JSON, got {path!r}: {error}") from error
        objects: Iterable[tuple[str, Any]] = ((f"{path}[{i}]", value) for i, value in enumerate(values))
    else:
        objects = ((f"{path}:{number}", _object(path, number, line)) for number, line in numbered)
    for where, value in objects:
        if not isinstance(value, dict):
            raise ParameterError("root", f"must hold a JSON object on each line, got {where} with {str(value)[:40]!r}")
        yield where, value


def _object(path: str, number: int, line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        last = "; the file may be cut off" if "Unterminated" in str(error) or "Expecting" in str(error) else ""
        raise ParameterError(
            "root", f"must hold a JSON object on each line, got {path!r}, line {number:,}: {error}{last}"
        ) from error


def split_of(path: str, several: bool) -> str:
    """Return the subset that a description stands for: its name, where there are several."""
    name = PurePosixPath(path).name
    return name.partition(".")[0] if several else ""
