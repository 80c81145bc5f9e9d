"""Tables as Parquet bytes. The same rows give the same bytes, and reading detects damage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from melmill.storage.errors import StoreError, damaged

Row = Mapping[str, object]  # a scalar per column

# It bounds the memory that decoding needs besides the table.
ROW_GROUP = 32_768


def to_parquet(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file with a checksum on every page."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP, write_page_checksum=True)
    return bytes(sink.getvalue())


def from_parquet(data: bytes, place: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table of `to_parquet`, or some of its columns.

    Raises
    ------
    DamagedData
        They can't be read. The message names `place`.
    """
    source = pa.BufferReader(data)
    try:
        # `read_table` would import pyarrow.dataset, and with it pandas, for every plan.
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            return file.read(columns=columns and list(columns), use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise damaged(place, f"not a whole Parquet file ({error})") from error


def with_seal(table: pa.Table) -> pa.Table:
    """Return a table with a checksum of its values and metadata in its metadata."""
    head = dict(table.schema.metadata or {})
    return table.replace_schema_metadata({**head, b"sha256": _checksum(table)})


def without_seal(table: pa.Table, schema: pa.Schema, place: str) -> pa.Table:
    """Return the table that `with_seal` was given.

    Raises
    ------
    DamagedData
        It has other columns than `schema`, or does not fit its checksum. The message names `place`.
    """
    head = dict(table.schema.metadata or {})
    sealed = head.pop(b"sha256", None)
    table = table.replace_schema_metadata(head)
    if table.schema.names != schema.names or sealed != _checksum(table):
        raise damaged(place, "its rows have another checksum than when they were written")
    return table


def _checksum(table: pa.Table) -> bytes:
    return checksum(table.schema, lambda name: table[name].chunks)


def checksum(schema: pa.Schema, chunks: Callable[[str], Iterable[pa.Array]]) -> bytes:
    """Return the hash of a table's values: Parquet's own checksums omit its headers and footer.

    Parameters
    ----------
    schema : pyarrow.Schema
        Its metadata are part of the hash.
    chunks : callable
        Returns the values of a column, of which a table may hold no more than one piece at a time.
    """
    sha256 = hashlib.sha256(repr(sorted((schema.metadata or {}).items())).encode())
    for field in schema:
        lengths = []
        for chunk in chunks(field.name):
            if pa.types.is_string(field.type):
                sha256.update(_text_of(chunk))
                lengths.append(to_numpy(pa.chunked_array([pc.binary_length(chunk)])))
            else:
                sha256.update(to_numpy(pa.chunked_array([chunk])).tobytes())
        for numbers in lengths:
            sha256.update(numbers.tobytes())
    return sha256.hexdigest().encode()


def _text_of(chunk: pa.StringArray) -> memoryview:
    """Return the strings of a column one after the other, in UTF-8, where Arrow has them."""
    _, offsets, text = chunk.buffers()
    if not len(chunk) or text is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, dtype=np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    return memoryview(text)[ends[0] : ends[-1]]


def to_numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column's values as an array.

    Arrow's own way imports pandas, which takes longer than the rest of a plan. Numbers don't need
    it, where none is missing.

    >>> to_numpy(pa.chunked_array([[1, 2], [3]]))
    array([1, 2, 3])
    """
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not is_number or column.null_count:
        return np.asarray(column.to_numpy())
    chunks = [np.from_dlpack(chunk) for chunk in column.chunks if len(chunk)]
    return np.concatenate(chunks) if chunks else np.empty(0, column.type.to_pandas_dtype())


def rows_at(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return the rows of a table at these places, without pandas, as in `to_numpy`.

    >>> rows_at(pa.table({"n": [5, 6, 7]}), np.array([2, 0]))["n"].to_pylist()
    [7, 5]
    """
    return table.take(from_numpy(rows))


def from_numpy(numbers: NDArray[Any]) -> pa.Array:
    """Return numbers as Arrow holds them, as int64 or float64, without pandas, as in `to_numpy`."""
    kind, dtype = (pa.float64(), np.float64) if numbers.dtype.kind == "f" else (pa.int64(), np.int64)
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers, dtype))])


def from_texts(texts: Iterable[str]) -> pa.LargeStringArray:
    """Return texts as Arrow holds them, without pandas, as in `to_numpy`.

    >>> from_texts(["a", "", "é"]).to_pylist()
    ['a', '', 'é']
    """
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers)


def shared_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return a column's values, where equal ones are one object: that takes less time and memory.

    >>> shared_values(pa.chunked_array([["a", "b"], ["a"]]))
    ['a', 'b', 'a']
    """
    values: list[Any] = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        encoded = chunk.dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        values += [distinct[index] for index in encoded.indices.to_pylist()]
    return values


def rows_table(rows: Sequence[Row], place: str) -> pa.Table:
    """Return a table of rows of plain or NumPy scalars. Columns are in order of first appearance.

    >>> rows_table([{"utterance_id": "a", "pesq_wb": np.float32(1.5)}, {"utterance_id": "b"}], "scores").to_pydict()
    {'utterance_id': ['a', 'b'], 'pesq_wb': [1.5, None]}
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        columns[name] = [value.item() if isinstance(value, np.generic) else value for value in values]
    try:
        return pa.table(columns)
    except pa.ArrowException as error:
        raise StoreError(f"{place}: a column holds values of different types ({error}): {names!r}") from error


def traces_table(traces: Mapping[str, Mapping[str, NDArray[np.int64 | np.float64 | np.str_]]], place: str) -> pa.Table:
    """Return a table of a row per utterance and iteration.

    Raises
    ------
    StoreError
        Columns differ in length.
    """
    tables = []
    for utterance_id, columns in traces.items():
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise StoreError(f"{place}: the trace of {utterance_id!r} has columns of different lengths, {lengths!r}")
        ids = pa.array([utterance_id] * max(lengths.values(), default=0), pa.string())
        tables.append(pa.table({"utterance_id": ids} | {name: pa.array(values) for name, values in columns.items()}))
    return concatenated(tables, place).combine_chunks()


def concatenated(tables: Sequence[pa.Table], place: str) -> pa.Table:
    """Return tables below one another.

    Missing columns become null, and integers floats where both occur.
    """
    try:
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    except pa.ArrowException as error:
        raise StoreError(f"{place}: its parts hold columns of different types ({error})") from error
