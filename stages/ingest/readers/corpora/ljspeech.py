"""Stage `ljspeech`: the LJ Speech corpus."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from melmill.stages.ingest.corpus import CorpusReader, Said, below, named, separated
from melmill.stages.ingest.facts import Download, Facts
from melmill.stages.ingest.reader import CorpusFile
from melmill.storage.utterance import SourceFile


@dataclass(frozen=True, kw_only=True)
class LJSpeech(CorpusReader):
    """Ingest LJ Speech 1.0 or 1.1: `wavs/LJ001-0001.wav` and `metadata.csv`.

    The text is the normalised one. The part of the book (``LJ001``) is the chapter. For the fields see
    `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "ljspeech"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "LJSpeech"
    expects: ClassVar[str] = "LJ Speech: wavs/LJ001-0001.wav and metadata.csv"
    pattern: ClassVar[re.Pattern[str]] = below(r"(?P<id>(?P<chapter>LJ\d{3})-\d{4})\.(?i:wav|flac)")
    facts: ClassVar[Facts | None] = Facts(
        url="https://keithito.com/LJ-Speech-Dataset",
        licence="public domain",
        language="en",
        rate="22,050",
        layout="`wavs/LJ001-0001.wav`",
        texts="`metadata.csv`: id, text and normalised text between bars",
        quirks="One speaker. Quotes are letters, not those of CSV. Some normalised texts of 1.0 are empty: "
        "then the text is taken.",
        downloads=(
            Download(
                "LJSpeech-1.1.tar.bz2",
                "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
                2748572632,
                "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
            ),
        ),
    )

    def entry(self, file: SourceFile, match: re.Match[str]) -> CorpusFile | None:
        """Return an utterance of the only speaker."""
        return CorpusFile(file, match["id"], speaker_id="LJ", chapter_id=match["chapter"], sex="F")

    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of ``metadata.csv``."""
        return named(files, r"metadata\.csv")

    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the normalised text of each utterance."""
        del path
        for name, text, *normalised in separated(content, "|", 2):
            yield name, Said((normalised[0] if normalised else "") or text)
