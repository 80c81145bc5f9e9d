"""Stage `timit`: the TIMIT corpus."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from melmill.stages.ingest.corpus import CorpusReader, Said, named
from melmill.stages.ingest.facts import Facts
from melmill.stages.ingest.reader import CorpusFile
from melmill.stages.ingest.texts.decoding import collapsed, lines
from melmill.storage.utterance import SourceFile

_TIMES = re.compile(r"^\d+ \d+ ")


@dataclass(frozen=True, kw_only=True)
class Timit(CorpusReader):
    """Ingest TIMIT: `TRAIN/DR1/FCJF0/SA1.WAV`, whose files are of NIST's SPHERE format, in either case.

    All speakers read the sentences SA1 and SA2, and some others recur, so an id is the speaker and the
    sentence: ``FCJF0-SA1``. The dialect region is the chapter. The times of phones and words lie beside
    each file (``SA1.PHN``, ``SA1.WRD``). For the fields see `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "timit"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "TIMIT"
    expects: ClassVar[str] = "TIMIT: TRAIN/DR1/FCJF0/SA1.WAV"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?s:.*/)?(?P<subset>(?i:train|test))/(?P<chapter>(?i:dr[1-8]))/(?P<speaker>(?i:[fm][a-z]{3}\d))/"
        r"(?P<id>(?i:s[aix]\d+))\.(?i:wav|sph|flac|wav\.wav)"
    )
    facts: ClassVar[Facts | None] = Facts(
        url="https://catalog.ldc.upenn.edu/LDC93S1",
        licence="LDC",
        language="en",
        rate="16,000",
        layout="`TRAIN/DR1/FCJF0/SA1.WAV`",
        texts="`SA1.TXT` beside each file, after two sample numbers",
        quirks="`.WAV` is NIST SPHERE. Sentences recur among speakers. Copies have names in upper or lower case, or "
        "`SA1.WAV.wav`. `.PHN` and `.WRD` hold alignments, in samples.",
    )

    def entry(self, file: SourceFile, match: re.Match[str]) -> CorpusFile | None:
        """Return an utterance with the id of its speaker and sentence, in upper case."""
        speaker = match["speaker"].upper()
        name = f"{speaker}-{match['id'].upper()}"
        return CorpusFile(file, name, match["subset"].upper(), speaker, match["chapter"].upper(), sex=speaker[0])

    def passed_over(self, files: Sequence[SourceFile], entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return what is passed over, and how many utterances have alignments beside them."""
        there = {file.path.rpartition(".")[0].upper() for file in files if file.path.lower().endswith(".phn")}
        n = sum(1 for entry in entries if entry.path.upper().partition(".WAV")[0] in there)
        aligned = [f"{n:,} of {len(entries):,} utterances have alignments beside them (.PHN)"] if n else []
        return [*super().passed_over(files, entries), *aligned]

    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of the texts."""
        return named(files, r"(?i:s[aix]\d+\.txt)")

    def table_of(self, entry: CorpusFile, tables: Collection[str]) -> Iterable[str]:
        """Return the text beside an utterance."""
        stem = re.sub(r"(?i)(\.wav)?\.(wav|sph|flac)$", "", entry.path)
        return [path for path in (f"{stem}.TXT", f"{stem}.txt") if path in tables]

    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the text of a file, without the sample numbers before it."""
        *_, speaker, name = path.split("/") if "/" in path else ("", "", path)
        text = _TIMES.sub("", collapsed(content))
        yield f"{speaker.upper()}-{name.rpartition('.')[0].upper()}", Said(text)

    def speakers(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of ``SPKRINFO.TXT``."""
        return named(files, r"(?i:spkrinfo\.txt)")

    def parse_speakers(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the sex of each speaker, whose folder's name begins with it."""
        del path
        for _, line in lines(content):
            fields = line.split()
            if len(fields) > 2 and not line.startswith(";"):
                yield f"{fields[1]}{fields[0]}".upper(), Said(sex=fields[1].upper())
