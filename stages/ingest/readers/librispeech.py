"""Stage `librispeech`: a corpus in LibriSpeech's layout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from sys import intern
from typing import Any, ClassVar, NamedTuple

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.decode import AudioReader
from melmill.stages.ingest.facts import Download, Facts
from melmill.stages.ingest.names import AUDIO, is_hidden, suffix_of
from melmill.stages.ingest.passed_over import count_suffixes, hidden, note, some_of
from melmill.stages.ingest.reader import Annotator, CorpusFile, stamp_of
from melmill.stages.ingest.texts.decoding import lines, read_texts
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.utterance import SourceFile

SPEAKERS = "SPEAKERS.TXT"
_BASE = "https://www.openslr.org/resources/12"
_FILES = (
    ("dev-clean", 337926286, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    ("dev-other", 314305928, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    ("test-clean", 346663984, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    ("test-other", 328757843, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
    ("train-clean-100", 6387309499, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    ("train-clean-360", 23049477885, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    ("train-other-500", 30593501606, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
)
_UTTERANCE = re.compile(
    r"(?P<above>(?s:.*/)?)(?P<speaker>\w+)/(?P<chapter>\w+)/(?P<id>(?P=speaker)-(?P=chapter)-\w+)\.(?i:flac)\s*"
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
    title: ClassVar[str] = "LibriSpeech"
    expects: ClassVar[str] = "a corpus of <subset>/<speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac"
    facts: ClassVar[Facts | None] = Facts(
        url="https://www.openslr.org/12",
        licence="CC BY 4.0",
        language="en",
        rate="16,000",
        layout="`<subset>/<speaker>/<chapter>/<id>.flac`",
        texts="`<speaker>-<chapter>.trans.txt` of each chapter, in capitals",
        quirks="Speakers are in `SPEAKERS.TXT`.",
        downloads=tuple(
            Download(f"{part}.tar.gz", f"{_BASE}/{part}.tar.gz", n_bytes, sha256, part=part)
            for part, n_bytes, sha256 in _FILES
        ),
    )

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
            if match and not is_hidden(file.path):
                subset = match["above"].rstrip("/").rpartition("/")[2]
                # Many files share them.
                levels = map(intern, (subset, match["speaker"], match["chapter"]))
                entries.append(CorpusFile(file, match["id"], *levels))
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

    def passed_over(self, files: Sequence[SourceFile], entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return lines on FLAC files of other names, on hidden ones, and on audio of other formats."""
        taken = {entry.path for entry in entries}
        others = [file.path for file in files if file.path not in taken and suffix_of(file.path) == "flac"]
        others = [path for path in others if not is_hidden(path)]
        form = "not named <speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac"
        named = [f"{len(others):,} passed over, {form}: {some_of(others)}"] if others else []
        counts = count_suffixes(files, AUDIO - {"flac"}, taken)
        what = "are audio by their names but not read, as LibriSpeech is FLAC"
        return [*named, *hidden(files, {"flac"}), *([note(counts, what, "audio_folder reads them")] if counts else [])]

    def annotate(self, tree: CorpusTree, files: Sequence[SourceFile], chosen: Sequence[CorpusFile]) -> Annotator:
        """Return what adds the text and the speaker of an utterance."""
        return _Transcripts(tree, {file.path: file for file in files}, _corpus(chosen[0]), self.encoding)


class _Transcripts(Annotator):
    """Add texts and speakers. Each transcript is read once, and none that is as it was."""

    def __init__(self, tree: CorpusTree, files: Mapping[str, SourceFile], corpus: str, encoding: str | None) -> None:
        self._files = files
        self._encoding = encoding
        self._speakers_path = f"{corpus}/{SPEAKERS}" if corpus else SPEAKERS
        self._speakers_stamp = stamp_of(self._present(self._speakers_path), encoding)
        self._read = cache(lambda path: read_texts(tree, path, encoding) if path in files else "")
        self._transcript = cache(lambda path: parse_transcript(self._read(path), path))
        self._stamp = cache(self._stamp_of)

    def stamp(self, entry: CorpusFile) -> int:
        """Return a number for the transcript of its chapter and the table of speakers."""
        return self._stamp(_transcript_path(entry))

    def _stamp_of(self, path: str) -> int:
        transcript = self._present(path)
        return stamp_of(transcript, self._speakers_stamp) if transcript else 0

    def __call__(self, entry: CorpusFile) -> CorpusFile:
        """Return an utterance with its text and its speaker."""
        speaker = self._speakers.get(entry.speaker_id, _UNKNOWN)
        text = self._transcript(_transcript_path(entry)).get(entry.utterance_id, "")
        return entry._replace(text=text, sex=speaker.sex, speaker_name=speaker.name)

    @cached_property
    def _speakers(self) -> Mapping[str, Speaker]:
        return parse_speakers(self._read(self._speakers_path))

    def _present(self, path: str) -> list[SourceFile]:
        return [self._files[path]] if path in self._files else []


def _transcript_path(entry: CorpusFile) -> str:
    return f"{entry.path.rpartition('/')[0]}/{entry.speaker_id}-{entry.chapter_id}.trans.txt"


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
    rows = ([field.strip() for field in line.split("|", maxsplit=4)] for _, line in lines(table) if line[0] != ";")
    return {row[0]: Speaker(row[1], row[4]) for row in rows if len(row) == 5}


def parse_transcript(content: str, path: str) -> dict[str, str]:
    r"""Return the text of each utterance of a ``.trans.txt``.

    Parameters
    ----------
    content : str
    path : str
        For messages.

    Raises
    ------
    ParameterError
        An utterance has two texts.

    >>> parse_transcript("84-121123-0000 GO DO YOU HEAR\n84-121123-0001\n", "84-121123.trans.txt")
    {'84-121123-0000': 'GO DO YOU HEAR', '84-121123-0001': ''}
    """
    texts: dict[str, tuple[int, str]] = {}
    for number, line in lines(content):
        utterance_id, *rest = line.split(maxsplit=1)
        text = rest[0].strip() if rest else ""
        first, before = texts.setdefault(utterance_id, (number, text))
        if before != text:
            raise ParameterError(
                "root",
                f"must hold one text for each utterance, got two for {utterance_id!r}: {before!r} ({path}:{first}) and "
                f"{text!r} ({path}:{number}); remove one",
            )
    return {utterance_id: text for utterance_id, (_, text) in texts.items()}


def _corpus(entry: CorpusFile) -> str:
    """Return the path of the folder that holds the subset of an utterance, ``""`` for the root."""
    return entry.path.rsplit("/", maxsplit=3)[0].rpartition("/")[0]
