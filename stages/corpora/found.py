"""What every corpus reader does with the files that it has found: choose, refuse, describe."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from melmill.stages.corpora.audio import HEAD_BYTES, read_header, tells
from melmill.stages.errors import ParameterError, Unusable
from melmill.stages.stage import CorpusTree
from melmill.storage.utterance import SourceFile, Utterance, resampled_length


class Found(NamedTuple):
    """A file that is an utterance, and what its path says of it."""

    file: SourceFile
    utterance_id: str
    subset: str
    speaker_id: str
    chapter_id: str


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
) -> list[Utterance]:
    """Return the utterances, in order; of a file that was catalogued with the same size and time, as it was.

    Only the first bytes of a file are read where they tell its length; a header that can't be read or believed gives
    lengths of 0, for ingestion to say why. `about` is asked only of files that are new.
    """
    return [_unchanged(f.file, sr, known) or _utterance(f, about(f), tree, sr) for f in found]


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


def _utterance(found: Found, about: About, tree: CorpusTree, sr: int) -> Utterance:
    source_sr, source_n_samples = _claimed(tree, found.file)
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


def _claimed(tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
    """Return the rate (Hz) and length (samples) that a file claims, zeros where they can't be had."""
    try:
        head = tree.head(file.path, HEAD_BYTES)
        header = read_header(head if tells(head) else tree.read(file.path), file.size_bytes)
    except (OSError, Unusable):
        return 0, 0
    return (header.sr, header.n_samples) if header.believable else (0, 0)
