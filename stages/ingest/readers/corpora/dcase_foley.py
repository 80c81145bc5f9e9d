"""Stage `dcase_foley`: the foley sounds of DCASE 2023, Task 7."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from melmill.stages.ingest.corpus import CorpusReader, Said
from melmill.stages.ingest.facts import Facts
from melmill.stages.ingest.reader import CorpusFile
from melmill.storage.utterance import SourceFile

CLASSES = ("DogBark", "Footstep", "GunShot", "Keyboard", "MovingMotorVehicle", "Rain", "SneezeCough")


@dataclass(frozen=True, kw_only=True)
class DcaseFoley(CorpusReader):
    """Ingest the foley sounds of DCASE 2023, Task 7: `dev/DogBark/001.wav`, in seven classes.

    The class of a sound is its chapter and its text (``DogBark``). Files of a class have numbers that
    recur in others, so an id is split, class and name: ``dev-DogBark-001``. For the fields see
    `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "dcase_foley"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "DCASE 2023 Task 7"
    expects: ClassVar[str] = f"DCASE 2023 Task 7: dev/DogBark/001.wav, of the classes {', '.join(CLASSES)}"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        rf"(?s:(?P<above>.*)/)?(?P<chapter>{'|'.join(CLASSES)})/(?P<id>[^/]+)\.(?i:wav|flac)"
    )
    facts: ClassVar[Facts | None] = Facts(
        url="https://zenodo.org/records/8091972",
        licence="mixed; parts for research only, see `DevMeta.csv`",
        language="none",
        rate="22,050",
        layout="`dev/<class>/<name>.wav`, `eval/<class>/<name>.wav`",
        texts="none: the class stands for it",
        quirks="Sounds of 4 s. Names recur in classes. `DevMeta.csv` and `EvalMeta.csv` name the sources.",
    )

    def entry(self, file: SourceFile, match: re.Match[str]) -> CorpusFile | None:
        """Return a sound with its class."""
        split = posixpath.basename(match["above"] or "")
        split = split if split in ("dev", "eval") else ""
        name = "-".join(filter(None, (split, match["chapter"], match["id"])))
        return CorpusFile(file, re.sub(r"[^\w.-]+", "_", name), split, "", match["chapter"], text=match["chapter"])

    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return no tables: the class is in the path."""
        del files
        return ()

    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield nothing."""
        del path, content
        yield from ()
