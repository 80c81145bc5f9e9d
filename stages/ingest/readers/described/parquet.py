"""Stage `parquet`: tables with recordings in them, as Hugging Face's datasets are."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.columns import ColumnsReader
from melmill.stages.ingest.described import Described, Tally
from melmill.stages.ingest.names import stem_of
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.utterance import SourceFile

_SPLIT = re.compile(r"data-\d+-of-\d+|(?P<split>.+?)-\d+-of-\d+(-[0-9a-f]+)?")


@dataclass(frozen=True, kw_only=True)
class Parquet(ColumnsReader):
    """Ingest tables that hold recordings, in Parquet or Arrow files: datasets of Hugging Face.

    The column of audio holds the bytes of files, or ``bytes`` and a ``path`` as an ``Audio`` feature
    does. Where there are no bytes, the path is that of a file below `root`. The subset is a column, or
    the split in the name of the file (``train-00000-of-00004.parquet``). Tables are read in place. For
    the fields see `melmill.stages.ingest.columns.ColumnsReader` and
    `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "parquet"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "a Parquet or Arrow dataset"
    expects: ClassVar[str] = "Parquet or Arrow files with a column of audio"
    signs: ClassVar[tuple[str, ...]] = (".parquet", ".arrow")

    def describe(self, tree: CorpusTree, files: Sequence[SourceFile], tally: Tally) -> Iterator[Described]:
        """Yield the rows that hold a recording, or name one."""
        tables = self.descriptions(files)
        stats = tree.files(tables)
        for path in tables:
            first = next(iter(tree.rows(path)), None)
            if first is None:
                continue
            columns = self.columns_of(list(first), path)
            _check_audio(first, columns["audio"], path)
            # Other columns may be large, such as mels.
            for number, row in enumerate(tree.rows(path, list(dict.fromkeys(columns.values())))):
                one = self._one(row, columns, stats[path], number, tally)
                if one is not None:
                    yield one

    def _one(
        self, row: Mapping[str, Any], columns: Mapping[str, str], table: SourceFile, number: int, tally: Tally
    ) -> Described | None:
        cell, where = row[columns["audio"]], f"{table.path}[{number}]"
        said = cell if isinstance(cell, dict) else {"path": cell, "n_bytes": None}
        audio, n_bytes = str(said.get("path") or ""), said.get("n_bytes")
        if n_bytes is None and not audio:
            tally.skip("rows without audio", where)
            return None
        folder, stem = posixpath.dirname(table.path), posixpath.basename(stem_of(audio))
        # Names of cut files need not be unique in a table; rows are.
        table_stem = posixpath.basename(table.path).rpartition(".")[0]
        described = self.described(row, columns, where, audio, stem or f"{table_stem}-{number:06d}", folder)
        if described is None:
            tally.skip("rows whose times are no numbers", where)
            return None
        if n_bytes is not None:
            inside = f"{table.path}//{columns['audio']}/{number}"
            file = SourceFile(path=inside, size_bytes=n_bytes, mtime_ns=table.mtime_ns)
            described = described._replace(file=file, audio=inside)
        return described if described.subset else described._replace(subset=_split(table.path))


def _check_audio(row: Mapping[str, Any], column: str, path: str) -> None:
    if not isinstance(row[column], dict | str | None):
        raise ParameterError(
            "audio_column",
            f"must hold files or their paths, got {column!r} of {path!r} with {str(row[column])[:40]!r}",
        )


def _split(path: str) -> str:
    """Return the split that a table is a part of.

    >>> _split("clean/train-00000-of-00004.parquet"), _split("x/test.parquet")
    ('train', 'test')
    >>> _split("train/data-00000-of-00001.arrow")
    'train'
    """
    folder, _, name = path.rpartition("/")
    match = _SPLIT.fullmatch(name.rpartition(".")[0])
    if match is None:
        return name.rpartition(".")[0]
    return match["split"] or posixpath.basename(folder)
