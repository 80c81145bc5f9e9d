"""Labels that changed after their utterances were catalogued, laid over the catalogue's parts.

Parts of a catalogue are never rewritten, because arrays lie where they say. What a corpus says of
an utterance may be mended at any time, and is stored beside them, in parts of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from melmill.storage.errors import DamagedData
from melmill.storage.files.location import Location
from melmill.storage.tables import from_numpy, from_parquet, rows_at, to_numpy, without_seal
from melmill.storage.utterance import Labels

LABELS = ("text", "speaker_id", "sex", "speaker_name")
SCHEMA = pa.schema(
    [("utterance_id", pa.string())]
    + [(name, pa.string()) for name in LABELS]
    # Whether the row's labels replace those of the part, and the stamp of the files they are from.
    + [("replaces", pa.int64()), ("text_stamp", pa.int64())]
)


def label_file(index: int) -> str:
    """Return the file name of a part of an overlay."""
    return f"texts-{index:06d}.parquet"


def label_files(names: Iterable[str]) -> list[str]:
    """Return those of some file names that are parts of an overlay, in their order."""
    return sorted((name for name in names if name.startswith("texts-")), key=lambda name: (len(name), name))


def damaged_labels(location: Location) -> dict[str, str]:
    """Return what is wrong with files of changed labels, by name. The corpus has them all."""
    problems = {}
    for name in label_files(location.sizes()):
        try:
            _read_part(location, name)
        except DamagedData as error:
            problems[name] = str(error)
    return problems


def _read_part(location: Location, name: str) -> pa.Table:
    place = f"{location.url}/{name}"
    return without_seal(from_parquet(location.read(name), place), SCHEMA, place)


class LabelOverlay:
    """Labels by utterance, of which the last counts. It is immutable.

    Parameters
    ----------
    parts : sequence of pyarrow.Table
        Of `SCHEMA`, in the order in which they were added.
    n_stored : int
        Parts that are on disk already.
    next_index : int
        Number of the next part on disk. A repair may have removed parts, so it may be past
        `n_stored`.
    """

    def __init__(self, parts: Sequence[pa.Table] = (), *, n_stored: int = 0, next_index: int = 0) -> None:
        self.parts = tuple(parts)
        self._n_stored = n_stored
        self._next_index = next_index

    @classmethod
    def read(cls, location: Location, names: Iterable[str]) -> LabelOverlay:
        """Return the overlay that is stored among the files `names` of a catalogue's folder.

        Raises
        ------
        DamagedData
            A part of it is damaged.
        """
        stored = label_files(names)
        next_index = int(stored[-1].removeprefix("texts-").partition(".")[0]) + 1 if stored else 0
        return cls([_read_part(location, name) for name in stored], n_stored=len(stored), next_index=next_index)

    @property
    def unstored(self) -> dict[str, pa.Table]:
        """The parts that are not on disk yet, by the name of their file."""
        return {label_file(self._next_index + i): part for i, part in enumerate(self.parts[self._n_stored :])}

    @cached_property
    def _last(self) -> pa.Table:
        """The last row of each utterance."""
        table = pa.concat_tables(self.parts) if self.parts else pa.Table.from_batches([], SCHEMA)
        table = rows_at(table, np.arange(table.num_rows)[::-1]).combine_chunks()
        first = pc.index_in(table["utterance_id"], value_set=table["utterance_id"])
        return rows_at(table, np.flatnonzero(to_numpy(first) == np.arange(table.num_rows)))

    @cached_property
    def _replacing(self) -> pa.Table:
        """The last rows whose labels replace those of the part."""
        return rows_at(self._last, np.flatnonzero(to_numpy(self._last["replaces"]) == 1))

    def applied(self, table: pa.Table) -> pa.Table:
        """Return the rows of catalogue parts with the labels that replace theirs."""
        replaced = self._replacing
        if not replaced.num_rows:
            return table
        rows = pc.index_in(table["utterance_id"], value_set=replaced["utterance_id"])
        for name in LABELS:
            column = pc.coalesce(replaced[name].take(rows), table[name])
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
        return table

    @cached_property
    def _by_hash(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hashes of all ids in order, and their rows in `_last`."""
        ids = self._last["utterance_id"].to_pylist()
        hashes = np.fromiter(map(hash, ids), np.int64, len(ids))
        order = np.argsort(hashes)
        return hashes[order], order

    def _rows(self, ids: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the row in `_last` of every id, and whether there is one."""
        hashes, rows = self._by_hash
        wanted = np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids))
        found = rows[np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)]
        said = self._last["utterance_id"].take(from_numpy(found))
        return found, np.array(pc.equal(said, ids).to_pylist(), np.bool_)

    def stamps(self, ids: pa.ChunkedArray) -> list[int]:
        """Return the stamp of every utterance, 0 where none is known."""
        if not self.parts or not self._last.num_rows:
            return [0] * len(ids)
        # Arrow would go through all ids of the overlay for every piece of a catalogue. Of two ids with
        # one hash, one has no stamp: its texts are read again.
        rows, is_there = self._rows(ids)
        stamps: list[int] = np.where(is_there, to_numpy(self._last["text_stamp"])[rows], 0).tolist()
        return stamps

    def extended(self, labels: Mapping[str, Labels], stored: pa.Table) -> LabelOverlay:
        """Return the overlay with the labels of some utterances.

        Parameters
        ----------
        labels : mapping of str to Labels
            By utterance id.
        stored : pyarrow.Table
            Rows of the catalogue's parts. Labels that are equal to theirs need no room.
        """
        if not labels:
            return self
        ids = pa.array(labels, pa.string())
        found = stored.filter(pc.is_in(stored["utterance_id"], value_set=ids)).select(["utterance_id", *LABELS])
        plain = {
            name: tuple(rest) for name, *rest in zip(*(column.to_pylist() for column in found.columns), strict=True)
        }
        rows = []
        for name, (*now, stamp) in sorted(labels.items()):
            same = plain.get(name) == tuple(now)
            rows.append((name, *([""] * len(LABELS) if same else now), int(not same), stamp))
        part = pa.table([list(column) for column in zip(*rows, strict=True)], schema=SCHEMA)
        return LabelOverlay([*self.parts, part], n_stored=self._n_stored, next_index=self._next_index)

    def digest(self, ids: Iterable[str]) -> str:
        """Return the SHA-256 of the labels that replace those of the parts, "" where none do."""
        replaced = self._replacing
        if not replaced.num_rows:
            return ""
        replaced = replaced.filter(pc.is_in(replaced["utterance_id"], value_set=pa.array(ids, pa.string())))
        rows = sorted(zip(*(replaced[name].to_pylist() for name in ("utterance_id", *LABELS)), strict=True))
        return hashlib.sha256(repr(rows).encode()).hexdigest() if rows else ""
