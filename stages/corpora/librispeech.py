"""Find the utterances of a corpus in LibriSpeech's layout: ``<subset>/<speaker>/<chapter>/<utterance>.flac``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from melmill.stages.corpora.audio import FLAC, FLAC_HEAD_BYTES, read_header
from melmill.stages.errors import ParameterError, Unusable
from melmill.stages.stage import CorpusTree
from melmill.storage.utterance import SourceFile, Utterance, resampled_length

SPEAKERS = "SPEAKERS.TXT"
LAYOUT = "<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac"
_UTTERANCE = re.compile(
    r"(?P<above>(?:.*/)?)(?P<speaker>\w+)/(?P<chapter>\w+)/(?P<id>(?P=speaker)-(?P=chapter)-\w+)\.flac"
)


class Speaker(NamedTuple):
    """What the table of speakers says of one."""

    sex: str
    name: str


class _Found(NamedTuple):
    file: SourceFile
    corpus: str
    subset: str
    speaker_id: str
    chapter_id: str
    utterance_id: str

    @property
    def transcript(self) -> str:
        return f"{self.file.path.rpartition('/')[0]}/{self.speaker_id}-{self.chapter_id}.trans.txt"


class _Transcripts:
    """Looks up texts; a chapter's transcript is read once, when first asked for."""

    def __init__(self, tree: CorpusTree, paths: frozenset[str]) -> None:
        self._tree = tree
        self._paths = paths
        self._texts: dict[str, dict[str, str]] = {}

    def text(self, found: _Found) -> str:
        path = found.transcript
        if path not in self._texts:
            self._texts[path] = self._read(path) if path in self._paths else {}
        return self._texts[path].get(found.utterance_id, "")

    def _read(self, path: str) -> dict[str, str]:
        try:
            return parse_transcript(self._tree.read(path))
        except OSError as error:
            raise ParameterError("root", f"must hold readable transcripts, got {path!r}: {error.strerror}") from error


def discover(
    tree: CorpusTree, *, root: str, subsets: Sequence[str] | None, sr: int, known: Mapping[str, Utterance]
) -> list[Utterance]:
    """List the utterances of a corpus, sorted by path; only headers are read.

    Parameters
    ----------
    tree : CorpusTree
        The corpus, or a folder that holds one corpus and no other (``data`` above ``data/LibriSpeech``).
    root : str
        Name of its root, for messages.
    subsets : sequence of str or None
        Names of the subsets wanted (``dev-clean``), None for all.
    sr : int
        Rate that the store will hold, Hz.
    known : mapping of str to Utterance
        Utterances catalogued earlier, by path: one whose file has the same size and time is taken as it is.

    Returns
    -------
    list of Utterance
        Files of other names are passed over. A chapter without a transcript gives texts of ``""``; a header that
        can't be read or believed gives lengths of 0, for ingestion to say why.

    Raises
    ------
    ParameterError
        If no utterance is there, a subset is missing, an id occurs twice, several corpora lie under the root, or a
        transcript can't be read.
    """
    files = list(tree.walk())
    found = list(_matches(files))
    _check_root(found, len(files), root)
    chosen = _chosen(found, subsets, root)
    _refuse_duplicates(chosen, root)
    transcripts = _Transcripts(tree, frozenset(file.path for file in files if file.path.endswith(".trans.txt")))
    speakers = _speakers(tree, chosen, {file.path for file in files})
    return [
        _unchanged(f.file, sr, known) or _utterance(f, transcripts.text(f), speakers.get(f.speaker_id), tree, sr)
        for f in chosen
    ]


def parse_speakers(data: bytes) -> dict[str, Speaker]:
    r"""Return the speakers of a ``SPEAKERS.TXT`` by id; lines of another form are passed over.

    >>> parse_speakers(b";ID |SEX| SUBSET |MINUTES| NAME\n14 | F | train-clean-360 | 25.03 | Kristin LeMoine\n")
    {'14': Speaker(sex='F', name='Kristin LeMoine')}
    """
    lines = data.decode("utf-8", errors="replace").splitlines()
    rows = ([field.strip() for field in line.split("|", maxsplit=4)] for line in lines if not line.startswith(";"))
    return {row[0]: Speaker(row[1], row[4]) for row in rows if len(row) == 5}


