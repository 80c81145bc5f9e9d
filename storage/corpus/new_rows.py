"""Utterances that a catalogue is to have more, gathered by column and laid out as a part."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from itertools import islice, repeat
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from melmill.storage.corpus.packing import pack, packing_order, slots
from melmill.storage.corpus.parts import REPEATED, SCHEMA, TEXT
from melmill.storage.errors import CatalogueError
from melmill.storage.tables import ROW_GROUP, checksum, from_numpy, from_texts, rows_at, to_numpy
from melmill.storage.utterance import Labels, Utterance

_GIVEN = [name for name in Utterance._fields if name != "text"]
# Utterances that are objects at a time.
_GATHERED = 4096


class NewRows:
    """Gather utterances, of which few are objects at a time. Texts, the most of them, are compressed."""

    def __init__(self, utterances: Iterable[Utterance] = ()) -> None:
        self._objects: list[Utterance] = []
        self._columns = {name: _column(name) for name in _GIVEN}
        self._texts = _CompressedTexts()
        # Of ids.
        self._hashes = array("q")
        self.extend(utterances)

    def __len__(self) -> int:
        return len(self._hashes) + len(self._objects)

    def extend(self, utterances: Iterable[Utterance]) -> None:
        """Add utterances."""
        further = iter(utterances)
        while some := list(islice(further, _GATHERED - len(self._objects))):
            self._objects += some
            if len(self._objects) == _GATHERED:
                self._gather()

    def _gather(self) -> None:
        fields = zip(*self._objects, strict=True) if self._objects else repeat((), len(Utterance._fields))
        columns = dict(zip(Utterance._fields, fields, strict=True))
        self._texts.add(columns["text"])
        for name, gathered in self._columns.items():
            gathered.add(columns[name])
        self._hashes.extend(_whole_numbers(map(hash, columns["utterance_id"])))
        self._objects = []

    @cached_property
    def table(self) -> pa.Table:
        """All utterances in the order in which they came, without texts. None may follow."""
        self._gather()
        return pa.table({name: gathered.joined() for name, gathered in self._columns.items()})

    @property
    def texts(self) -> pa.LargeStringArray:
        """The texts of all utterances, in the order of `table`."""
        return self._texts.joined()

    def check(self, sr: int, catalogued: Mapping[str, str]) -> None:
        """Raise CatalogueError if an utterance has another rate, or an id that another has.

        Parameters
        ----------
        sr : int
            Rate of the catalogue, Hz.
        catalogued : mapping of str to str
            Path of each utterance with one of these ids that the catalogue has.
        """
        ids, rates = self.table["utterance_id"], to_numpy(self.table["sr"])
        hashes = np.sort(np.array(self._hashes))
        # Equal ids have equal hashes.
        if (rates == sr).all() and not catalogued and (hashes[1:] != hashes[:-1]).all():
            return
        paths = dict(catalogued)
        for utterance_id, path, rate in zip(ids.to_pylist(), self.table["path"].to_pylist(), rates, strict=True):
            if rate != sr:
                raise CatalogueError(f"{path}: sr is {int(rate)!r} Hz, the catalogue's is {sr!r} Hz")
            if utterance_id in paths:
                raise CatalogueError(
                    f"two files are called {utterance_id!r}: {paths[utterance_id]} and {path}. Leave one out or rename "
                    "it: ids must be unique."
                )
            paths[utterance_id] = path

    def labels(self, remade: Set[str]) -> dict[str, Labels]:
        """Return the labels of the utterances with a stamp, and of those in `remade`, by id."""
        wanted = to_numpy(self.table["text_stamp"]) != 0
        if remade:
            wanted |= np.fromiter((one in remade for one in self.table["utterance_id"].to_pylist()), np.bool_)
        if not wanted.any():
            return {}
        rows = rows_at(self.table.append_column("text", self.texts), np.flatnonzero(wanted))
        columns = (rows[name].to_pylist() for name in ("utterance_id", *Labels._fields))
        return {name: Labels(*labels) for name, *labels in zip(*columns, strict=True)}


class _Column(Protocol):
    """Values that grow in one place, so that they take little more than their size."""

    def add(self, values: Sequence[Any]) -> None: ...
    def joined(self) -> pa.Array: ...


class _Numbers:
    def __init__(self) -> None:
        self._values = array("q")

    def add(self, values: Sequence[int]) -> None:
        # Many columns hold one value, such as a rate.
        same = values and values.count(values[0]) == len(values)
        self._values.extend(_whole_numbers(values[:1]) * len(values) if same else _whole_numbers(values))

    def joined(self) -> pa.Array:
        return pa.Array.from_buffers(pa.int64(), len(self._values), [None, pa.py_buffer(self._values)])


class _Texts:
    def __init__(self) -> None:
        self._data = bytearray()
        self._lengths = array("i")

    def add(self, values: Sequence[str]) -> None:
        data, lengths = _encoded(values)
        self._lengths.extend(lengths)
        self._data += data

    def joined(self) -> pa.Array:
        return _texts(np.array(self._lengths, np.int64), self._data)


class _Codes(dict[str, int]):
    """A number for each text that was asked for."""

    def __missing__(self, text: str) -> int:
        code = self[text] = len(self)
        return code


class _RepeatedTexts:
    def __init__(self) -> None:
        self._codes = array("i")
        self._distinct = _Codes()

    def add(self, values: Sequence[str]) -> None:
        if values and values.count(values[0]) == len(values):
            self._codes.extend(array("i", [self._distinct[values[0]]]) * len(values))
        else:
            self._codes.extend(_whole_numbers(map(self._distinct.__getitem__, values), "i"))

    def joined(self) -> pa.Array:
        codes = pa.Array.from_buffers(pa.int32(), len(self._codes), [None, pa.py_buffer(self._codes)])
        return pa.DictionaryArray.from_arrays(codes, from_texts(self._distinct))


class _CompressedTexts:
    def __init__(self) -> None:
        self._codec = pa.Codec("zstd", 1)
        self._pieces: list[tuple[bytes, int]] = []
        self._lengths = array("i")

    def add(self, values: Sequence[str]) -> None:
        data, lengths = _encoded(values)
        self._lengths.extend(lengths)
        self._pieces.append((self._codec.compress(data, asbytes=True), len(data)))

    def joined(self) -> pa.Array:
        data, first = np.empty(sum(n_bytes for _, n_bytes in self._pieces), np.uint8), 0
        for piece, n_bytes in self._pieces:
            data[first : first + n_bytes] = np.frombuffer(self._codec.decompress(piece, n_bytes), np.uint8)
            first += n_bytes
        return _texts(np.array(self._lengths, np.int64), data)


def _whole_numbers(values: Iterable[int], code: str = "q") -> array[int]:
    # An array takes numbers from another array in one go, and from elsewhere one by one.
    return array(code, list(values))


def _encoded(values: Sequence[str]) -> tuple[bytes, array[int]]:
    """Return the bytes of texts one after the other, and how many each has."""
    joined = "".join(values)
    data = joined.encode()
    pieces: Sequence[str | bytes] = values if len(data) == len(joined) else list(map(str.encode, values))
    return data, _whole_numbers(map(len, pieces), "i")


def _column(name: str) -> _Column:
    if name in TEXT:
        return _RepeatedTexts() if name in REPEATED else _Texts()
    return _Numbers()


def _texts(lengths: NDArray[np.int64], data: bytearray | NDArray[np.uint8]) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return pa.Array.from_buffers(pa.large_string(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


class NewPart:
    """The rows of a part that is not on disk yet.

    Parameters
    ----------
    new : NewRows
        What it holds, in any order.
    sr : int
        Rate of all utterances, Hz.
    shard_duration_s : float
        Audio that a shard holds at most, s.
    first_shard, first_slot : int
        Numbers of its first shard, and of the first slot that it fills in arrays.
    """

    def __init__(self, new: NewRows, *, sr: int, shard_duration_s: float, first_shard: int, first_slot: int) -> None:
        head = {"sr": str(sr), "shard_duration_s": repr(float(shard_duration_s))}
        self.schema = SCHEMA.with_metadata(head)
        self._sr = sr
        self._new = new
        self._given = new.table
        n_samples = to_numpy(self._given["n_samples"])
        self._order = packing_order(self._given["utterance_id"], n_samples)
        capacity = int(shard_duration_s * sr)
        sorted_lengths = n_samples[self._order]
        self._sizes = np.array(list(pack(sorted_lengths, capacity)), np.int64)
        self._first_rows = np.cumsum(self._sizes) - self._sizes
        # Samples before each utterance.
        self._before = np.cumsum(sorted_lengths) - sorted_lengths
        self._n_slots = slots(np.add.reduceat(sorted_lengths, self._first_rows), capacity)
        self._slot = first_slot + np.cumsum(self._n_slots) - self._n_slots
        self._first_shard = first_shard
        self._kept: tuple[int, pa.Table] | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self._order)

    @property
    def end(self) -> tuple[int, int]:
        """Numbers of the next part's first shard and first slot."""
        return self._first_shard + len(self._sizes), int(self._slot[-1] + self._n_slots[-1])

    def rows(self, start: int, stop: int) -> pa.Table:
        """Return the rows from `start` to before `stop`."""
        pieces = [self._piece(index) for index in range(start // ROW_GROUP, -(-stop // ROW_GROUP))]
        return pa.concat_tables(pieces).slice(start - start // ROW_GROUP * ROW_GROUP, stop - start)

    def _piece(self, index: int) -> pa.Table:
        """Return the rows of a row group. The last one is kept."""
        if self._kept is None or self._kept[0] != index:
            self._kept = index, self._made(index, SCHEMA.names, self._new.texts)
        return self._kept[1]

    def _made(self, index: int, names: Sequence[str], texts: pa.LargeStringArray | None) -> pa.Table:
        """Make columns of a row group."""
        start = index * ROW_GROUP
        stop = min(start + ROW_GROUP, self.n_rows)
        order = from_numpy(self._order[start:stop])
        columns = {name: self._values(name, start, stop, order) for name in names if name != "text"}
        if texts is not None and "text" in names:
            columns["text"] = texts.take(order).cast(pa.string())
        schema = pa.schema([SCHEMA.field(name) for name in names], metadata=self.schema.metadata)
        return pa.table([columns[name] for name in names], schema=schema)

    def _values(self, name: str, start: int, stop: int, order: pa.Array) -> pa.Array:
        if name in self._given.column_names:
            values = self._given[name].take(order)
            return pa.concat_arrays(values.cast(SCHEMA.field(name).type).chunks)
        if name == "duration_s":
            return from_numpy(to_numpy(self._given["n_samples"].take(order)) / self._sr)
        shard = np.searchsorted(self._first_rows, np.arange(start, stop), side="right") - 1
        if name == "start":
            return from_numpy(self._before[start:stop] - self._before[self._first_rows[shard]])
        return from_numpy(
            {"shard": self._first_shard + shard, "slot": self._slot[shard], "n_slots": self._n_slots[shard]}[name]
        )

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows, a piece at a time."""
        names = SCHEMA.names if columns is None else columns
        texts = self._new.texts if "text" in names else None
        for index in range(-(-self.n_rows // ROW_GROUP)):
            yield self._made(index, names, texts)

    def shard_rows(self, index: int) -> pa.Table:
        """Return the rows of a shard, none if it is of another part."""
        own = index - self._first_shard
        if not 0 <= own < len(self._sizes):
            return SCHEMA.empty_table()
        start = int(self._first_rows[own])
        return self.rows(start, start + int(self._sizes[own]))

    def to_parquet(self) -> bytes:
        """Return the bytes of its file, with a checksum of its values and metadata."""
        sink = pa.BufferOutputStream()
        write_part(sink, self.schema, self.tables)
        return bytes(sink.getvalue())


def write_part(
    sink: pa.NativeFile | str, schema: pa.Schema, tables: Callable[[list[str] | None], Iterable[pa.Table]]
) -> None:
    """Write the file of a part, a row group at a time.

    Parameters
    ----------
    sink : pyarrow.NativeFile or str
    schema : pyarrow.Schema
        `SCHEMA`, with what the part says of the whole catalogue in its metadata.
    tables : callable
        Yields columns, or all for None, a row group at a time.
    """
    seal = checksum(schema, lambda name: (table[name].chunk(0) for table in tables([name])))
    schema = schema.with_metadata({**(schema.metadata or {}), b"sha256": seal})
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for table in tables(None):
            writer.write_table(table.cast(schema), row_group_size=ROW_GROUP)
