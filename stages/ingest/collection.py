"""What every corpus reader does with the files that it has found: choose, refuse, describe.

- What all ingest stages share: which files of a root they take, and what its folders and lists say of them.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from melmill.stages.contract import CorpusTree, Input
from melmill.stages.formats.audio import HEAD_BYTES, read_header, tells
from melmill.stages.numeric.errors import ParameterError, Unusable
from melmill.storage.utterance import SourceFile, Utterance, resampled_length


class Found(NamedTuple):
    """A file that is an utterance, and what its path says of it."""

    file: SourceFile
    utterance_id: str
    subset: str
    speaker_id: str
    chapter_id: str


# Tells the rate (Hz) and length (samples) that a file claims, zeros where they can't be had.
Claimed = Callable[[CorpusTree, SourceFile], tuple[int, int]]


class About(NamedTuple):
    """What a corpus says of an utterance beside its path; empty where it says nothing."""

    text: str = ""
    sex: str = ""
    speaker_name: str = ""


def choose(
    found: Sequence[Found], subsets: Sequence[str] | None, files: Sequence[str] | None, root: str
) -> Sequence[Found]:
    """Return those of the wanted subsets whose path matches a pattern; None for all.

    Parameters
    ----------
    found : sequence of Found
    subsets : sequence of str or None
        Names of subsets.
    files : sequence of str or None
        Patterns of paths below the root, as of `fnmatch`: ``*`` matches any text, ``/`` too.
    root : str
        Name of the corpus's root, for messages.

    Raises
    ------
    ParameterError
        A subset is not there, or a pattern matches nothing.
    """
    if subsets is not None:
        _check_subsets({f.subset for f in found}, subsets, root)
        wanted = frozenset(subsets)
        found = [f for f in found if f.subset in wanted]
    if files is None:
        return found
    chosen: set[str] = set()
    for pattern in files:
        matches = re.compile(fnmatch.translate(pattern)).match
        matching = [f.file.path for f in found if matches(f.file.path)]
        if not matching:
            raise ParameterError(
                "files",
                f"must match files in {root!r}, got {pattern!r}, which matches none of its {len(found):,} utterances; "
                f"their paths read {found[0].file.path!r}",
            )
        chosen.update(matching)
    return [f for f in found if f.file.path in chosen]


def _check_subsets(present: Iterable[str], subsets: Sequence[str], root: str) -> None:
    there = sorted(filter(None, present))
    for subset in subsets:
        if subset not in there:
            near = difflib.get_close_matches(subset, there, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ParameterError(
                "subsets", f"must be in {root!r}, got {subset!r}{hint} (there: {', '.join(there) or 'none'})"
            )


def refuse_duplicates(found: Iterable[Found], root: str, remedy: str) -> None:
    """Raise ParameterError where two files have one id, naming both and the `remedy`."""
    seen: dict[str, str] = {}
    for f in found:
        first = seen.setdefault(f.utterance_id, f.file.path)
        if first != f.file.path:
            raise ParameterError(
                "root",
                f"must name each utterance once, got {f.utterance_id!r} twice in {root!r}: {first} and {f.file.path}; "
                f"{remedy}",
            )


def described(
    found: Iterable[Found],
    tree: CorpusTree,
    sr: int,
    known: Mapping[str, Utterance],
    about: Callable[[Found], About],
    claimed: Claimed | None = None,
) -> list[Utterance]:
    """Return the utterances, in order; of a file that was catalogued with the same size and time, as it was.

    A file whose length `claimed` can't tell gets lengths of 0, for ingestion to say why; without it, files are audio.
    Only files that are new are looked at.
    """
    claims = claimed or claimed_audio
    return [_unchanged(f.file, sr, known) or _utterance(f, about(f), claims(tree, f.file), sr) for f in found]


def transcript(tree: CorpusTree, path: str) -> str:
    """Return the text of a transcript file; raise ParameterError where it can't be read."""
    try:
        data = tree.read(path)
    except OSError as error:
        raise ParameterError("root", f"must hold readable transcripts, got {path!r}: {error.strerror}") from error
    # A stray byte in one transcript must not end the discovery of a whole corpus.
    return data.decode("utf-8-sig", errors="replace")


def _unchanged(file: SourceFile, sr: int, known: Mapping[str, Utterance]) -> Utterance | None:
    before = known.get(file.path)
    if before is None or (before.size_bytes, before.mtime_ns, before.sr) != (file.size_bytes, file.mtime_ns, sr):
        return None
    return before


def _utterance(found: Found, about: About, claimed: tuple[int, int], sr: int) -> Utterance:
    source_sr, source_n_samples = claimed
    return Utterance(
        utterance_id=found.utterance_id,
        subset=found.subset,
        speaker_id=found.speaker_id,
        chapter_id=found.chapter_id,
        text=about.text,
        path=found.file.path,
        size_bytes=found.file.size_bytes,
        mtime_ns=found.file.mtime_ns,
        source_sr=source_sr,
        source_n_samples=source_n_samples,
        sr=sr,
        n_samples=resampled_length(source_n_samples, source_sr, sr) if source_n_samples else 0,
        sex=about.sex,
        speaker_name=about.speaker_name,
    )


def claimed_audio(tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
    """Return the rate (Hz) and length (samples) that an audio file claims, zeros where they can't be had.

    Only its first bytes are read where they tell.
    """
    try:
        head = tree.head(file.path, HEAD_BYTES)
        header = read_header(head if tells(head) else tree.read(file.path), file.size_bytes)
    except (OSError, Unusable):
        return 0, 0
    return (header.sr, header.n_samples) if header.believable else (0, 0)


SKIPPED = "-"
LEVELS = ("subset", "speaker", "chapter", SKIPPED)


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Name files below a root.

    Parameters
    ----------
    root : str
        Folder or URL of the corpus.
    subsets : tuple of str or None
        Subsets wanted, None for all that are there.
    files : tuple of str or None
        Patterns of the paths wanted, below the root (``*-000[34].flac``; ``*`` matches ``/`` too), None for all.
    """

    root: str
    subsets: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None

    inputs: ClassVar[Mapping[str, Input]] = {}

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
        # Absent rather than None: the keys of products made before there were patterns stay.
        return chosen if self.files is None else {**chosen, "files": sorted(set(self.files))}


@dataclass(frozen=True, kw_only=True)
class Folder(Collection):
    """Name files of any folder; an utterance is called by its path (``wavs/LJ001-0001.wav`` is ``wavs--LJ001-0001``).

    Its text is in the manifest, else in a file beside it (``LJ001-0001.normalized.txt`` or ``.txt``), else in a
    ``metadata.csv`` as LJSpeech has it, or there is none. For the other fields see `Collection`.

    Parameters
    ----------
    folders : tuple of str
        What the folders below `root` stand for, the outermost first: ``subset``, ``speaker``, ``chapter``, or ``-`` for
        nothing; deeper ones stand for nothing.
    manifest : str or None
        List of the files wanted, below the root: a line each, ``path`` or ``path|text``, the path below the root too,
        with or without its suffix. None for all files.
    """

    folders: tuple[str, ...] = ("subset", "speaker", "chapter")
    manifest: str | None = None

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
        """Return what is chosen and what the folders mean; where the corpus lies decides nothing."""
        chosen = {**super().identity(), "folders": list(self.folders)}
        return chosen if self.manifest is None else {**chosen, "manifest": self.manifest}
