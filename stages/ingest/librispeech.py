"""Find the utterances of a corpus in LibriSpeech's layout: ``<subset>/<speaker>/<chapter>/<utterance>.flac``.

- Stage `librispeech`: a corpus in LibriSpeech's layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.collection import About, Found, choose, described, refuse_duplicates, transcript
from melmill.stages.ingest.decode import Corpus
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.utterance import SourceFile, Utterance

SPEAKERS = "SPEAKERS.TXT"
LAYOUT = "<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac"
UTTERANCE = re.compile(
    r"(?P<above>(?:.*/)?)(?P<speaker>\w+)/(?P<chapter>\w+)/(?P<id>(?P=speaker)-(?P=chapter)-\w+)\.flac"
)


class Speaker(NamedTuple):
    """What the table of speakers says of one."""

    sex: str
    name: str


_UNKNOWN = Speaker("", "")


class _Transcripts:
    """Looks up texts; a chapter's transcript is read once, when first asked for."""

    def __init__(self, tree: CorpusTree, paths: frozenset[str]) -> None:
        self._tree = tree
        self._paths = paths
        self._texts: dict[str, dict[str, str]] = {}

    def text(self, found: Found) -> str:
        path = f"{found.file.path.rpartition('/')[0]}/{found.speaker_id}-{found.chapter_id}.trans.txt"
        if path not in self._texts:
            self._texts[path] = parse_transcript(transcript(self._tree, path)) if path in self._paths else {}
        return self._texts[path].get(found.utterance_id, "")


def discover(
    tree: CorpusTree,
    *,
    root: str,
    subsets: Sequence[str] | None,
    files: Sequence[str] | None,
    sr: int,
    known: Mapping[str, Utterance],
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
    files : sequence of str or None
        Patterns of paths wanted (``*-000[34].flac``), None for all.
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
        If no utterance is there, a subset is missing, a pattern matches nothing, an id occurs twice, several corpora
        lie under the root, or a transcript can't be read.
    """
    there = list(tree.walk())
    found = list(_matches(there))
    _check_root(found, len(there), root)
    chosen = choose(found, subsets, files, root)
    refuse_duplicates(chosen, root, "remove one or choose subsets")
    transcripts = _Transcripts(tree, frozenset(file.path for file in there if file.path.endswith(".trans.txt")))
    speakers = _speakers(tree, chosen, {file.path for file in there})

    def about(f: Found) -> About:
        speaker = speakers.get(f.speaker_id, _UNKNOWN)
        return About(text=transcripts.text(f), sex=speaker.sex, speaker_name=speaker.name)

    return described(chosen, tree, sr, known, about)


def parse_speakers(table: str) -> dict[str, Speaker]:
    r"""Return the speakers of a ``SPEAKERS.TXT`` by id; lines of another form are passed over.

    >>> parse_speakers(";ID |SEX| SUBSET |MINUTES| NAME\n14 | F | train-clean-360 | 25.03 | Kristin LeMoine\n")
    {'14': Speaker(sex='F', name='Kristin LeMoine')}
    """
    lines = (line for line in table.splitlines() if not line.startswith(";"))
    rows = ([field.strip() for field in line.split("|", maxsplit=4)] for line in lines)
    return {row[0]: Speaker(row[1], row[4]) for row in rows if len(row) == 5}


def _speakers(tree: CorpusTree, chosen: Sequence[Found], paths: Set[str]) -> dict[str, Speaker]:
    """Read the table of speakers beside the subsets, where there is one."""
    corpus = _subset(chosen[0]).rpartition("/")[0]
    path = f"{corpus}/{SPEAKERS}" if corpus else SPEAKERS
    return parse_speakers(transcript(tree, path)) if path in paths else {}


def parse_transcript(lines: str) -> dict[str, str]:
    r"""Return the text of each utterance of a ``.trans.txt``.

    >>> parse_transcript("84-121123-0000 GO DO YOU HEAR\n84-121123-0001\n")
    {'84-121123-0000': 'GO DO YOU HEAR', '84-121123-0001': ''}
    """
    pairs = (line.strip().partition(" ") for line in lines.splitlines() if line.strip())
    return {utterance_id: text.strip() for utterance_id, _, text in pairs}


def _matches(files: Iterable[SourceFile]) -> Iterator[Found]:
    for file in files:
        match = UTTERANCE.fullmatch(file.path)
        if match:
            subset = match["above"].rstrip("/").rpartition("/")[2]
            yield Found(file, match["id"], subset, match["speaker"], match["chapter"])


def _subset(found: Found) -> str:
    """Return the path of the subset's folder."""
    return found.file.path.rsplit("/", maxsplit=3)[0]


def _check_root(found: Sequence[Found], n_files: int, root: str) -> None:
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
    subsets = {_subset(f) for f in found}
    corpora = sorted({subset.rpartition("/")[0] or "." for subset in subsets})
    if len(corpora) > 1:
        raise ParameterError(
            "root", f"must hold one corpus, got {root!r} with several: choose one of {', '.join(corpora)}"
        )


@dataclass(frozen=True, kw_only=True)
class LibriSpeech(Corpus):
    """Ingest a corpus in LibriSpeech's layout: ``<subset>/<speaker>/<chapter>/<utterance>.flac`` below `root`.

    For the fields see `melmill.stages.ingest.decode.Corpus`.
    """

    uses: ClassVar[str] = "librispeech"
    version: ClassVar[int] = 1

    def discover(self, tree: CorpusTree, known: Mapping[str, Utterance]) -> list[Utterance]:
        """List the utterances of the corpus under `tree`; see `melmill.stages.ingest.librispeech.discover`."""
        return discover(tree, root=self.root, subsets=self.subsets, files=self.files, sr=self.sr, known=known)
