"""Columns between Arrow and NumPy, and the checksum that seals a table."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from melmill.storage.errors import DamagedData
from melmill.storage.tables import from_parquet, rows_at, to_numpy, to_parquet, with_seal

STRINGS = ["", "é", "語 and more", "a", ""]


def tables() -> dict[str, pa.Table]:
    whole = pa.table({"text": STRINGS, "n": [1, -2, 3, 2**40, 5], "x": [0.5, float("nan"), 1.0, 2.0, 3.0]})
    return {
        "whole": whole,
        "slice": whole.slice(1, 3),
        "chunks": pa.concat_tables([whole.slice(0, 2), whole.slice(2, 0), whole.slice(3)]),
        "empty": whole.slice(5),
        "without chunks": pa.Table.from_batches([], whole.schema),
    }


def reference(table: pa.Table) -> bytes:
    """Return the checksum by way of Python's strings and Arrow's own arrays."""
    sha256 = hashlib.sha256(repr([]).encode())
    for column in table.columns:
        if pa.types.is_string(column.type):
            sha256.update("".join(column.to_pylist()).encode())
            column = pc.binary_length(column)
        sha256.update(column.to_numpy().tobytes())
    return sha256.hexdigest().encode()


@pytest.mark.parametrize("name", tables())
def test_a_seal_is_the_hash_of_the_values_however_they_lie(name: str) -> None:
    table = tables()[name]
    assert with_seal(table).schema.metadata[b"sha256"] == reference(table)


@pytest.mark.parametrize(
    "column",
    [
        pa.chunked_array([[1, 2], [], [3]], pa.int64()),
        pa.chunked_array([[1.5, float("nan")]], pa.float32()),
        pa.chunked_array([], pa.int32()),
        pa.chunked_array([[1, None]], pa.int64()),
        pa.chunked_array([["a"], ["b"]]),
        pa.chunked_array([[True, False]]),
    ],
    ids=lambda column: f"{column.type}-{column.num_chunks}",
)
def test_columns_become_the_arrays_that_arrow_makes(column: pa.ChunkedArray) -> None:
    made, wanted = to_numpy(column), column.to_numpy()
    assert made.dtype == wanted.dtype
    np.testing.assert_array_equal(made, wanted)


def test_rows_are_taken_in_order() -> None:
    table = tables()["chunks"]
    assert rows_at(table, np.array([3, 0]))["n"].to_pylist() == [5, 1]
    assert rows_at(table, np.flatnonzero(np.zeros(4, dtype=np.bool_))).num_rows == 0


@pytest.mark.parametrize("name", tables())
def test_parquet_gives_back_the_table(name: str) -> None:
    table = with_seal(tables()[name])
    read = from_parquet(to_parquet(table), "here")
    assert read.schema.equals(table.schema, check_metadata=True)
    assert read.select(["text", "n"]).equals(table.select(["text", "n"]))


def is_damaged(data: bytes) -> bool:
    try:
        from_parquet(data, "here")
    except DamagedData:
        return True
    return False


def test_a_flipped_bit_gives_damage_or_a_table_and_no_other_error() -> None:
    data = to_parquet(tables()["whole"])
    flipped = [bytes([*data[:place], data[place] ^ 0x10, *data[place + 1 :]]) for place in range(len(data))]
    assert sum(map(is_damaged, flipped)) > len(data) / 4
    assert not is_damaged(data)
