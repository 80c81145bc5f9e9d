"""Stage `common_voice`: Mozilla Common Voice."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.corpus import CorpusReader, Said, named, separated
from melmill.stages.ingest.facts import Facts
from melmill.stages.ingest.names import stem_of
from melmill.stages.ingest.passed_over import some_of
from melmill.stages.ingest.reader import CorpusFile
from melmill.stages.ingest.texts.decoding import read_texts
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.utterance import SourceFile

SPLITS = ("train", "dev", "test", "validated", "other", "invalidated")
_SEXES = {"male": "M", "male_masculine": "M", "female": "F", "female_feminine": "F"}


class _Found(list[CorpusFile]):
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CommonVoice(CorpusReader):
    """Ingest Common Voice: `de/clips/common_voice_de_1.mp3`, with the tables `de/validated.tsv` and others.

    A clip has the subset of the first of these tables that lists it: train, dev, test, validated, other,
    invalidated. Above several languages the subset begins with the language (``de/train``). The
    speaker is the beginning of the ``client_id``. For the other fields see
    `melmill.stages.ingest.decode.AudioReader`.

    Parameters
    ----------
    splits : tuple of str
        Tables whose clips are taken. Without ``other`` and ``invalidated``, clips that nobody has
        confirmed are left out.
    """

    uses: ClassVar[str] = "common_voice"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Common Voice"
    expects: ClassVar[str] = "Common Voice: clips/common_voice_<language>_<n>.mp3 and validated.tsv"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?P<subset>(?s:.*/)?)clips/(?P<id>common_voice_[\w-]+_\d+)\.(?i:mp3|wav|flac|opus)"
    )
    facts: ClassVar[Facts | None] = Facts(
        url="https://commonvoice.mozilla.org/datasets",
        licence="CC0",
        language="over 100",
        rate="32,000 and 48,000, from MP3",
        layout="`<language>/clips/common_voice_<language>_<n>.mp3`",
        texts="`train.tsv`, `dev.tsv`, `test.tsv`, `validated.tsv`, `other.tsv`: column `sentence`",
        quirks="A clip is in several tables. Quotes are letters. Some texts hold line ends. One must accept terms to "
        "download it.",
    )

    splits: tuple[str, ...] = ("train", "dev", "test", "validated")

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        for split in self.splits:
            if split not in SPLITS:
                raise ParameterError("splits", f"must hold only {', '.join(SPLITS)}, got {split!r}")
        if not self.splits:
            raise ParameterError("splits", "must name at least one table, got []")

    def identity(self) -> dict[str, Any]:
        """Return what is chosen, and the tables."""
        return {**super().identity(), "splits": [split for split in SPLITS if split in self.splits]}

    def find(self, tree: CorpusTree, files: Sequence[SourceFile]) -> list[CorpusFile]:
        """Return the clips that the wanted tables list."""
        clips = super().find(tree, files)
        several = len({entry.subset for entry in clips}) > 1
        listed: dict[tuple[str, str], str] = {}
        n_missing, first_missing = 0, ""
        there = {(entry.subset, entry.utterance_id) for entry in clips}
        for path in self.tables(files):
            folder, split = posixpath.dirname(path), posixpath.basename(path).removesuffix(".tsv")
            above = f"{folder}/" if folder else ""
            for name, _ in self.parse(path, read_texts(tree, path, self.encoding)):
                if (above, name) not in there:
                    n_missing, first_missing = n_missing + 1, first_missing or f"{name} ({path})"
                listed.setdefault((above, name), split)
        chosen = _Found()
        left_out = []
        for entry in clips:
            listing = listed.get((entry.subset, entry.utterance_id))
            if listing is None:
                left_out.append(entry.path)
                continue
            language = posixpath.basename(entry.subset.rstrip("/"))
            chosen.append(entry._replace(subset=f"{language}/{listing}" if several else listing))
        notes = []
        if left_out:
            notes.append(f"{len(left_out):,} clips are in none of {', '.join(self.splits)}: {some_of(left_out)}")
        if n_missing:
            notes.append(f"{n_missing:,} lines of the tables name clips that are not there; first: {first_missing}")
        chosen.notes = tuple(notes)
        return chosen

    def is_left_out(self, path: str) -> bool:
        """Tell whether a file is a clip that no wanted table lists."""
        return self.pattern.fullmatch(path) is not None

    def passed_over(self, files: Sequence[SourceFile], entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return lines on clips that no table lists, and on lines of tables without a clip."""
        notes = entries.notes if isinstance(entries, _Found) else ()
        return [*super().passed_over(files, entries), *notes]

    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of the wanted tables, in their order."""
        paths = named(files, "|".join(rf"{split}\.tsv" for split in self.splits))
        return sorted(paths, key=lambda path: SPLITS.index(posixpath.basename(path).removesuffix(".tsv")))

    def table_of(self, entry: CorpusFile, tables: Collection[str]) -> Iterable[str]:
        """Return the table of an utterance's subset, in the folder of its language."""
        split = entry.subset.rpartition("/")[2]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), "..", f"{split}.tsv"))
        return [path] if path in tables else []

    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield text and speaker of each clip."""
        columns: dict[str, int] = {}
        for fields in separated(content, "\t", 2):
            if not columns:
                columns = {name: place for place, name in enumerate(fields)}
                if not {"path", "sentence"} <= columns.keys():
                    raise ParameterError(
                        "root",
                        f"must hold Common Voice's tables, got {path!r} without the columns path and sentence "
                        f"(columns: {', '.join(fields)})",
                    )
                continue
            row = {name: fields[place] for name, place in columns.items() if place < len(fields)}
            if "sentence" in row:
                sex = _SEXES.get(row.get("gender", ""), "")
                yield stem_of(row["path"]), Said(row["sentence"], row.get("client_id", "")[:16], sex)
