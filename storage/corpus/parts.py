"""Parts of a catalogue: tables of utterances in storage order, of which few rows are in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import repeat
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from melmill.storage.errors import damaged
from melmill.storage.files.local import store_error
from melmill.storage.files.location import Location
from melmill.storage.tables import checksum, shared_values, to_numpy
from melmill.storage.utterance import Utterance

TEXT = ["utterance_id", "subset", "speaker_id", "chapter_id", "text", "path", "sex", "speaker_name"]
# Columns of few values, each in many rows.
REPEATED = frozenset({"subset", "speaker_id", "chapter_id", "sex", "speaker_name", "source_sr", "sr"})
WHOLE = ["size_bytes", "mtime_ns", "source_sr", "source_n_samples", "sr", "n_samples"]
SCHEMA = pa.schema(
    [(name, pa.string()) for name in TEXT]
    + [(name, pa.int64()) for name in WHOLE]
    + [("duration_s", pa.float64())]
    + [(name, pa.int64()) for name in ("shard", "slot", "n_slots", "start")]
)

# Pieces of a part that stay decoded.
_KEPT = 2


class CatalogueRows(Protocol):
    """The rows of one part. They are in order of shard."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of `SCHEMA`, with what the part says of the whole catalogue in its metadata."""
        ...

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def end(self) -> tuple[int, int]:
        """Numbers of the next part's first shard and first slot."""
        ...

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows, a piece at a time."""
        ...

    def rows(self, start: int, stop: int) -> pa.Table:
        """Return the rows from `start` to before `stop`."""
        ...

    def shard_rows(self, index: int) -> pa.Table:
        """Return the rows of a shard, none if it is of another part."""
        ...


class StoredPart:
    """The rows of a part on disk. A piece of it, a row group, is decoded when it is needed.

    Pages have checksums, which are looked at as they are read. `check` looks at all of them, and
    at the checksum of the whole.

    Parameters
    ----------
    location : Location
        Folder of the catalogue.
    name : str
        Of the file.

    Raises
    ------
    DamagedData
        The file is no part of a catalogue.
    """

    def __init__(self, location: Location, name: str) -> None:
        self._location = location
        self._name = name
        self._pieces: dict[int, pa.Table] = {}
        if self.schema.names != SCHEMA.names:
            raise damaged(self._place, "its columns are not those of a catalogue")

    def __getstate__(self) -> dict[str, object]:
        return {"_location": self._location, "_name": self._name, "_pieces": {}}

    @property
    def _place(self) -> str:
        return f"{self._location.url}/{self._name}"

    @contextmanager
    def _reading(self, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
        """Yield the file, which is closed after it: catalogues live as long as their readers."""
        with self._source() as source:
            try:
                yield pq.ParquetFile(source, metadata=metadata, page_checksum_verification=True)
            except (OSError, pa.ArrowException) as error:
                raise damaged(self._place, f"not a whole Parquet file ({error})") from error

    def _source(self) -> pa.NativeFile:
        return _opened(self._place) if self._stored is None else pa.BufferReader(self._stored)

    @cached_property
    def _stored(self) -> bytes | None:
        # On object stores, the file stays in memory as it is stored.
        return self._location.read(self._name) if self._location.is_remote else None

    @cached_property
    def _metadata(self) -> pq.FileMetaData:
        with self._reading() as file:
            return file.metadata

    @cached_property
    def _sealed_schema(self) -> pa.Schema:
        with self._reading(self._metadata) as file:
            return file.schema_arrow

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns and metadata, without the checksum."""
        head = dict(self._sealed_schema.metadata or {})
        head.pop(b"sha256", None)
        return self._sealed_schema.with_metadata(head)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self._metadata.num_rows)

    @property
    def end(self) -> tuple[int, int]:
        """Numbers of the next part's first shard and first slot."""
        last = self._piece(len(self._starts) - 2, ["shard", "slot", "n_slots"])
        shard, slot, n_slots = (int(column[-1].as_py()) for column in last.columns)
        return shard + 1, slot + n_slots

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """First row of each piece, and the number of rows."""
        metadata = self._metadata
        return np.cumsum([0, *(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))])

    def _piece(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """Return the rows of a piece; with all columns, it is kept for a while."""
        if index in self._pieces:
            piece = self._pieces[index]
            return piece if columns is None else piece.select(columns)
        with self._reading(self._metadata) as file:
            piece = file.read_row_group(index, columns=columns, use_threads=False)
        if columns is None:
            piece = piece.replace_schema_metadata(self.schema.metadata)
            while len(self._pieces) >= _KEPT:
                del self._pieces[next(iter(self._pieces))]
            self._pieces[index] = piece
        return piece

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows, a piece at a time."""
        for index in range(len(self._starts) - 1):
            yield self._piece(index, columns)

    def rows(self, start: int, stop: int) -> pa.Table:
        """Return the rows from `start` to before `stop`."""
        first, last = np.searchsorted(self._starts, [start, max(start, stop - 1)], side="right") - 1
        pieces = [self._piece(index) for index in range(first, min(last, len(self._starts) - 2) + 1)]
        table = pa.concat_tables(pieces) if pieces else SCHEMA.empty_table()
        return table.slice(start - int(self._starts[first]), stop - start)

    def shard_rows(self, index: int) -> pa.Table:
        """Return the rows of a shard, none if it is of another part."""
        found = []
        for piece in self._pieces_of(index):
            table = self._piece(piece)
            start, stop = np.searchsorted(to_numpy(table["shard"]), [index, index + 1])
            found.append(table.slice(start, stop - start))
        return pa.concat_tables(found) if found else SCHEMA.empty_table()

    def _pieces_of(self, index: int) -> range:
        """Return the pieces that may hold rows of a shard."""
        first, last = self._shard_ranges
        return range(int(np.searchsorted(last, index)), int(np.searchsorted(first, index, side="right")))

    @cached_property
    def _shard_ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last shard of each piece."""
        metadata, column = self._metadata, self.schema.get_field_index("shard")
        ranges = []
        for index in range(metadata.num_row_groups):
            statistics = metadata.row_group(index).column(column).statistics
            if statistics is None or not statistics.has_min_max:
                shards = to_numpy(self._piece(index, ["shard"])["shard"])
                ranges.append((int(shards[0]), int(shards[-1])))
            else:
                ranges.append((statistics.min, statistics.max))
        first, last = zip(*ranges, strict=True) if ranges else ((), ())
        return np.array(first, np.int64), np.array(last, np.int64)

    def check(self) -> None:
        """Raise DamagedData if the values are not those that were written."""
        found = checksum(self.schema, lambda name: (c for t in self.tables([name]) for c in t[name].chunks))
        if (self._sealed_schema.metadata or {}).get(b"sha256") != found:
            raise damaged(self._place, "its rows have another checksum than when they were written")


def _opened(path: str) -> pa.OSFile:
    try:
        return pa.OSFile(path, "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise store_error(error, path, "read") from error


def utterances_of(rows: pa.Table | pa.RecordBatch, stamps: Iterable[int] | None = None) -> Iterator[Utterance]:
    """Yield the utterances of rows, with the stamps of their labels."""
    # By column: Arrow's own rows take twice as long.
    columns = [shared_values(rows[name]) if name in REPEATED else rows[name].to_pylist() for name in TEXT + WHOLE]
    # By name: unpacking a dictionary of a row takes twice as long.
    for row in zip(*columns, repeat(0, rows.num_rows) if stamps is None else stamps, strict=True):
        utterance_id, subset, speaker, chapter, text, path, sex, name, size, mtime, *rates, stamp = row
        source_sr, source_n_samples, sr, n_samples = rates
        yield Utterance(
            utterance_id=utterance_id,
            subset=subset,
            speaker_id=speaker,
            chapter_id=chapter,
            text=text,
            path=path,
            size_bytes=size,
            mtime_ns=mtime,
            source_sr=source_sr,
            source_n_samples=source_n_samples,
            sr=sr,
            n_samples=n_samples,
            sex=sex,
            speaker_name=name,
            text_stamp=stamp,
        )


def part_names(files: Iterable[str]) -> list[str]:
    """Return the names of the parts among files, by number, which may have more than six digits."""
    return sorted((name for name in files if name.startswith("part-")), key=lambda name: (len(name), name))


def part_name(index: int) -> str:
    """Return the file name of a part."""
    return f"part-{index:06d}.parquet"
