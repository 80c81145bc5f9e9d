"""Stage `mls`: Multilingual LibriSpeech."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.corpus import CorpusReader, Said, named, separated
from melmill.stages.ingest.facts import Download, Facts
from melmill.stages.ingest.reader import CorpusFile
from melmill.storage.utterance import SourceFile

_LANGUAGES = ("dutch", "english", "french", "german", "italian", "polish", "portuguese", "spanish")


@dataclass(frozen=True, kw_only=True)
class Mls(CorpusReader):
    """Ingest Multilingual LibriSpeech: `mls_german/train/audio/<speaker>/<book>/<id>.flac` (or `.opus`).

    Above several languages the subset begins with the language's folder (``mls_german/train``). For the
    fields see `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "mls"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "MLS"
    expects: ClassVar[str] = (
        "MLS: train/audio/<speaker>/<book>/<speaker>_<book>_<nnnnnn>.flac and train/transcripts.txt"
    )
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?P<above>(?s:.*/)?)(?P<subset>train|dev|test)/audio/(?P<speaker>\d+)/(?P<chapter>\d+)/"
        r"(?P<id>(?P=speaker)_(?P=chapter)_\d+)\.(?i:flac|opus|wav|mp3)"
    )
    facts: ClassVar[Facts | None] = Facts(
        url="https://www.openslr.org/94",
        licence="CC BY 4.0",
        language="de en es fr it nl pl pt",
        rate="16,000 (FLAC), 48,000 (Opus)",
        layout="`mls_<language>/train/audio/<speaker>/<book>/<id>.flac`",
        texts="`transcripts.txt` of each split: id, tab, text",
        quirks="Texts are in lower case without punctuation. Speakers are in `metainfo.txt`. "
        "`limited_supervision` only lists ids of the training split.",
        downloads=tuple(
            Download(
                f"mls_{name}{kind}.tar.gz", f"https://dl.fbaipublicfiles.com/mls/mls_{name}{kind}.tar.gz", part=part
            )
            for name in _LANGUAGES
            for kind, part in (("", name), ("_opus", f"{name}_opus"))
        ),
    )

    def find(self, tree: CorpusTree, files: Sequence[SourceFile]) -> list[CorpusFile]:
        """Return the utterances; where there are several languages, with theirs in the subset."""
        entries = super().find(tree, files)
        languages = [_language(entry) for entry in entries]
        if len(set(languages)) < 2:
            return entries
        return [
            entry._replace(subset=f"{name}/{entry.subset}" if name else entry.subset)
            for entry, name in zip(entries, languages, strict=True)
        ]

    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of the transcripts."""
        return named(files, r"(?:train|dev|test)/transcripts\.txt")

    def table_of(self, entry: CorpusFile, tables: Collection[str]) -> Iterable[str]:
        """Return the transcript of the split of an utterance."""
        path = f"{entry.path.rpartition('/audio/')[0]}/transcripts.txt"
        return [path] if path in tables else []

    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the text of each utterance."""
        del path
        for name, text, *_ in separated(content, "\t", 2):
            yield name, Said(text)

    def speakers(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of ``metainfo.txt``."""
        return named(files, r"metainfo\.txt")

    def parse_speakers(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the sex of each speaker."""
        del path
        for fields in separated(content, "|", 2):
            if fields[0].isdigit():
                yield fields[0], Said(sex=fields[1])


def _language(entry: CorpusFile) -> str:
    """Return the name of the folder above that of the split."""
    return posixpath.basename(posixpath.dirname(entry.path.rpartition("/audio/")[0]))
