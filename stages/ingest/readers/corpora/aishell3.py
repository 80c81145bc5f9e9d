"""Stage `aishell3`: the AISHELL-3 corpus."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from melmill.stages.ingest.corpus import CorpusReader, Said, named, separated
from melmill.stages.ingest.facts import Download, Facts
from melmill.stages.ingest.names import stem_of
from melmill.stages.ingest.reader import CorpusFile
from melmill.stages.numeric.checks import check_choice
from melmill.storage.utterance import SourceFile


@dataclass(frozen=True, kw_only=True)
class Aishell3(CorpusReader):
    """Ingest AISHELL-3: `train/wav/SSB0005/SSB00050001.wav` and `train/content.txt`.

    For the other fields see `melmill.stages.ingest.decode.AudioReader`.

    Parameters
    ----------
    texts : {"characters", "pinyin"}
        Which of its two texts an utterance has.
    """

    uses: ClassVar[str] = "aishell3"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "AISHELL-3"
    expects: ClassVar[str] = "AISHELL-3: train/wav/SSB0005/SSB00050001.wav and train/content.txt"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?s:.*/)?(?P<subset>train|test)/wav/(?P<speaker>SSB\d{4})/(?P<id>SSB\d{8})\.(?i:wav|flac)"
    )
    facts: ClassVar[Facts | None] = Facts(
        url="https://www.openslr.org/93",
        licence="Apache 2.0",
        language="zh",
        rate="44,100",
        layout="`train/wav/SSB0005/SSB00050001.wav`",
        texts="`content.txt` of each split: characters and pinyin by turns",
        quirks="Speakers are in `spk-info.txt`. `label_train-set.txt` holds prosody, which is not read.",
        downloads=(Download("data_aishell3.tgz", "https://www.openslr.org/resources/93/data_aishell3.tgz"),),
    )

    texts: Literal["characters", "pinyin"] = "characters"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_choice("texts", self.texts, ("characters", "pinyin"))

    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of ``content.txt``."""
        return named(files, r"(?:train|test)/content\.txt")

    def table_of(self, entry: CorpusFile, tables: Collection[str]) -> Iterable[str]:
        """Return the table of the split of an utterance."""
        path = f"{entry.path.rpartition('/wav/')[0]}/content.txt"
        return [path] if path in tables else []

    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the text of each utterance, of which words and syllables alternate."""
        del path
        for name, text, *_ in separated(content, "\t", 2):
            words = text.split()
            said = "".join(words[::2]) if self.texts == "characters" else " ".join(words[1::2])
            yield stem_of(name), Said(said)

    def speakers(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of ``spk-info.txt``."""
        return named(files, r"spk-info\.txt")

    def parse_speakers(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the sex of each speaker."""
        del path
        for fields in separated(content, "\t", 3):
            if not fields[0].startswith("#"):
                yield fields[0], Said(sex=fields[2][:1].upper())
