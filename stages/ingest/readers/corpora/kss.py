"""Stage `kss`: the Korean Single Speaker corpus."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from melmill.stages.ingest.corpus import CorpusReader, Said, named, separated
from melmill.stages.ingest.facts import Facts
from melmill.stages.ingest.names import stem_of
from melmill.stages.ingest.reader import CorpusFile
from melmill.stages.numeric.checks import check_choice
from melmill.storage.utterance import SourceFile

_TEXTS = {"original": 1, "expanded": 2, "decomposed": 3, "english": 5}


@dataclass(frozen=True, kw_only=True)
class Kss(CorpusReader):
    """Ingest KSS: `1/1_0000.wav` and `transcript.v.1.4.txt` (or another version of it).

    For the other fields see `melmill.stages.ingest.decode.AudioReader`.

    Parameters
    ----------
    texts : {"original", "expanded", "decomposed", "english"}
        Which text an utterance has: as it is written, with numbers spelt out, in separate letters, or
        translated.
    """

    uses: ClassVar[str] = "kss"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "KSS"
    expects: ClassVar[str] = "KSS: 1/1_0000.wav and transcript.v.1.4.txt"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?s:.*/)?(?P<chapter>[1-4])/(?P<id>(?P=chapter)_\d{4})\.(?i:wav|flac)"
    )
    facts: ClassVar[Facts | None] = Facts(
        url="https://www.kaggle.com/datasets/bryanpark/korean-single-speaker-speech-dataset",
        licence="CC BY-NC-SA 4.0",
        language="ko",
        rate="44,100",
        layout="`1/1_0000.wav`",
        texts="`transcript.v.1.4.txt`: path, three forms of the text, duration, English",
        quirks="One speaker. The decomposed text is of separate letters, and looks like the others. Kaggle asks for an "
        "account.",
    )

    texts: Literal["original", "expanded", "decomposed", "english"] = "expanded"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_choice("texts", self.texts, tuple(_TEXTS))

    def entry(self, file: SourceFile, match: re.Match[str]) -> CorpusFile | None:
        """Return an utterance of the only speaker."""
        return CorpusFile(file, match["id"], "", "KSS", match["chapter"], sex="F")

    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the path of the newest transcript."""
        return sorted(named(files, r"transcript\.v\.\d[\d.]*\.txt"))[-1:]

    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the wanted text of each utterance."""
        del path
        column = _TEXTS[self.texts]
        for fields in separated(content, "|", 4):
            text = fields[column] if column < len(fields) else ""
            yield stem_of(fields[0]).rpartition("/")[2], Said(text)
