"""The catalogue: every utterance of a corpus, with its shard and its place in all arrays.

Which utterances make a shard depends on their ids and lengths alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice, repeat
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from melmill.storage.errors import CatalogueError, DamagedData, damaged
from melmill.storage.files.location import Location
from melmill.storage.labels import SCHEMA as LABEL_SCHEMA
from melmill.storage.labels import LabelOverlay, label_files
from melmill.storage.records import record_name, record_order
from melmill.storage.revisions import Reason, Retired, Revisions, Seen, by_shard, read_lists, with_seen
from melmill.storage.tables import (
    from_parquet,
    rows_at,
    shared_values,
    to_numpy,
    to_parquet,
    with_seal,
    without_seal,
)
from melmill.storage.utterance import Labels, Shard, Utterance

# It bounds what rounding to whole frames can add to the length of a shard.
MAX_UTTERANCES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Utterances of one shard in storage order, and how many slots they fill in arrays."""

    utterances: tuple[Utterance, ...]
    n_slots: int


def pack(utterances: Sequence[Utterance], capacity: int) -> Iterator[Packed]:
    """Yield shards of at most `capacity` samples and `MAX_UTTERANCES` utterances.

    Utterances are sorted by length class and id, so those of a shard have similar lengths, and
    their original order does not matter. One longer than a shard gets a shard of its own, of as
    many slots as it needs.

    Parameters
    ----------
    utterances : sequence of Utterance
    capacity : int
        Samples that one slot holds.
    """
    group: list[Utterance] = []
    room = capacity
    for utterance in sorted(utterances, key=lambda u: (length_class(u.n_samples), u.utterance_id)):
        if group and (utterance.n_samples > room or len(group) == MAX_UTTERANCES):
            yield _packed(group, capacity)
            group, room = [], capacity
        group.append(utterance)
        room -= utterance.n_samples
    if group:
        yield _packed(group, capacity)


def length_class(n_samples: int) -> int:
    """Return the quarter octave of a length, by integer arithmetic: every machine gives the same.

    >>> [length_class(n) for n in (0, 16000, 19483, 19484, 32768)]
    [0, 55, 56, 57, 60]
    """
    return max(0, (n_samples**4).bit_length() - 1)


