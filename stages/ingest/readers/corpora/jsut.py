"""Stage `jsut`: the JSUT corpus."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from melmill.stages.ingest.corpus import CorpusReader, Said, named, separated
from melmill.stages.ingest.facts import Download, Facts
from melmill.stages.ingest.reader import CorpusFile
from melmill.storage.utterance import SourceFile


@dataclass(frozen=True, kw_only=True)
class Jsut(CorpusReader):
    """Ingest JSUT: `basic5000/wav/BASIC5000_0001.wav` and `basic5000/transcript_utf8.txt`.

    For the fields see `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "jsut"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "JSUT"
    expects: ClassVar[str] = "JSUT: basic5000/wav/BASIC5000_0001.wav and basic5000/transcript_utf8.txt"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?s:.*/)?(?P<subset>[a-z]+\d+)/wav/(?P<id>[A-Z][A-Za-z0-9-]+(?:_[A-Za-z0-9-]+)*_\d+)\.(?i:wav|flac)"
    )
    facts: ClassVar[Facts | None] = Facts(
        url="https://sites.google.com/site/shinnosuketakamichi/publication/jsut",
        licence="audio for research and personal use; texts CC BY-SA 4.0 and others",
        language="ja",
        rate="48,000",
        layout="`basic5000/wav/BASIC5000_0001.wav`",
        texts="`transcript_utf8.txt` of each part: id, colon, text",
        quirks="One speaker. Nine parts, of which each is a subset.",
        downloads=(Download("jsut_ver1.1.zip", "http://ss-takashi.sakura.ne.jp/corpus/jsut_ver1.1.zip"),),
    )

    def entry(self, file: SourceFile, match: re.Match[str]) -> CorpusFile | None:
        """Return an utterance of the only speaker."""
        return CorpusFile(file, match["id"], match["subset"], "JSUT", sex="F")

    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of the transcripts."""
        return named(files, r"[a-z]+\d+/transcript_utf8\.txt")

    def table_of(self, entry: CorpusFile, tables: Collection[str]) -> Iterable[str]:
        """Return the transcript of the part of an utterance."""
        path = f"{entry.path.rpartition('/wav/')[0]}/transcript_utf8.txt"
        return [path] if path in tables else []

    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the text of each utterance, which may hold colons."""
        del path
        for name, *text in separated(content, ":", 2):
            yield name, Said(":".join(text))
