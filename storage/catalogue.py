"""The catalogue: every utterance of a corpus, with its shard and its place in all arrays.

Which utterances make a shard depends on their ids and lengths alone (`melmill.storage.corpus.packing`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from melmill.storage.corpus.items import ItemRows, items_revisions, items_rows
from melmill.storage.corpus.labels import LABELS, LabelOverlay
from melmill.storage.corpus.new_rows import NewPart, NewRows
from melmill.storage.corpus.packing import length_class
from melmill.storage.corpus.parts import (
    SCHEMA,
    TEXT,
    WHOLE,
    CatalogueRows,
    StoredPart,
    part_name,
    part_names,
    utterances_of,
)
from melmill.storage.corpus.revisions import Reason, Retired, Revisions, Seen, with_seen
from melmill.storage.corpus.shard_set import ShardSet
from melmill.storage.corpus.shards import shard_of_rows
from melmill.storage.errors import CatalogueError, DamagedData, damaged
from melmill.storage.files.location import Location
from melmill.storage.records import record_name, record_order
from melmill.storage.tables import ROW_GROUP, from_texts, rows_at, to_numpy, to_parquet, with_seal
from melmill.storage.utterance import Labels, Shard, Utterance

# Lines of a digest that are in memory at a time.
_LINES = 65_536


class Piece(NamedTuple):
    """Some rows of a catalogue one after the other.

    Parameters
    ----------
    first : int
        Number of the first row in the catalogue, the retired ones counted too.
    table : pyarrow.Table
        The rows, retired ones among them.
    current : (n_rows,) ndarray of bool
        Which of them are not retired.
    """

    first: int
    table: pa.Table
    current: NDArray[np.bool_]

    @property
    def rows(self) -> pa.Table:
        """The rows that are not retired."""
        return self.table if self.current.all() else rows_at(self.table, np.flatnonzero(self.current))


class Catalogue:
    """The utterances of a corpus in storage order. `empty`, `extended` and `read` make one.

    A catalogue is immutable. Extending one adds new shards, and on disk a new part. The old rows
    stay as they are, so data stored for them stays valid. A row of a recording that the corpus has
    no more, or has otherwise, is retired. It keeps its place in its shard, and counts nowhere else.

    Rows on disk are read when they are needed, a piece at a time. `table` holds them all.

    Parameters
    ----------
    parts : sequence of CatalogueRows
        In the order in which they were added.
    sr : int
        Sampling rate of all utterances in the store, Hz.
    shard_duration_s : float
        Audio that a shard holds at most, s.
    n_stored : int
        Parts that are on disk already.
    labels : LabelOverlay
        Texts and speakers that changed since the parts were made.
    revisions : Revisions
        Rows that are retired, and files that have other times than the parts say.
    """

    def __init__(
        self,
        parts: Sequence[CatalogueRows],
        *,
        sr: int,
        shard_duration_s: float,
        n_stored: int,
        labels: LabelOverlay | None = None,
        revisions: Revisions | None = None,
    ) -> None:
        self.sr = sr
        self.shard_duration_s = shard_duration_s
        self.revisions = revisions or Revisions()
        self._labels = labels or LabelOverlay()
        self._parts = tuple(parts)
        self._n_stored = n_stored

    @cached_property
    def table(self) -> pa.Table:
        """The rows that are not retired, with labels, sizes and times as they were last seen."""
        tables = [self._labels.applied(piece.rows) for piece in self.pieces(SCHEMA.names)]
        head = self._parts[0].schema.metadata if self._parts else None
        table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        return table.replace_schema_metadata(head)

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """Yield all rows, some at a time, with sizes and times as they were last seen."""
        needed = list(columns)
        if self.retired:
            needed += ["shard", "utterance_id"]
        if self.revisions.seen and {"size_bytes", "mtime_ns"}.intersection(columns):
            needed += ["shard", "path", "size_bytes", "mtime_ns"]
        needed = list(dict.fromkeys(needed))
        first = 0
        for part in self._parts:
            for table in part.tables(needed):
                if self.revisions.seen and "mtime_ns" in needed:
                    table = with_seen(table, self.revisions.seen)
                yield Piece(first, table.select(columns), self._is_current(table))
                first += table.num_rows

    @property
    def retired(self) -> Mapping[int, frozenset[str]]:
        """Ids of the retired rows, by shard."""
        return self.revisions.retired

    def _is_current(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return whether each row is not retired."""
        current = np.ones(table.num_rows, dtype=np.bool_)
        if not self.retired or not table.num_rows:
            return current
        shards = to_numpy(table["shard"])
        for shard in range(int(shards[0]), int(shards[-1]) + 1):
            if ids := self.retired.get(shard):
                start, stop = np.searchsorted(shards, [shard, shard + 1])
                current[start:stop] = [one not in ids for one in table["utterance_id"][start:stop].to_pylist()]
        return current

    @classmethod
    def empty(cls, sr: int, shard_duration_s: float) -> Catalogue:
        """Return a catalogue without utterances.

        Raises
        ------
        CatalogueError
            A shard holds less than a sample.
        """
        if sr < 1 or sr * shard_duration_s < 1:
            raise CatalogueError(f"a shard of {shard_duration_s!r} s at {sr!r} Hz holds no sample: make it longer")
        return cls([], sr=sr, shard_duration_s=shard_duration_s, n_stored=0)

    @classmethod
    def find(cls, location: Location, *, checked: bool = True) -> Catalogue | None:
        """Return the catalogue that is stored in a folder, None where it holds no file; raise as `read`.

        Parameters
        ----------
        location : Location
        checked : bool
            Whether to read all rows once, to notice damage. Else a page is checked as it is read,
            and a catalogue of any size is opened at once.
        """
        files = location.sizes()
        return cls._read(location, files, checked=checked) if files else None

    @classmethod
    def read(cls, location: Location) -> Catalogue:
        """Return the catalogue that `write_parts` and `write_labels` stored.

        Raises
        ------
        CatalogueError
            There is none.
        DamagedData
            A part is damaged or missing.
        """
        return cls._read(location, location.sizes())

    @classmethod
    def read_parts(cls, location: Location) -> Catalogue:
        """Return the catalogue with the labels that its parts were made with; raise as `read`."""
        return cls._read(location, location.sizes(), with_labels=False)

    @classmethod
    def _read(
        cls, location: Location, files: Mapping[str, int], *, with_labels: bool = True, checked: bool = True
    ) -> Catalogue:
        names = part_names(files)
        if not names:
            raise CatalogueError(f"{location.url}: no catalogue is stored there")
        expected = [part_name(i) for i in range(len(names))]
        if names != expected:
            missing = sorted(set(expected) - set(names))
            raise damaged(location.url, f"parts of the catalogue are missing: {', '.join(missing)}")
        # A local listing is no snapshot. It may show a part, and lack a list that was there before.
        later = files if location.is_remote else location.sizes()
        parts = [StoredPart(location, name) for name in names]
        if checked:
            for part in parts:
                part.check()
        catalogue = cls._of(parts).revised(Revisions.read(location, later))
        return catalogue._with(labels=LabelOverlay.read(location, later)) if with_labels else catalogue

    @classmethod
    def read_whole_parts(cls, location: Location) -> Catalogue | None:
        """Return the catalogue without its last part if that is damaged, None if nothing is left.

        No row of it is retired.

        Raises
        ------
        DamagedData
            An earlier part is damaged.
        """
        names = part_names(location.sizes())
        parts = [_whole_part(location, name) for name in names[:-1]]
        with suppress(DamagedData):
            parts += [_whole_part(location, name) for name in names[-1:]]
        return cls._of(parts) if parts else None

    def check_covers(self, record_names: Iterable[str], place: str) -> None:
        """Raise DamagedData if there is a record of a shard that it lacks, or an id has two rows."""
        self.check_has_shards(record_names, place)
        self.check_unique(place)

    def check_has_shards(self, record_names: Iterable[str], place: str) -> None:
        """Do as `check_covers`, without a look at the rows."""
        last = max(record_names, key=record_order, default=None)
        if last is not None and record_order(last) >= record_order(record_name(self.n_shards)):
            raise damaged(place, f"there is a record of shard {last}, but it has {self.n_shards} shards")

    def check_unique(self, place: str) -> None:
        """Raise DamagedData if an id has two rows that are not retired."""
        if len(self._parts) < 2:
            return
        ids = pa.concat_tables(piece.rows for piece in self.pieces(["utterance_id"]))["utterance_id"]
        if pc.count_distinct(ids).as_py() < len(ids):
            raise damaged(place, "utterances have two rows that count: a list of retired ones is missing")

    @classmethod
    def _of(cls, parts: Sequence[CatalogueRows]) -> Catalogue:
        head = parts[0].schema.metadata or {}
        return cls(parts, sr=int(head[b"sr"]), shard_duration_s=float(head[b"shard_duration_s"]), n_stored=len(parts))

    def outdated(self, present: Collection[str]) -> Iterator[Retired]:
        """Yield the rows whose id has a later row, and those whose path is not in the corpus.

        Parameters
        ----------
        present : collection of str
            Paths of the corpus.
        """
        last = self._index
        columns = (self._column(name) for name in ("shard", "utterance_id", "path"))
        for shard, utterance_id, path in zip(*columns, strict=True):
            if last[utterance_id] != shard:
                yield Retired(shard, utterance_id, path, Reason.CHANGED)
            elif path not in present:
                yield Retired(shard, utterance_id, path, Reason.REMOVED)

    def replace_part(self, location: Location) -> None:
        """Store the part that is not on disk yet, in place of a damaged one."""
        location.replace(part_name(self._n_stored), self._new_parts[0].to_parquet())

    def write_parts(self, location: Location) -> None:
        """Store what is not on disk yet.

        Rows are retired before the parts that replace them appear. So whoever is killed in between
        leaves recordings that the next plan takes for new ones.

        Raises
        ------
        AlreadyThere
            Another run stored others.
        """
        self.revisions.write(location)
        for index, part in enumerate(self._new_parts, self._n_stored):
            location.put(part_name(index), part.to_parquet())

    @property
    def _new_parts(self) -> list[NewPart]:
        """The parts that are not on disk yet."""
        return [part for part in self._parts[self._n_stored :] if isinstance(part, NewPart)]

    def write_labels(self, location: Location) -> None:
        """Store the changed labels that are not on disk yet.

        Raises
        ------
        AlreadyThere
            Another run stored others.
        """
        for name, part in self._labels.unstored.items():
            location.put(name, to_parquet(with_seal(part.replace_schema_metadata({}))))

    def relabelled(self, labels: Mapping[str, Labels]) -> Catalogue:
        """Return the catalogue with what its corpus says now of some utterances, by id."""
        if not labels:
            return self
        stored = self._with(labels=LabelOverlay(), revisions=Revisions())._rows_of(
            from_texts(labels), ["utterance_id", *LABELS]
        )
        return self._with(labels=self._labels.extended(labels, stored))

    def _rows_of(self, ids: pa.LargeStringArray, columns: list[str]) -> pa.Table:
        """Return columns of the rows with these ids, the id among them."""
        tables = (piece.rows for piece in self.pieces(columns))
        found = [table.filter(pc.is_in(table["utterance_id"].cast(ids.type), value_set=ids)) for table in tables]
        return pa.concat_tables(found) if found else SCHEMA.empty_table().select(columns)

    def of_items(self, spans: pa.Table | None, sr: int) -> Catalogue:
        """Return the catalogue of what a node made of the utterances, which is not stored.

        Parameters
        ----------
        spans : pyarrow.Table or None
            What the node kept of the shards that are done; see `melmill.storage.corpus.items.SPANS`.
        sr : int
            Rate that it counts samples at, Hz.
        """
        tables = [self._labels.applied(piece.table) for piece in self.pieces(SCHEMA.names)]
        table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        rows, items = items_rows(table, spans, sr)
        head = {b"sr": str(sr).encode(), b"shard_duration_s": repr(self.shard_duration_s).encode()}
        return Catalogue(
            [ItemRows(rows.replace_schema_metadata(head), self._end)],
            sr=sr,
            shard_duration_s=self.shard_duration_s,
            n_stored=1,
            revisions=items_revisions(self.revisions, items),
        )

    def _with(self, *, labels: LabelOverlay | None = None, revisions: Revisions | None = None) -> Catalogue:
        return Catalogue(
            self._parts,
            sr=self.sr,
            shard_duration_s=self.shard_duration_s,
            n_stored=self._n_stored,
            labels=self._labels if labels is None else labels,
            revisions=self.revisions if revisions is None else revisions,
        )

    def retiring(self, utterances: Iterable[tuple[Utterance, Reason]]) -> Catalogue:
        """Return the catalogue without some of its utterances, whose rows are retired."""
        rows = (Retired(self.shard_of(u.utterance_id), u.utterance_id, u.path, why) for u, why in utterances)
        return self.revised(self.revisions.retiring(rows))

    def seeing(self, utterances: Iterable[Utterance]) -> Catalogue:
        """Return the catalogue with the sizes and times that files of its utterances have now."""
        files = (Seen(self.shard_of(u.utterance_id), u.path, u.size_bytes, u.mtime_ns) for u in utterances)
        return self.revised(self.revisions.seeing(files))

    def revised(self, revisions: Revisions) -> Catalogue:
        """Return the catalogue with other revisions."""
        return self._with(revisions=revisions)

    def extended(self, new: NewRows | Iterable[Utterance]) -> Catalogue:
        """Return the catalogue with more utterances, which are packed into new shards.

        Raises
        ------
        CatalogueError
            An id is catalogued already, or a sampling rate is not the catalogue's.
        """
        rows = new if isinstance(new, NewRows) else NewRows(new)
        if not len(rows):
            return self
        ids = rows.table["utterance_id"]
        catalogued: Mapping[str, str] = {}
        if self._parts:
            again = self._rows_of(pa.concat_arrays(ids.chunks), ["utterance_id", "path"])
            catalogued = dict(zip(*(column.to_pylist() for column in again.columns), strict=True))
        rows.check(self.sr, catalogued)
        part = NewPart(
            rows,
            sr=self.sr,
            shard_duration_s=self.shard_duration_s,
            first_shard=self.n_shards,
            first_slot=self.n_slots,
        )
        longer = Catalogue(
            [*self._parts, part],
            sr=self.sr,
            shard_duration_s=self.shard_duration_s,
            n_stored=self._n_stored,
            labels=self._labels,
            revisions=self.revisions,
        )
        # What was said of an earlier row of the same id does not hold for the new one.
        return longer.relabelled(rows.labels(self._retired_ids))

    @property
    def n_rows(self) -> int:
        """Number of rows, the retired ones among them."""
        return sum(part.n_rows for part in self._parts)

    @cached_property
    def n_utterances(self) -> int:
        """Number of utterances."""
        n_retired = 0
        for shard, ids in self.retired.items():
            n_retired += sum(one in ids for one in self._shard_rows(shard)["utterance_id"].to_pylist())
        return self.n_rows - n_retired

    @cached_property
    def _end(self) -> tuple[int, int]:
        """Numbers of the next shard and of the next slot."""
        return self._parts[-1].end if self._parts else (0, 0)

    @property
    def n_shards(self) -> int:
        """Number of shards, also of those whose utterances are all retired."""
        return self._end[0]

    @property
    def n_slots(self) -> int:
        """Number of Zarr shards that they fill in every array."""
        return self._end[1]

    @cached_property
    def current_mask(self) -> NDArray[np.bool_]:
        """Which shards have an utterance that is not retired."""
        mask = np.ones(self.n_shards, np.bool_)
        for shard, ids in self.retired.items():
            if shard < len(mask):
                mask[shard] = not ids.issuperset(self._shard_rows(shard)["utterance_id"].to_pylist())
        return mask

    @property
    def current_shards(self) -> Set[int]:
        """Indices of the shards that have an utterance that is not retired, in order."""
        return ShardSet(self.current_mask)

    @cached_property
    def duration_s(self) -> float:
        """Length of all utterances, s."""
        pieces = self.pieces(["n_samples"])
        return float(sum(int(to_numpy(piece.table["n_samples"])[piece.current].sum()) for piece in pieces) / self.sr)

    @cached_property
    def shard_durations_s(self) -> NDArray[np.float64]:
        """Length of the utterances of every shard, s."""
        n_samples = np.zeros(self.n_shards, dtype=np.int64)
        for piece in self.pieces(["shard", "n_samples"]):
            np.add.at(n_samples, to_numpy(piece.rows["shard"]), to_numpy(piece.rows["n_samples"]))
        return n_samples / self.sr

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ids and lengths in order of id, and of what is retired.

        It is equal for equal corpora, however they were packed, if nothing in them was retired.
        """
        sha256 = hashlib.sha256()
        tables = [piece.rows for piece in self.pieces(["utterance_id", "n_samples"])]
        pairs = pa.concat_tables(tables).combine_chunks() if tables else SCHEMA.empty_table()
        order = pc.sort_indices(pairs, sort_keys=[("utterance_id", "ascending"), ("n_samples", "ascending")])
        for first in range(0, len(order), _LINES):
            rows = pairs.take(order[first : first + _LINES])
            for name, n in zip(rows["utterance_id"].to_pylist(), rows["n_samples"].to_pylist(), strict=True):
                sha256.update(f"{name}\t{n}\n".encode())
        # A recording that changed may have its old length.
        for shard, ids in sorted(self.retired.items()):
            for name in sorted(ids):
                sha256.update(f"retired\t{shard}\t{name}\n".encode())
        return sha256.hexdigest()

    @cached_property
    def labels_digest(self) -> str:
        """SHA-256 of the labels that changed since cataloguing, "" if none did."""
        ids = (one for piece in self.pieces(["utterance_id"]) for one in piece.rows["utterance_id"].to_pylist())
        return self._labels.digest(ids)

    def shard(self, index: int) -> Shard:
        """Return one shard with its utterances in storage order, retired ones among them."""
        if not 0 <= index < self.n_shards:
            raise CatalogueError(f"there is no shard {index!r}: the catalogue has {self.n_shards}")
        rows = self._labels.applied(self._shard_rows(index))
        return shard_of_rows(index, rows, self.retired.get(index, frozenset()))

    def _shard_rows(self, index: int) -> pa.Table:
        """Return the rows of a shard, none if there is no such shard."""
        found = (part.shard_rows(index) for part in self._parts)
        rows = next((rows for rows in found if len(rows)), None)
        # Arrow imports pandas for an empty table.
        return SCHEMA.empty_table() if rows is None else rows

    def labelled(self, columns: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], pa.Table, list[int]]]:
        """Yield the rows that are not retired with their labels, some at a time.

        Each time they come with their numbers, as `pieces` counts them, and the stamps of their labels.
        """
        for piece in self.pieces([*columns, "utterance_id", *LABELS]):
            rows = self._labels.applied(piece.rows)
            yield piece.first + np.flatnonzero(piece.current), rows, self._labels.stamps(rows["utterance_id"])

    def utterances(self) -> Iterator[Utterance]:
        """Yield all utterances in storage order."""
        for piece in self.pieces(TEXT + WHOLE):
            yield from self._made_of(piece.rows)

    def utterances_at(self, rows: NDArray[np.int64]) -> dict[int, Utterance]:
        """Return the utterances of some rows by the row's number, as `pieces` counts them."""
        found: dict[int, Utterance] = {}
        wanted, first = np.sort(rows), 0
        for part in self._parts:
            here = wanted[slice(*np.searchsorted(wanted, [first, first + part.n_rows]))] - first
            for start in np.unique(here // ROW_GROUP * ROW_GROUP).tolist():
                places = here[slice(*np.searchsorted(here, [start, start + ROW_GROUP]))]
                table = rows_at(part.rows(start, min(start + ROW_GROUP, part.n_rows)), places - start)
                if self.revisions.seen:
                    table = with_seen(table, self.revisions.seen)
                found |= dict(zip((places + first).tolist(), self._made_of(table), strict=True))
            first += part.n_rows
        return found

    def _made_of(self, rows: pa.Table) -> Iterator[Utterance]:
        return utterances_of(self._labels.applied(rows), self._labels.stamps(rows["utterance_id"]))

    @cached_property
    def current_records(self) -> Mapping[str, int]:
        """Indices of `current_shards` by the name of their record."""
        return {record_name(index): index for index in self.current_shards}

    def retired_in(self, name: str) -> frozenset[str]:
        """Return the ids of the retired utterances of the shard of a record."""
        return self.revisions.by_record.get(name, frozenset())

    @cached_property
    def packing_order(self) -> Mapping[str, int]:
        """Place of each id in the order in which the whole corpus would be packed at once.

        It is empty where that is the storage order.
        """
        if len(self._parts) < 2:
            return {}
        ids = self._column("utterance_id")
        keys = {name: (length_class(n), name) for name, n in zip(ids, self._column("n_samples"), strict=True)}
        return {name: place for place, name in enumerate(sorted(ids, key=keys.__getitem__))}

    def is_remade(self, utterance_id: str) -> bool:
        """Return whether an earlier row of an utterance is retired."""
        return utterance_id in self._retired_ids

    @cached_property
    def _retired_ids(self) -> frozenset[str]:
        return frozenset().union(*self.retired.values())

    def shard_of(self, utterance_id: str) -> int:
        """Return the index of the shard that holds an utterance.

        Raises
        ------
        CatalogueError
            No utterance has this id.
        """
        index = self._index.get(utterance_id)
        if index is None:
            raise CatalogueError(f"no utterance is called {utterance_id!r} among the {self.n_utterances} catalogued")
        return index

    def __contains__(self, utterance_id: object) -> bool:
        return utterance_id in self._index

    @cached_property
    def _index(self) -> dict[str, int]:
        return dict(zip(self._column("utterance_id"), self._column("shard"), strict=True))

    def _column(self, name: str) -> list[Any]:
        return list(self.table[name].to_pylist())


def _whole_part(location: Location, name: str) -> StoredPart:
    part = StoredPart(location, name)
    part.check()
    return part