def _packed(group: list[Utterance], capacity: int) -> Packed:
    n_samples = sum(utterance.n_samples for utterance in group)
    return Packed(utterances=tuple(group), n_slots=max(1, -(-n_samples // capacity)))


_TEXT = ["utterance_id", "subset", "speaker_id", "chapter_id", "text", "path", "sex", "speaker_name"]
# Columns of few values, each in many rows.
_REPEATED = frozenset({"subset", "speaker_id", "chapter_id", "sex", "speaker_name", "source_sr", "sr"})
_WHOLE = ["size_bytes", "mtime_ns", "source_sr", "source_n_samples", "sr", "n_samples"]
_PLACE = ["shard", "slot", "n_slots", "start"]
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXT]
    + [(name, pa.int64()) for name in _WHOLE]
    + [("duration_s", pa.float64())]
    + [(name, pa.int64()) for name in _PLACE]
)


class Catalogue:
    """The utterances of a corpus in storage order. `empty`, `extended` and `read` make one.

    A catalogue is immutable. Extending one adds new shards, and on disk a new part. The old rows
    stay as they are, so data stored for them stays valid. A row of a recording that the corpus has
    no more, or has otherwise, is retired. It keeps its place in its shard, and counts nowhere else.

    Parameters
    ----------
    parts : sequence of pyarrow.Table
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
        parts: Sequence[pa.Table],
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
        # With the retired rows, which keep their places.
        self._all: pa.Table = pa.concat_tables(self._parts) if parts else pa.Table.from_batches([], _SCHEMA)

    @cached_property
    def table(self) -> pa.Table:
        """The rows that are not retired, with labels, sizes and times as they were last seen."""
        table = self._labels.applied(self._all)
        if self.revisions.seen:
            table = with_seen(table, self.revisions.seen)
        return rows_at(table, np.flatnonzero(self._is_current)) if self.retired else table

    @property
    def retired(self) -> Mapping[int, frozenset[str]]:
        """Ids of the retired rows, by shard."""
        return self.revisions.retired

    @cached_property
    def _is_current(self) -> NDArray[np.bool_]:
        """Whether each row is not retired."""
        current = np.ones(self._all.num_rows, dtype=np.bool_)
        for shard, ids in self.retired.items():
            if shard < self.n_shards:
                start, stop = self._rows[shard : shard + 2]
                current[start:stop] = [one not in ids for one in self._all["utterance_id"][start:stop].to_pylist()]
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
    def read(cls, location: Location) -> Catalogue:
        """Return the catalogue that `write_parts` and `write_labels` stored.

        Raises
        ------
        CatalogueError
            There is none.
        DamagedData
            A part is damaged or missing.
        """
        return cls.read_parts(location)._with(labels=_read_labels(location))

    @classmethod
    def read_parts(cls, location: Location) -> Catalogue:
        """Return the catalogue with the labels that its parts were made with; raise as `read`."""
        files = location.sizes()
        names = _part_names(files)
        if not names:
            raise CatalogueError(f"{location.url}: no catalogue is stored there")
        expected = [part_name(i) for i in range(len(names))]
        if names != expected:
            missing = sorted(set(expected) - set(names))
            raise damaged(location.url, f"parts of the catalogue are missing: {', '.join(missing)}")
        # A local listing is no snapshot. It may show a part, and lack a list that was there before.
        later = files if location.is_remote else location.sizes()
        return cls._of([_read_part(location, name) for name in names]).revised(Revisions.read(location, later))

    @classmethod
    def read_whole_parts(cls, location: Location) -> Catalogue | None:
        """Return the catalogue without its last part if that is damaged, None if nothing is left.

        No row of it is retired.

        Raises
        ------
        DamagedData
            An earlier part is damaged.
        """
        names = _part_names(location.sizes())
        parts = [_read_part(location, name) for name in names[:-1]]
        with suppress(DamagedData):
            parts += [_read_part(location, name) for name in names[-1:]]
        return cls._of(parts) if parts else None

    @staticmethod
    def damaged_labels(location: Location) -> dict[str, str]:
        """Return what is wrong with files of changed labels, by name. The corpus has them all."""
        problems = {}
        for name in label_files(location.sizes()):
            try:
                _read_part(location, name, LABEL_SCHEMA)
            except DamagedData as error:
                problems[name] = str(error)
        return problems

    def check_covers(self, record_names: Sequence[str], place: str) -> None:
        """Raise DamagedData if there is a record of a shard that the catalogue lacks."""
        last = max(record_names, key=record_order, default=None)
        if last is not None and record_order(last) >= record_order(record_name(self.n_shards)):
            raise damaged(place, f"there is a record of shard {last}, but it has {self.n_shards} shards")
        self.check_unique(place)

    def check_unique(self, place: str) -> None:
        """Raise DamagedData if an id has two rows that are not retired."""
        if len(self._parts) > 1 and len(self._index) < self.n_utterances:
            raise damaged(place, "utterances have two rows that count: a list of retired ones is missing")

    @classmethod
    def _of(cls, parts: Sequence[pa.Table]) -> Catalogue:
        pa.default_memory_pool().release_unused()
        head = parts[0].schema.metadata
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
        location.replace(part_name(self._n_stored), to_parquet(with_seal(self._parts[self._n_stored])))

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
        for index in range(self._n_stored, len(self._parts)):
            location.put(part_name(index), to_parquet(with_seal(self._parts[index])))

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
        return self._with(labels=self._labels.extended(labels, self._all)) if labels else self

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

    def extended(self, new: Sequence[Utterance]) -> Catalogue:
        """Return the catalogue with more utterances, which are packed into new shards.

        Raises
        ------
        CatalogueError
            An id is catalogued already, or a sampling rate is not the catalogue's.
        """
        if not new:
            return self
        paths = dict(zip(self._column("utterance_id"), self._column("path"), strict=True))
        for utterance in new:
            if utterance.sr != self.sr:
                raise CatalogueError(f"{utterance.path}: sr is {utterance.sr!r} Hz, the catalogue's is {self.sr!r} Hz")
            if utterance.utterance_id in paths:
                raise CatalogueError(
                    f"two files are called {utterance.utterance_id!r}: {paths[utterance.utterance_id]} and "
                    f"{utterance.path}. Leave one out or rename it: ids must be unique."
                )
            paths[utterance.utterance_id] = utterance.path
        shards = list(pack(new, int(self.shard_duration_s * self.sr)))
        sizes = [len(packed.utterances) for packed in shards]
        utterances = [utterance for packed in shards for utterance in packed.utterances]
        n_slots = np.array([packed.n_slots for packed in shards])
        n_samples = np.array([utterance.n_samples for utterance in utterances])
        start = np.cumsum(n_samples) - n_samples
        first = np.cumsum(sizes) - sizes
        columns = {
            **{name: [getattr(utterance, name) for utterance in utterances] for name in _TEXT + _WHOLE},
            "duration_s": [utterance.duration_s for utterance in utterances],
            "shard": np.repeat(self.n_shards + np.arange(len(shards)), sizes),
            "slot": np.repeat(self.n_slots + np.cumsum(n_slots) - n_slots, sizes),
            "n_slots": np.repeat(n_slots, sizes),
            "start": start - np.repeat(start[first], sizes),
        }
        head = {"sr": str(self.sr), "shard_duration_s": repr(float(self.shard_duration_s))}
        part = pa.table(columns, schema=_SCHEMA.with_metadata(head))
        longer = Catalogue(
            [*self._parts, part],
            sr=self.sr,
            shard_duration_s=self.shard_duration_s,
            n_stored=self._n_stored,
            labels=self._labels,
            revisions=self.revisions,
        )
        # What was said of an earlier row of the same id does not hold for the new one.
        labels = {one.utterance_id: one.labels for one in new if one.text_stamp or self.is_remade(one.utterance_id)}
        return longer.relabelled(labels)

    @property
    def n_utterances(self) -> int:
        """Number of utterances."""
        return int(self.table.num_rows)

    @cached_property
    def n_shards(self) -> int:
        """Number of shards, also of those whose utterances are all retired."""
        return int(self._all["shard"][-1].as_py()) + 1 if self._all.num_rows else 0

    @cached_property
    def current_shards(self) -> Sequence[int]:
        """Indices of the shards that have an utterance that is not retired."""
        if not self.retired:
            return range(self.n_shards)
        return [int(index) for index in np.unique(self._shards)]

    @cached_property
    def n_slots(self) -> int:
        """Number of Zarr shards that they fill in every array."""
        last = self._all.slice(max(0, self._all.num_rows - 1))
        return int(last["slot"][0].as_py() + last["n_slots"][0].as_py()) if last.num_rows else 0

    @cached_property
    def duration_s(self) -> float:
        """Length of all utterances, s."""
        return float(to_numpy(self.table["n_samples"]).sum() / self.sr)

    @cached_property
    def shard_durations_s(self) -> NDArray[np.float64]:
        """Length of the utterances of every shard, s."""
        return np.bincount(self._shards, weights=to_numpy(self.table["n_samples"]), minlength=self.n_shards) / self.sr

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ids and lengths in order of id, and of what is retired.

        It is equal for equal corpora, however they were packed, if nothing in them was retired.
        """
        pairs = sorted(zip(self._column("utterance_id"), self._column("n_samples"), strict=True))
        lines = [f"{name}\t{n}\n" for name, n in pairs]
        # A recording that changed may have its old length.
        lines += [f"retired\t{shard}\t{name}\n" for shard, ids in sorted(self.retired.items()) for name in sorted(ids)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @cached_property
    def labels_digest(self) -> str:
        """SHA-256 of the labels that changed since cataloguing, "" if none did."""
        return self._labels.digest(self._column("utterance_id"))

    def shard(self, index: int) -> Shard:
        """Return one shard with its utterances in storage order, retired ones among them."""
        if not 0 <= index < self.n_shards:
            raise CatalogueError(f"there is no shard {index!r}: the catalogue has {self.n_shards}")
        start, stop = self._rows[index : index + 2]
        rows = self._labels.applied(self._all.slice(start, stop - start))
        return _shard(index, rows, self.retired.get(index, frozenset()))

    def utterances(self) -> Iterator[Utterance]:
        """Yield all utterances in storage order."""
        stamps = iter(self._labels.stamps(self.table["utterance_id"]))
        for batch in self.table.select(_TEXT + _WHOLE).to_batches():
            yield from _utterances(batch, islice(stamps, batch.num_rows))

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

    def without_length(self, record_names: Collection[str]) -> set[str]:
        """Return the paths of utterances that claim no length, in shards without a record.

        Parameters
        ----------
        record_names : collection of str
            Records that there are.
        """
        rows = rows_at(self.table, np.flatnonzero(to_numpy(self.table["source_n_samples"]) == 0))
        pairs = zip(rows["path"].to_pylist(), rows["shard"].to_pylist(), strict=True)
        done = frozenset(record_names)
        return {path for path, shard in pairs if record_name(shard) not in done}

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
    def _shards(self) -> NDArray[np.int64]:
        return to_numpy(self.table["shard"])

    @cached_property
    def _rows(self) -> list[int]:
        # All rows are in order of shard, so a shard is a range of them.
        shards = to_numpy(self._all["shard"])
        return [int(row) for row in np.searchsorted(shards, np.arange(self.n_shards + 1))]

    @cached_property
    def _index(self) -> dict[str, int]:
        return dict(zip(self._column("utterance_id"), self._shards.tolist(), strict=True))

    def _column(self, name: str) -> list[Any]:
        return list(self.table[name].to_pylist())


def _read_labels(location: Location) -> LabelOverlay:
    names = label_files(location.sizes())
    parts = [_read_part(location, name, LABEL_SCHEMA) for name in names]
    next_index = int(names[-1].removeprefix("texts-").partition(".")[0]) + 1 if names else 0
    return LabelOverlay(parts, n_stored=len(parts), next_index=next_index)


def _read_part(location: Location, name: str, schema: pa.Schema = _SCHEMA) -> pa.Table:
    place = f"{location.url}/{name}"
    return without_seal(from_parquet(location.read(name), place), schema, place)


def read_shard(location: Location, index: int) -> Shard:
    """Return one shard, decoding no more of the stored catalogue than needed.

    Its labels are those of the part: no array depends on them.
    """
    tags = location.tags()
    names = list(tags or location.sizes())

    def read(name: str) -> bytes:
        return _tagged(location, name, tags[name]) if name in tags else location.read(name)

    retired = by_shard(read_lists(location, names, read)).get(index, frozenset())
    for name in _part_names(names):
        rows = from_parquet(read(name), f"{location.url}/{name}", filters=[("shard", "=", index)])
        if len(rows):
            return _shard(index, rows, retired)
    raise CatalogueError(f"{location.url}: there is no shard {index!r} in the catalogue")


@lru_cache(maxsize=16)
def _tagged(location: Location, name: str, tag: str) -> bytes:
    """Return a file, cached by its tag, so that a worker does not fetch it again for each shard."""
    return location.read(name)


def _shard(index: int, table: pa.Table, retired: frozenset[str]) -> Shard:
    return Shard(
        index=index,
        slot=table["slot"][0].as_py(),
        n_slots=table["n_slots"][0].as_py(),
        utterances=tuple(_utterances(table)),
        retired=retired,
    )


def _utterances(rows: pa.Table | pa.RecordBatch, stamps: Iterable[int] | None = None) -> Iterator[Utterance]:
    # By column: a plan reads hundreds of thousands of rows, and Arrow's own rows take twice as
    # long.
    columns = [shared_values(rows[name]) if name in _REPEATED else rows[name].to_pylist() for name in _TEXT + _WHOLE]
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


def _part_names(files: Iterable[str]) -> list[str]:
    """Return the names of the parts among files, by number, which may have more than six digits."""
    return sorted((name for name in files if name.startswith("part-")), key=lambda name: (len(name), name))


def part_name(index: int) -> str:
    """Return the file name of a part."""
    return f"part-{index:06d}.parquet"
