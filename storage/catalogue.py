"""The catalogue: every utterance of a corpus, with its shard and its place in all arrays.

Which utterances make a shard depends on their ids and lengths alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice, repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from melmill.storage.errors import CatalogueError, DamagedData, damaged
from melmill.storage.files.location import Location
from melmill.storage.labels import SCHEMA as LABEL_SCHEMA
from melmill.storage.labels import LabelOverlay, label_files
from melmill.storage.records import record_name, record_order
from melmill.storage.tables import from_parquet, to_parquet
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
    stay as they are, so data stored for them stays valid.

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
    """

    def __init__(
        self,
        parts: Sequence[pa.Table],
        *,
        sr: int,
        shard_duration_s: float,
        n_stored: int,
        labels: LabelOverlay | None = None,
    ) -> None:
        self.sr = sr
        self.shard_duration_s = shard_duration_s
        self._parts = tuple(parts)
        self._n_stored = n_stored
        self._labels = labels or LabelOverlay()
        self._stored_rows: pa.Table = pa.concat_tables(self._parts) if parts else _SCHEMA.empty_table()
        self.table: pa.Table = self._labels.applied(self._stored_rows)

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
        return cls.read_parts(location)._with(_read_labels(location))

    @classmethod
    def read_parts(cls, location: Location) -> Catalogue:
        """Return the catalogue with the labels that its parts were made with; raise as `read`."""
        names = _part_names(location)
        if not names:
            raise CatalogueError(f"{location.url}: no catalogue is stored there")
        expected = [part_name(i) for i in range(len(names))]
        if names != expected:
            missing = sorted(set(expected) - set(names))
            raise damaged(location.url, f"parts of the catalogue are missing: {', '.join(missing)}")
        return cls._of([_read_part(location, name) for name in names])

    @classmethod
    def read_whole_parts(cls, location: Location) -> Catalogue | None:
        """Return the catalogue without its last part if that is damaged, None if nothing is left.

        Raises
        ------
        DamagedData
            An earlier part is damaged.
        """
        names = _part_names(location)
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

    @classmethod
    def _of(cls, parts: Sequence[pa.Table]) -> Catalogue:
        pa.default_memory_pool().release_unused()
        head = parts[0].schema.metadata
        return cls(parts, sr=int(head[b"sr"]), shard_duration_s=float(head[b"shard_duration_s"]), n_stored=len(parts))

    def replace_part(self, location: Location) -> None:
        """Store the part that is not on disk yet, in place of a damaged one."""
        location.replace(part_name(self._n_stored), to_parquet(_sealed(self._parts[self._n_stored])))

    def write_parts(self, location: Location) -> None:
        """Store the parts that are not on disk yet.

        Raises
        ------
        AlreadyThere
            Another run stored others.
        """
        for index in range(self._n_stored, len(self._parts)):
            location.put(part_name(index), to_parquet(_sealed(self._parts[index])))

    def write_labels(self, location: Location) -> None:
        """Store the changed labels that are not on disk yet.

        Raises
        ------
        AlreadyThere
            Another run stored others.
        """
        for name, part in self._labels.unstored.items():
            location.put(name, to_parquet(_sealed(part.replace_schema_metadata({}))))

    def relabelled(self, labels: Mapping[str, Labels]) -> Catalogue:
        """Return the catalogue with what its corpus says now of some utterances, by id."""
        return self._with(self._labels.extended(labels, self._stored_rows)) if labels else self

    def _with(self, labels: LabelOverlay) -> Catalogue:
        return Catalogue(
            self._parts, sr=self.sr, shard_duration_s=self.shard_duration_s, n_stored=self._n_stored, labels=labels
        )

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
        return Catalogue(
            [*self._parts, part],
            sr=self.sr,
            shard_duration_s=self.shard_duration_s,
            n_stored=self._n_stored,
            labels=self._labels,
        ).relabelled({utterance.utterance_id: utterance.labels for utterance in new if utterance.text_stamp})

    @property
    def n_utterances(self) -> int:
        """Number of utterances."""
        return int(self.table.num_rows)

    @cached_property
    def n_shards(self) -> int:
        """Number of shards."""
        return int(self._shards[-1]) + 1 if self.n_utterances else 0

    @cached_property
    def n_slots(self) -> int:
        """Number of Zarr shards that they fill in every array."""
        return int(self.table["slot"][-1].as_py() + self.table["n_slots"][-1].as_py()) if self.n_utterances else 0

    @cached_property
    def duration_s(self) -> float:
        """Length of all utterances, s."""
        return float(self.table["n_samples"].to_numpy().sum() / self.sr)

    @cached_property
    def shard_durations_s(self) -> NDArray[np.float64]:
        """Length of the utterances of every shard, s."""
        return np.bincount(self._shards, weights=self.table["n_samples"].to_numpy(), minlength=self.n_shards) / self.sr

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ids and lengths in order of id.

        It is equal for equal corpora, however they were packed.
        """
        pairs = sorted(zip(self._column("utterance_id"), self._column("n_samples"), strict=True))
        return hashlib.sha256("".join(f"{name}\t{n}\n" for name, n in pairs).encode()).hexdigest()

    @cached_property
    def labels_digest(self) -> str:
        """SHA-256 of the labels that changed since cataloguing, "" if none did."""
        return self._labels.digest(self._column("utterance_id"))

    def shard(self, index: int) -> Shard:
        """Return one shard with its utterances in storage order."""
        if not 0 <= index < self.n_shards:
            raise CatalogueError(f"there is no shard {index!r}: the catalogue has {self.n_shards}")
        start, stop = self._rows[index : index + 2]
        return _shard(index, self.table.slice(start, stop - start))

    def utterances(self) -> Iterator[Utterance]:
        """Yield all utterances in storage order."""
        stamps = iter(self._labels.stamps(self.table["utterance_id"]))
        for batch in self.table.select(_TEXT + _WHOLE).to_batches():
            yield from _utterances(batch, islice(stamps, batch.num_rows))

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
        return np.asarray(self.table["shard"].to_numpy())

    @cached_property
    def _rows(self) -> list[int]:
        # Rows are in order of shard, so a shard is a range of rows.
        return [int(row) for row in np.searchsorted(self._shards, np.arange(self.n_shards + 1))]

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
    return _unsealed(from_parquet(location.read(name), place), place, schema)


def _sealed(part: pa.Table) -> pa.Table:
    return part.replace_schema_metadata({**part.schema.metadata, b"sha256": _checksum(part)})


def _unsealed(part: pa.Table, place: str, schema: pa.Schema = _SCHEMA) -> pa.Table:
    head = dict(part.schema.metadata or {})
    sealed = head.pop(b"sha256", None)
    part = part.replace_schema_metadata(head)
    if part.schema.names != schema.names or sealed != _checksum(part):
        raise damaged(place, "its rows have another checksum than when they were written")
    return part


def _checksum(part: pa.Table) -> bytes:
    """Return the hash of a part's values: Parquet's own checksums omit its headers and footer."""
    sha256 = hashlib.sha256(repr(sorted(part.schema.metadata.items())).encode())
    for column in part.columns:
        if pa.types.is_string(column.type):
            sha256.update("".join(column.to_pylist()).encode())
            column = pc.binary_length(column)
        sha256.update(column.to_numpy().tobytes())
    return sha256.hexdigest().encode()


def read_shard(location: Location, index: int) -> Shard:
    """Return one shard, decoding no more of the stored catalogue than needed.

    Its labels are those of the part: no array depends on them.
    """
    tags = location.tags()
    for name in sorted(name for name in tags or location.sizes() if name.startswith("part-")):
        data = _part(location, name, tags[name]) if name in tags else location.read(name)
        rows = from_parquet(data, f"{location.url}/{name}", filters=[("shard", "=", index)])
        if len(rows):
            return _shard(index, rows)
    raise CatalogueError(f"{location.url}: there is no shard {index!r} in the catalogue")


@lru_cache(maxsize=16)
def _part(location: Location, name: str, tag: str) -> bytes:
    """Return a part, cached by its tag, so that a worker does not fetch it again for each shard."""
    return location.read(name)


def _shard(index: int, table: pa.Table) -> Shard:
    return Shard(
        index=index,
        slot=table["slot"][0].as_py(),
        n_slots=table["n_slots"][0].as_py(),
        utterances=tuple(_utterances(table)),
    )


def _utterances(rows: pa.Table | pa.RecordBatch, stamps: Iterable[int] | None = None) -> Iterator[Utterance]:
    # By column: a plan reads hundreds of thousands of rows, and Arrow's own rows take twice as
    # long.
    names = [*_TEXT, *_WHOLE, "text_stamp"]
    columns = [rows[name].to_pylist() for name in _TEXT + _WHOLE]
    for values in zip(*columns, repeat(0, rows.num_rows) if stamps is None else stamps, strict=True):
        yield Utterance(**dict(zip(names, values, strict=True)))


def _part_names(location: Location) -> list[str]:
    """Return the names of the stored parts by number, which may have more than six digits."""
    names = (name for name in location.sizes() if name.startswith("part-"))
    return sorted(names, key=lambda name: (len(name), name))


def part_name(index: int) -> str:
    """Return the file name of a part."""
    return f"part-{index:06d}.parquet"
