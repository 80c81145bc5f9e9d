"""Stage `libritts`: LibriTTS and LibriTTS-R."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from melmill.stages.ingest.corpus import CorpusReader, Said, named
from melmill.stages.ingest.facts import Download, Facts
from melmill.stages.ingest.reader import CorpusFile
from melmill.stages.ingest.readers.librispeech import parse_speakers
from melmill.stages.ingest.texts.decoding import collapsed, lines
from melmill.stages.numeric.checks import check_choice
from melmill.storage.utterance import SourceFile

_BESIDE = re.compile(r"(?P<id>\d+_\d+_\d+_\d+)\.(?:normalized|original)\.txt")
_BASE = "https://www.openslr.org/resources/60"
_FILES = (
    ("dev-clean", 1291469655, "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a"),
    ("dev-other", 924804676, "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c"),
    ("test-clean", 1230670113, "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5"),
    ("test-other", 964502297, "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d"),
    ("train-clean-100", 7723686890, "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b"),
    ("train-clean-360", 27504073644, "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886"),
    ("train-other-500", 44565031479, "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df"),
)


@dataclass(frozen=True, kw_only=True)
class LibriTTS(CorpusReader):
    """Ingest LibriTTS or LibriTTS-R: `<subset>/<speaker>/<chapter>/<speaker>_<chapter>_<n>_<n>.wav`.

    For the other fields see `melmill.stages.ingest.decode.AudioReader`.

    Parameters
    ----------
    texts : {"normalized", "original"}
        Which of its two texts an utterance has.
    """

    uses: ClassVar[str] = "libritts"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "LibriTTS"
    expects: ClassVar[str] = "LibriTTS: <subset>/<speaker>/<chapter>/<speaker>_<chapter>_<nnnnnn>_<nnnnnn>.wav"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?s:.*/)?(?P<id>(?P<speaker>\d+)_(?P<chapter>\d+)_\d+_\d+)\.(?i:wav|flac)"
    )
    facts: ClassVar[Facts | None] = Facts(
        url="https://www.openslr.org/60 and https://www.openslr.org/141",
        licence="CC BY 4.0",
        language="en",
        rate="24,000",
        layout="`<subset>/<speaker>/<chapter>/<id>.wav`",
        texts="`<id>.normalized.txt` and `<id>.original.txt` beside each file, else `<speaker>_<chapter>.trans.tsv`",
        quirks="LibriTTS-R is the same files, restored. Speakers are in `speakers.tsv`, or `SPEAKERS.txt`.",
        downloads=tuple(
            Download(f"{part}.tar.gz", f"{_BASE}/{part}.tar.gz", n_bytes, sha256, part=part)
            for part, n_bytes, sha256 in _FILES
        ),
    )

    texts: Literal["normalized", "original"] = "normalized"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_choice("texts", self.texts, ("normalized", "original"))

    def entry(self, file: SourceFile, match: re.Match[str]) -> CorpusFile | None:
        """Return an utterance; its subset is the folder above those of speaker and chapter."""
        entry = super().entry(file, match)
        folders = file.path.split("/")[:-1]
        if entry is None or folders[-2:] != [entry.speaker_id, entry.chapter_id]:
            return entry
        return entry._replace(subset=folders[-3] if len(folders) > 2 else "")

    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of the texts beside recordings, and of the transcripts of chapters."""
        return named(files, rf"\d+_\d+_\d+_\d+\.{self.texts}\.txt|\d+_\d+\.trans\.tsv")

    def table_of(self, entry: CorpusFile, tables: Collection[str]) -> Iterable[str]:
        """Return the text beside a recording, and the transcript of its chapter, if they are there."""
        folder, slash, _ = entry.path.rpartition("/")
        names = (f"{entry.utterance_id}.{self.texts}.txt", f"{entry.speaker_id}_{entry.chapter_id}.trans.tsv")
        return [path for path in (f"{folder}{slash}{name}" for name in names) if path in tables]

    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the texts of a file: of one utterance, or of a chapter."""
        match = _BESIDE.fullmatch(path.rpartition("/")[2])
        if match:
            yield match["id"], Said(collapsed(content))
            return
        for _, line in lines(content):
            name, original, *normalised = [*line.split("\t"), ""]
            yield name.strip(), Said(((normalised[0] if self.texts == "normalized" else "") or original).strip())

    def speakers(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of ``speakers.tsv`` and ``SPEAKERS.txt``."""
        return named(files, r"(?i:speakers\.(tsv|txt))")

    def parse_speakers(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield sex and name of each speaker."""
        if path.lower().endswith(".txt"):
            for name, one in parse_speakers(content).items():
                yield name, Said(sex=one.sex, speaker_name=one.name)
            return
        for _, line in lines(content):
            # The header names four columns; names of readers may hold tabs.
            fields = [field.strip() for field in line.split("\t")]
            if len(fields) > 1 and fields[0].isdigit():
                yield fields[0], Said(sex=fields[1], speaker_name=fields[3] if len(fields) > 3 else "")
