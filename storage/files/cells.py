"""Tables of recordings, read in place: rows and cells of Parquet and Arrow files."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from melmill.storage.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = (".parquet", ".arrow")
"""Names of tables end so: Parquet, and Arrow's file and stream formats."""

# Groups of rows that a process keeps: shards ask for neighbours.
_MOST_GROUPS = 4
_lock = threading.Lock()


class Table:
    """A Parquet or Arrow file, of which groups of rows are read.

    Parameters
    ----------
    place : str
        Local path.
    """

    def __init__(self, place: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.place = place
        self._batches: list[pa.RecordBatch] = []
        try:
            if place.endswith(".parquet"):
                self._file = pq.ParquetFile(place)
                self.schema: pa.Schema = self._file.schema_arrow
                meta = self._file.metadata
                self._sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
            else:
                self._batches, self.schema = _batches(pa.memory_map(place))
                self._sizes = [batch.num_rows for batch in self._batches]
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise SourceError(f"{place} is no whole Parquet or Arrow file ({error}): fetch it again") from error

    @property
    def groups(self) -> range:
        """Numbers of the groups of rows."""
        return range(len(self._sizes))

    def group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a group of rows; raise OSError if it is damaged."""
        import pyarrow as pa

        try:
            if self._batches:
                table = pa.Table.from_batches([self._batches[number]])
                return table if columns is None else table.select(list(columns))
            return self._file.read_row_group(number, columns=None if columns is None else list(columns))
        except pa.ArrowException as error:
            raise OSError(errno.EINVAL, f"the table is damaged: {error}", self.place) from error

    def cell_group(self, row: int) -> tuple[int, int]:
        """Return the group of a row, and its number in that; raise FileNotFoundError."""
        at = row
        for number, size in enumerate(self._sizes):
            if at < size:
                return number, at
            at -= size
        raise FileNotFoundError(errno.ENOENT, f"the table has no row {row}", self.place)


def _batches(opened: Any) -> tuple[list[pa.RecordBatch], pa.Schema]:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    if bytes(opened.read(6)) == b"ARROW1":
        opened.seek(0)
        reader = pa.ipc.open_file(opened)
        return [reader.get_batch(i) for i in range(reader.num_record_batches)], reader.schema
    opened.seek(0)
    stream = pa.ipc.open_stream(opened)
    return list(stream), stream.schema


def _table(place: str) -> Table:
    status = os.stat(place)  # noqa: PTH116 - asked for every cell
    return _opened(place, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _opened(path: str, size_bytes: int, mtime_ns: int) -> Table:
    del size_bytes, mtime_ns
    return Table(path)


# By table, number of the group and column.
_groups: dict[tuple[Table, int, str], pa.ChunkedArray] = {}


def read_cell(place: str, inner: str) -> bytes:
    """Return the bytes in a cell, whose name is ``column/row``.

    Raises
    ------
    OSError
        There is no such cell, or it holds no bytes.
    SourceError
        The file is no table.
    """
    column, _, row = inner.rpartition("/")
    with _lock:
        table = _table(place)
        number, at = table.cell_group(int(row))
        key = (table, number, column)
        if key not in _groups:
            while len(_groups) >= _MOST_GROUPS:
                _groups.pop(next(iter(_groups)))
            _groups[key] = table.group(number, [column])[column]
        cell = _groups[key][at]
        value = cell["bytes"].as_py() if hasattr(cell, "keys") and cell.is_valid else cell.as_py()
    if not isinstance(value, bytes):
        raise FileNotFoundError(errno.ENOENT, f"row {row} has no bytes in its column {column!r}", place)
    return value


def rows_of(place: str, columns: Sequence[str] | None) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a table; of a cell with bytes, how many there are and its path."""
    with _lock:
        table = _table(place)
    names = list(table.schema.names)
    if missing := [name for name in columns or () if name not in names]:
        raise SourceError(f"{place} has no column {missing[0]!r} (columns: {', '.join(names)})")
    wanted = names if columns is None else list(columns)
    for number in table.groups:
        group = table.group(number, wanted)
        plain = [_plain(group[name]) for name in wanted]
        yield from (dict(zip(wanted, row, strict=True)) for row in zip(*plain, strict=True))


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a column, and of bytes their number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        n_bytes = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
        has_path = column.type.get_field_index("path") >= 0
        paths = pc.struct_field(column, "path").to_pylist() if has_path else [None] * len(n_bytes)
        return [{"path": path, "n_bytes": n} for path, n in zip(paths, n_bytes, strict=True)]
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return [{"path": None, "n_bytes": n} for n in pc.binary_length(column).to_pylist()]
    return column.to_pylist()  # type: ignore[no-any-return]


def audio_table(rows: Sequence[Mapping[str, Any]], sr: int, *, with_mel: bool = False) -> bytes:
    """Return a Parquet file of recordings, whose column `audio` Hugging Face's datasets decode.

    Parameters
    ----------
    rows : sequence of mapping
        With ``id``, ``audio`` (bytes and path), ``text``, ``speaker_id``, ``gender``, ``subset`` and
        ``duration``, and ``mel`` ``(n_mels, n_frames)`` float32 if there are mels.
    sr : int
        Hz.
    with_mel : bool
    """
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ("text", "speaker_id", "gender", "subset")
    columns: list[tuple[str, pa.DataType]] = [
        ("id", pa.string()),
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.string()) for name in texts),
        ("duration", pa.float64()),
    ]
    strings = {name: {"dtype": "string", "_type": "Value"} for name in ("id", *texts)}
    features: dict[str, Any] = {**strings, "audio": {"sampling_rate": sr, "_type": "Audio"}}
    features["duration"] = {"dtype": "float64", "_type": "Value"}
    if with_mel:
        columns.append(("mel", pa.list_(pa.list_(pa.float32()))))
        inner = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
        features["mel"] = {"feature": inner, "_type": "List"}
    ordered = {name: features[name] for name, _ in columns}
    head = {"huggingface": json.dumps({"info": {"features": ordered}})}
    table = pa.Table.from_pylist(
        [{**row, **({"mel": list(row["mel"])} if with_mel else {})} for row in rows], pa.schema(columns, metadata=head)
    )
    target = pa.BufferOutputStream()
    # Few rows in a group, so that one recording is read without many others.
    pq.write_table(table, target, row_group_size=100)
    return bytes(target.getvalue())
