"""Stage `vctk`: the VCTK corpus, versions 0.80 and 0.92."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from melmill.stages.ingest.corpus import CorpusReader, Said, named
from melmill.stages.ingest.facts import Download, Facts
from melmill.stages.ingest.reader import CorpusFile
from melmill.stages.ingest.texts.decoding import collapsed, lines
from melmill.stages.numeric.checks import check_choice
from melmill.storage.utterance import SourceFile


@dataclass(frozen=True, kw_only=True)
class Vctk(CorpusReader):
    """Ingest VCTK 0.80 (`wav48/p225/p225_001.wav`) or 0.92 (`wav48_silence_trimmed/p225/p225_001_mic1.flac`).

    For the other fields see `melmill.stages.ingest.decode.AudioReader`.

    Parameters
    ----------
    microphone : {"mic1", "mic2", "both"}
        Which of the two recordings of 0.92 to take. With ``both``, ids end with the microphone. Where
        a speaker has only one, as p280 has no ``mic2``, that is not replaced: its absence is counted.
    """

    uses: ClassVar[str] = "vctk"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "VCTK"
    expects: ClassVar[str] = "VCTK: wav48_silence_trimmed/p225/p225_001_mic1.flac, or wav48/p225/p225_001.wav"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?s:.*/)?(?P<id>(?P<speaker>[ps]\d+)_\d+)(?:_(?P<chapter>mic[12]))?\.(?i:flac|wav)"
    )
    facts: ClassVar[Facts | None] = Facts(
        url="https://doi.org/10.7488/ds/2645",
        licence="CC BY 4.0",
        language="en",
        rate="48,000",
        layout="`wav48_silence_trimmed/p225/p225_001_mic1.flac` (0.92), `wav48/p225/p225_001.wav` (0.80)",
        texts="`txt/p225/p225_001.txt`",
        quirks="p315 has no texts. In 0.92, p280 and p315 have no `mic2`, and the speaker s5 is there. "
        "Speakers are in `speaker-info.txt`, whose columns blanks separate.",
        downloads=(
            Download(
                "VCTK-Corpus-0.92.zip",
                "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",
                11747302977,
                "f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c",
            ),
        ),
    )

    microphone: Literal["mic1", "mic2", "both"] = "mic1"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_choice("microphone", self.microphone, ("mic1", "mic2", "both"))

    def identity(self) -> dict[str, object]:
        """Return what is chosen, and the microphone."""
        return {**super().identity(), "microphone": self.microphone}

    def entry(self, file: SourceFile, match: re.Match[str]) -> CorpusFile | None:
        """Return an utterance of the wanted microphone; files of 0.80 have none."""
        microphone = match["chapter"] or ""
        if microphone and self.microphone != "both" and microphone != self.microphone:
            return None
        name = f"{match['id']}_{microphone}" if microphone and self.microphone == "both" else match["id"]
        return CorpusFile(file, name, speaker_id=match["speaker"], chapter_id=microphone)

    def is_left_out(self, path: str) -> bool:
        """Tell whether a file is of the other microphone."""
        return self.pattern.fullmatch(path) is not None

    def passed_over(self, files: Sequence[SourceFile], entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return lines on files of the other microphone, and on utterances that have no other."""
        notes = list(super().passed_over(files, entries))
        if self.microphone == "both":
            return notes
        matches = [match for file in files if (match := self.pattern.fullmatch(file.path)) and match["chapter"]]
        other = [match["id"] for match in matches if match["chapter"] != self.microphone]
        if other:
            notes.append(f"{len(other):,} passed over, of the other microphone (microphone: {self.microphone})")
        missing = set(other) - {entry.utterance_id for entry in entries}
        if missing:
            speakers = Counter(name.partition("_")[0] for name in missing)
            notes.append(
                f"{len(missing):,} utterances have no {self.microphone}, of speakers {', '.join(sorted(speakers)[:5])}"
            )
        return notes

    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of the texts."""
        return named(files, r"[ps]\d+_\d+\.txt")

    def table_of(self, entry: CorpusFile, tables: Collection[str]) -> Iterable[str]:
        """Return the text of an utterance: beside it, or in the folder ``txt`` of its corpus."""
        name = f"{entry.utterance_id.partition('_mic')[0]}.txt"
        folders = entry.path.split("/")[:-1]
        above = "/".join(folders[:-2]) + "/" if len(folders) > 2 else ""
        paths = ("/".join([*folders, name]), f"{above}txt/{entry.speaker_id}/{name}")
        return [path for path in paths if path in tables]

    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the text of an utterance, of each of its microphones."""
        name = path.rpartition("/")[2].removesuffix(".txt")
        said = Said(collapsed(content))
        yield from ((one, said) for one in (name, f"{name}_mic1", f"{name}_mic2"))

    def speakers(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of ``speaker-info.txt``."""
        return named(files, r"speaker-info\.txt")

    def parse_speakers(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the sex of each speaker; 0.80 names speakers without their ``p``."""
        del path
        for _, line in lines(content):
            name, *rest = line.split()
            if len(rest) > 1 and rest[1] in ("F", "M"):
                yield name if not name.isdigit() else f"p{name}", Said(sex=rest[1])
