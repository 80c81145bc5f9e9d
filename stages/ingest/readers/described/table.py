"""Stage `table`: recordings that a CSV, a TSV or JSON lines name."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.columns import ColumnsReader
from melmill.stages.ingest.described import Described, Tally, json_lines, split_of, text_lines
from melmill.stages.numeric.checks import check_texts
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.utterance import SourceFile

_DELIMITERS = {"csv": ",", "tsv": "\t", "psv": "|"}


@dataclass(frozen=True, kw_only=True)
class TableReader(ColumnsReader):
    """Ingest what a table names: CSV, tabs, bars or JSON lines, with a header or declared columns.

    The suffix says what separates columns: ``.csv`` commas, ``.tsv`` tabs, ``.psv`` and ``.txt`` bars.
    The table may be compressed by gzip (``.csv.gz``). For the other fields see
    `melmill.stages.ingest.columns.ColumnsReader` and `melmill.stages.ingest.decode.AudioReader`.

    Parameters
    ----------
    columns : tuple of str or None
        Names of the columns in their order, for a table without a header. None: the first line has
        them.
    """

    uses: ClassVar[str] = "table"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "a table of recordings"
    expects: ClassVar[str] = "a table (manifest: FILE.csv, .tsv, .psv or .jsonl) and the recordings that it names"
    signs: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".psv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz")

    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.columns is not None:
            check_texts("columns", self.columns, "path")
            if len(set(self.columns)) < len(self.columns):
                raise ParameterError("columns", f"must name each column once, got {list(self.columns)!r}")

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen, and the declared columns."""
        return {**super().identity(), **({} if self.columns is None else {"columns": list(self.columns)})}

    @classmethod
    def recognise_files(cls, root: str, paths: Sequence[str]) -> Mapping[str, Any] | None:
        """Return None: nothing tells that a table names recordings."""
        return None

    def describe(self, tree: CorpusTree, files: Sequence[SourceFile], tally: Tally) -> Iterator[Described]:
        """Yield the row of each utterance."""
        paths = self.descriptions(files)
        for path in paths:
            folder, subset = posixpath.dirname(path), split_of(path, len(paths) > 1)
            rows = list(self._rows(tree, path))
            # A line of JSON may lack what others have.
            names = dict.fromkeys(name for _, row in rows for name in row)
            columns = self.columns_of(list(names), path) if rows else {}
            for where, row in rows:
                audio = row.get(columns["audio"])
                if not isinstance(audio, str) or not audio.strip():
                    tally.skip("rows without a file", where)
                    continue
                one = self.described(row, columns, where, audio.strip(), "", folder)
                if one is None:
                    tally.skip("rows whose times are no numbers", where)
                    continue
                yield one if one.subset else one._replace(subset=subset)

    def _rows(self, tree: CorpusTree, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        kind = path.lower().removesuffix(".gz").rpartition(".")[2]
        if kind in ("jsonl", "json"):
            yield from json_lines(tree, path, self.encoding)
            return
        numbered = list(text_lines(tree, path, self.encoding))
        delimiter = _DELIMITERS.get(kind, "|")
        names = list(self.columns) if self.columns is not None else None
        for line, fields in _fields(numbered, delimiter, path):
            if names is None:
                names = [field.strip() for field in fields]
                continue
            if len(fields) != len(names):
                raise ParameterError(
                    "columns",
                    f"must fit {path!r}: {len(fields)} columns on line {line:,} where there are {len(names)} "
                    f"({', '.join(names)})",
                )
            yield f"{path}:{line}", dict(zip(names, fields, strict=True))


def _fields(numbered: Sequence[tuple[int, str]], delimiter: str, path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each row with its line; quotes are those of CSV where commas separate."""
    if delimiter != ",":
        yield from ((line, text.split(delimiter)) for line, text in numbered)
        return
    reader = csv.reader(io.StringIO("\n".join(text for _, text in numbered), newline=""), strict=True)
    start = 0
    try:
        for fields in reader:
            yield numbered[min(start, len(numbered) - 1)][0], fields
            start = reader.line_num
    except csv.Error as error:
        raise ParameterError("root", f"must hold CSV, got {path!r}, line {numbered[start][0]:,}: {error}") from error
