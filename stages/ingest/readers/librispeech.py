"""Stage `librispeech`: a corpus in LibriSpeech's layout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.decode import AudioReader
from melmill.stages.ingest.folder import is_litter
from melmill.stages.ingest.reader import Annotate, CorpusFile, read_texts, some_of
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.utterance import SourceFile

SPEAKERS = "SPEAKERS.TXT"
_UTTERANCE = re.compile(
    r"(?P<above>(?s:.*/)?)(?P<speaker>\w+)/(?P<chapter>\w+)/(?P<id>(?P=speaker)-(?P=chapter)-\w+)\.(?i:flac)"
)


@dataclass(frozen=True, kw_only=True)
class LibriSpeech(AudioReader):
    """Ingest a corpus in LibriSpeech's layout.

    Its files are ``<subset>/<speaker>/<chapter>/<utterance>.flac`` below `root`. `root` may also be
    a folder that holds one such corpus and no other, as ``data`` above ``data/LibriSpeech``. A
    chapter without a transcript has texts of ``""``. For the fields see
    `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "librispeech"
    version: ClassVar[int] = 1
    expects: ClassVar[str] = "a corpus of <subset>/<speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac"

    @classmethod
    def recognise(cls, root: str, paths: Sequence[str]) -> Mapping[str, Any] | None:
        """Return the root; the folder above it and the subset if the root is a subset.

        See `Reader.recognise`.
        """
        matches = [match for path in paths if (match := _UTTERANCE.fullmatch(path))]
        if 2 * len(matches) < len(paths):
            return None
        if any(match["above"] for match in matches):
            return {"root": root}
        corpus, _, subset = root.rpartition("/")
        return {"root": corpus, "subsets": (subset,)}

    def find(self, tree: CorpusTree, files: Sequence[SourceFile]) -> list[CorpusFile]:
        """Return the files named like utterances; raise ParameterError for several corpora."""
        entries = []
        for file in files:
            match = _UTTERANCE.fullmatch(file.path)
            if match:
                subset = match["above"].rstrip("/").rpartition("/")[2]
                entries.append(CorpusFile(file, match["id"], subset, match["speaker"], match["chapter"]))
        if any(not entry.subset for entry in entries):
            raise ParameterError(
                "root",
                f"must be the folder that holds the subsets, got {self.root!r}, which is one subset: "
                "set root to the folder above it and subsets to its name",
            )
        corpora = sorted({_corpus(entry) for entry in entries})
        if len(corpora) > 1:
            names = ", ".join(corpus or "." for corpus in corpora)
            raise ParameterError("root", f"must hold one corpus, got {self.root!r} with several: choose one of {names}")
        return entries

    def left_out(self, files: Sequence[SourceFile], found: Sequence[CorpusFile]) -> list[str]:
        """Return a line on FLAC files of other names; see `Reader.left_out`."""
        taken = {entry.path for entry in found}
        others = [file.path for file in files if file.path.lower().endswith(".flac") and file.path not in taken]
        others = [path for path in others if not is_litter(path)]
        form = "not named <speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac"
        return [f"{len(others):,} passed over, {form}: {some_of(others)}"] if others else []

    def annotate(self, tree: CorpusTree, files: Sequence[SourceFile], chosen: Sequence[CorpusFile]) -> Annotate:
        """Return a function that adds the text and the speaker of an utterance.

        Each transcript is read once, when an utterance of its chapter is first asked for.
        """
        paths = {file.path for file in files}
        corpus = _corpus(chosen[0])
        table = f"{corpus}/{SPEAKERS}" if corpus else SPEAKERS
        speakers = parse_speakers(read_texts(tree, table)) if table in paths else {}
        transcripts: dict[str, Mapping[str, str]] = {}

        def annotated(entry: CorpusFile) -> CorpusFile:
            path = f"{entry.path.rpartition('/')[0]}/{entry.speaker_id}-{entry.chapter_id}.trans.txt"
            if path not in transcripts:
                transcripts[path] = parse_transcript(read_texts(tree, path)) if path in paths else {}
            speaker = speakers.get(entry.speaker_id, _UNKNOWN)
            text = transcripts[path].get(entry.utterance_id, "")
            return entry._replace(text=text, sex=speaker.sex, speaker_name=speaker.name)

        return annotated


class Speaker(NamedTuple):
    """Hold what the table of speakers says of one."""

    sex: str
    name: str


_UNKNOWN = Speaker("", "")


def parse_speakers(table: str) -> dict[str, Speaker]:
    r"""Return the speakers of a ``SPEAKERS.TXT`` by id; lines of another form are passed over.

    >>> parse_speakers(";ID |SEX| SUBSET |MINUTES| NAME\n14 | F | train-clean-360 | 25.03 | Kristin LeMoine\n")
    {'14': Speaker(sex='F', name='Kristin LeMoine')}
    """
    lines = (line for line in table.splitlines() if not line.startswith(";"))
    rows = ([field.strip() for field in line.split("|", maxsplit=4)] for line in lines)
    return {row[0]: Speaker(row[1], row[4]) for row in rows if len(row) == 5}


def parse_transcript(lines: str) -> dict[str, str]:
    r"""Return the text of each utterance of a ``.trans.txt``.

    >>> parse_transcript("84-121123-0000 GO DO YOU HEAR\n84-121123-0001\n")
    {'84-121123-0000': 'GO DO YOU HEAR', '84-121123-0001': ''}
    """
    pairs = (line.strip().partition(" ") for line in lines.splitlines() if line.strip())
    return {utterance_id: text.strip() for utterance_id, _, text in pairs}


def _corpus(entry: CorpusFile) -> str:
    """Return the path of the folder that holds the subset of an utterance, ``""`` for the root."""
    return entry.path.rsplit("/", maxsplit=3)[0].rpartition("/")[0]