def _speakers(tree: CorpusTree, chosen: Sequence[_Found], paths: Set[str]) -> dict[str, Speaker]:
    """Read the table of speakers beside the subsets, where there is one."""
    corpus = chosen[0].corpus
    path = f"{corpus}/{SPEAKERS}" if corpus else SPEAKERS
    return parse_speakers(tree.read(path)) if path in paths else {}


def parse_transcript(data: bytes) -> dict[str, str]:
    r"""Return the text of each utterance of a ``.trans.txt``.

    >>> parse_transcript(b"84-121123-0000 GO DO YOU HEAR\n84-121123-0001\n")
    {'84-121123-0000': 'GO DO YOU HEAR', '84-121123-0001': ''}
    """
    # A stray byte in one chapter must not end the discovery of a whole corpus.
    lines = data.decode("utf-8", errors="replace").splitlines()
    pairs = (line.strip().partition(" ") for line in lines if line.strip())
    return {utterance_id: text.strip() for utterance_id, _, text in pairs}


def _matches(files: Iterable[SourceFile]) -> Iterator[_Found]:
    for file in files:
        match = _UTTERANCE.fullmatch(file.path)
        if match:
            corpus, _, subset = match["above"].rstrip("/").rpartition("/")
            yield _Found(file, corpus, subset, match["speaker"], match["chapter"], match["id"])


def _check_root(found: Sequence[_Found], n_files: int, root: str) -> None:
    if not found:
        raise ParameterError(
            "root", f"must hold a corpus: looked for {LAYOUT} in {root!r}, {n_files:,} other files there"
        )
    if any(not f.subset for f in found):
        raise ParameterError(
            "root",
            f"must be the folder that holds the subsets, got {root!r}, which is one subset: "
            "set root to the folder above it and subsets to its name",
        )
    corpora = sorted({f.corpus or "." for f in found})
    if len(corpora) > 1:
        raise ParameterError("root", f"must hold one corpus, got {root!r} with several: choose one of {_list(corpora)}")


def _chosen(found: Sequence[_Found], subsets: Sequence[str] | None, root: str) -> Sequence[_Found]:
    if subsets is None:
        return found
    there = sorted({f.subset for f in found})
    for subset in subsets:
        if subset not in there:
            near = difflib.get_close_matches(subset, there, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ParameterError("subsets", f"must be in {root!r}, got {subset!r}{hint} (there: {_list(there)})")
    wanted = frozenset(subsets)
    return [f for f in found if f.subset in wanted]


def _refuse_duplicates(found: Sequence[_Found], root: str) -> None:
    seen: dict[str, str] = {}
    for f in found:
        first = seen.setdefault(f.utterance_id, f.file.path)
        if first != f.file.path:
            raise ParameterError(
                "root",
                f"must name each utterance once, got {f.utterance_id!r} twice in {root!r}: {first} and {f.file.path}; "
                "remove one or choose subsets",
            )


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _unchanged(file: SourceFile, sr: int, known: Mapping[str, Utterance]) -> Utterance | None:
    before = known.get(file.path)
    if before is None or (before.size_bytes, before.mtime_ns, before.sr) != (file.size_bytes, file.mtime_ns, sr):
        return None
    return before


def _utterance(found: _Found, text: str, speaker: Speaker | None, tree: CorpusTree, sr: int) -> Utterance:
    source_sr, source_n_samples = _claimed(tree, found.file)
    return Utterance(
        utterance_id=found.utterance_id,
        subset=found.subset,
        speaker_id=found.speaker_id,
        chapter_id=found.chapter_id,
        text=text,
        path=found.file.path,
        size_bytes=found.file.size_bytes,
        mtime_ns=found.file.mtime_ns,
        source_sr=source_sr,
        source_n_samples=source_n_samples,
        sr=sr,
        n_samples=resampled_length(source_n_samples, source_sr, sr) if source_n_samples else 0,
        sex=speaker.sex if speaker else "",
        speaker_name=speaker.name if speaker else "",
    )


def _claimed(tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
    """Return the rate (Hz) and length (samples) that a file claims, zeros where they can't be had."""
    try:
        head = tree.head(file.path, FLAC_HEAD_BYTES)
        header = read_header(head if head.startswith(FLAC) else tree.read(file.path), file.size_bytes)
    except (OSError, Unusable):
        return 0, 0
    return (header.sr, header.n_samples) if header.believable else (0, 0)
