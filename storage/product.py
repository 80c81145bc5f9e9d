"""A product: a folder that holds the contents of shards with their description."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from melmill.storage.arrays import (
    METADATA,
    Array,
    ArraySpec,
    array_slots,
    decode,
    metadata,
    shard_files,
    stored_codecs,
)
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.contents import (
    COLUMNS,
    REFUSED,
    Part,
    Quarantined,
    ShardContents,
    contents_files,
    part_file,
)
from melmill.storage.corpus.items import Span, spans_of
from melmill.storage.corpus.partners import Partner, partners_file, read_partners
from melmill.storage.description import Address, ProductDescription
from melmill.storage.errors import AlreadyThere, StoreError, damaged
from melmill.storage.files.location import Location
from melmill.storage.reading.chunks import StoredArray
from melmill.storage.reading.recordings import Digests, KnownDigests, Recordings
from melmill.storage.records import RECORDS, Facts, Record, RecordedFolder, StoredFile, record_file, record_name
from melmill.storage.tables import concatenated, from_parquet, rows_at
from melmill.storage.utterance import Shard, Utterance

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Address", "Facts", "Part", "ProductDescription", "ProductFolder", "Quarantined", "Record", "ShardContents"]

DESCRIPTION = "node.json"
CATALOGUE = "catalogue"
ARRAY_METADATA = f"data/{METADATA}"
_WHOLE = slice(None)
# Files that are removed between two checks that this process may go on.
_REMOVED_AT_ONCE = 1000


class ProductFolder(RecordedFolder):
    """The product of a node under its key, to read and to write. It is cheap to make and to pickle.

    Parameters
    ----------
    location : Location
        ``<store>/<node>/<key>``.
    recordings : Recordings or None
        Where its arrays come from, if they stay in the corpus.
    """

    def __init__(self, location: Location, recordings: Recordings | None = None) -> None:
        super().__init__(location)
        self._recordings = recordings

    def __getstate__(self) -> dict[str, object]:
        return {"location": self.location, "_recordings": self._recordings}

    def prepare(self, description: ProductDescription, n_slots: int) -> None:
        """Store the description, and make the array or grow it to `n_slots`.

        Only the driver may do so. A product that exists keeps its codecs, whatever `description`
        says of them.

        Raises
        ------
        StoreError
            The folder holds a product of another description.
        """
        stored = b""
        if description.array is not None:
            with suppress(FileNotFoundError):
                stored = self.location.read(ARRAY_METADATA)
            description = description.with_codecs(stored_codecs(stored))
        try:
            self.location.put(DESCRIPTION, description.to_json())
        except AlreadyThere as error:
            if self.description.array is not None:
                description = description.with_codecs(self.description.array.codecs)
            old, new = self.description.comparable(), description.comparable()
            got = ", ".join(f"{name} {new[name]!r} (stored: {old[name]!r})" for name in new if new[name] != old[name])
            if got:
                raise StoreError(
                    f"{self.location.url} holds a product with another description: {got}. "
                    "Another result needs another key."
                ) from error
        if description.stored_array is None:
            return
        n_stored = 0
        # The metadata follow from the description, so damaged ones are written anew.
        with suppress(ValueError):
            n_stored = array_slots(stored, description.slot_length)
        if n_slots > n_stored:
            self.location.replace(ARRAY_METADATA, metadata(description.stored_array, description.slot_length, n_slots))

    def adopt(self, records: Iterable[Record], other: ProductFolder) -> None:
        """Store records of the same product in another store, as proof that the files there are this product's.

        What is stored here already stays.
        """
        for record in records:
            adopted = replace(record, at=record.at or other.location.url)
            # Another run may have made it here meanwhile.
            with suppress(AlreadyThere):
                self.location.put(record_file(record.name), adopted.to_json())

    def delete(self, check: Callable[[], None]) -> None:
        """Remove the product: first its records, so that what is half removed is never taken for whole.

        The description follows, so that `verify` misses nothing of what goes last. Nobody may use the
        product meanwhile.

        Parameters
        ----------
        check : callable
            Called before each removal. It raises an error if this process may not go on.
        """
        for names in (self._record_files, self._description_files, self.location.everything):
            # A writer that was left behind may add a file while others are removed.
            while found := sorted(names()):
                for first in range(0, len(found), _REMOVED_AT_ONCE):
                    check()
                    self.location.remove_all(found[first : first + _REMOVED_AT_ONCE])
        self.location.remove_empty()

    def _record_files(self) -> list[str]:
        # Records before packs, which are copies of them.
        names = (self.location / RECORDS).everything()
        return [f"{RECORDS}/{name}" for name in names]

    def _description_files(self) -> list[str]:
        return [DESCRIPTION] if self.location.exists(DESCRIPTION) else []

    @cached_property
    def description(self) -> ProductDescription:
        """Description of the product; raise StoreError where there is none, DamagedData."""
        place = f"{self.location.url}/{DESCRIPTION}"
        try:
            data = self.location.read(DESCRIPTION)
        except FileNotFoundError as error:
            raise StoreError(f"{place} does not exist: there is no such product. Run the pipeline first.") from error
        try:
            return ProductDescription.from_json(data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise damaged(place, f"can't be parsed ({error})") from error

    def read_catalogue(self) -> Catalogue:
        """Return the catalogue of an ingest node; raise CatalogueError where none is stored."""
        return Catalogue.read(self.location / CATALOGUE)

    def commit(self, shard: Shard, contents: ShardContents, facts: Facts, clock: float | None = None) -> Record:
        """Store a shard's contents durably, then its record; return the record that counts.

        If another process stored the shard first, its record counts. `publish` says how, and what
        `clock` is.

        Raises
        ------
        StoreError
            `contents` don't fit the shard or the product. Then nothing is stored.
        """
        files = contents_files(self.description, shard, contents)
        record = Record(
            node=self.description.node,
            key=self.description.key,
            name=record_name(shard.index),
            n_utterances=len(shard.current),
            absent=tuple(sorted({*contents.missing, *shard.retired})),
            n_quarantined=len(contents.quarantined),
            files={name: StoredFile.of(data) for name, data in files.items()},
            duration_s=shard.duration_s,
            **asdict(facts),
        )
        return self.publish(record, files, clock)

    def commit_files(
        self,
        name: str,
        files: Mapping[str, bytes],
        facts: Facts,
        clock: float | None = None,
        *,
        folder: str,
        n_utterances: int = 0,
        n_retired: int = 0,
        duration_s: float = 0.0,
    ) -> Record:
        """Store files made of all shards, then their record; return the record that counts.

        Parameters
        ----------
        folder : str
            Folder for the files, below the product's.
        n_utterances, n_retired, duration_s : int, int, float
            Of the corpus that they were made of, which may change later.
        """
        files = {f"{folder}/{relative}": data for relative, data in files.items()}
        record = Record(
            node=self.description.node,
            key=self.description.key,
            name=name,
            n_utterances=n_utterances,
            n_retired=n_retired,
            absent=(),
            n_quarantined=0,
            files={relative: StoredFile.of(data) for relative, data in files.items()},
            duration_s=duration_s,
            **asdict(facts),
        )
        return self.publish(record, files, clock)

    def absent(self, name: str) -> frozenset[str]:
        """Return the ids of a record's shard without data here.

        Raises
        ------
        StoreError
            There is no record.
        """
        return frozenset(self.done(name).absent)

    def read_arrays(self, shard: Shard, ids: Collection[str] | None = None) -> dict[str, Array]:
        """Return the arrays of a shard by utterance id: all that exist, or those of `ids`.

        Those of retired utterances are left out.

        Returns
        -------
        dict of str to ndarray
            ``(n_samples,)`` or ``(n_mels, n_frames)`` in the dtype stored, in storage order.

        Raises
        ------
        StoreError
            The shard is not done.
        DamagedData
            Its files are not those of its record.
        SourceError
            Its recordings stay in the corpus, and can't be read or have changed; see `Recordings`.
        """
        spec, record = self.array_spec, self.done(record_name(shard.index))
        known = [utterance.utterance_id for utterance in shard.current]
        unknown = set(ids or ()) - set(known)
        if unknown:
            raise StoreError(f"{self.place(record, 'data')}: {min(unknown)!r} is not of this shard")
        wanted = set(known if ids is None else ids) - set(record.absent)
        if self.description.referenced:
            return self._from_corpus(record, [one for one in shard.current if one.utterance_id in wanted])
        if record.at:
            # It may have other codecs than this product here.
            return self.other(record.at).read_arrays(shard, wanted)
        present = [utterance_id for utterance_id in known if utterance_id in wanted]
        files = {name: self.read_whole(record, f"data/{name}") for name in shard_files(spec, shard)}
        return decode(spec, self.description.slot_length, shard, files, present, self.place(record, "data"))

    def read_array(self, shard: Shard, utterance_id: str, part: slice = _WHOLE) -> Array:
        """Return `part` of the samples or frames of one utterance, fetching only its chunks.

        Raises
        ------
        KeyError
            It has no data here.
        StoreError, DamagedData, SourceError
            As `read_arrays`.
        """
        return self.read_parts(shard, [(utterance_id, part)])[0]

    def read_parts(self, shard: Shard, parts: Sequence[tuple[str, slice]]) -> list[Array]:
        """Return parts of the samples or frames of a shard's utterances, decoding no more than their chunks.

        Each chunk is proven by its own checksum.

        Parameters
        ----------
        shard : Shard
        parts : sequence of (str, slice)
            Utterance ids, which may be named several times, and what is wanted of each.

        Raises
        ------
        KeyError
            An utterance has no data here.
        StoreError, DamagedData, SourceError
            As `read_arrays`.
        """
        if self.description.referenced:
            named = {utterance_id for utterance_id, _ in parts}
            arrays = self.read_arrays(shard, [u.utterance_id for u in shard.current if u.utterance_id in named])
            return [np.array(arrays[utterance_id][part]) for utterance_id, part in parts]
        name = record_name(shard.index)
        files = [f"data/{file}" for file in shard_files(self.array_spec, shard)]
        # The record of an earlier call is used again while the files have its sizes.
        record = self._known_records.get(name)
        if record is not None and record.at:
            return self.other(record.at).read_parts(shard, parts)
        if record is None or self.size_problem(record, files):
            record = self._known_records[name] = self.done(name)
            problem = self.size_problem(record, files)
            if problem:
                raise damaged(self.place(record, "data"), problem)
        for utterance_id, _ in parts:
            if utterance_id in record.absent or utterance_id in shard.retired:
                raise KeyError(utterance_id)
        if record.at:
            return self.other(record.at).read_parts(shard, parts)
        return self._stored.read(shard, parts, self.place(record, "data"))

    def other(self, at: str) -> ProductFolder:
        """Return the folder of the same product in another store. It is made once."""
        return self._others.setdefault(at, ProductFolder(Location(at)))

    @cached_property
    def _others(self) -> dict[str, ProductFolder]:
        return {}

    def _from_corpus(self, record: Record, utterances: Sequence[Utterance]) -> dict[str, Array]:
        """Return the recordings of utterances of a record, which stay in the corpus."""
        if self._recordings is None:
            raise StoreError(
                f"{self.location.url}: the recordings of node {self.description.node!r} stay in the corpus (audio: "
                "reference), and the last run does not say where that is: run the pipeline"
            )
        return self._recordings.read(utterances, self._digests(record) if utterances else {})

    def _digests(self, record: Record) -> dict[str, Digests]:
        file = part_file("table", record.name)
        return self._known_digests.of(
            record.files[file].sha256, lambda: from_parquet(self.read_whole(record, file), self.place(record, file))
        )

    def read_table(
        self, part: Part, names: Collection[str] | None = None, *, catalogue: Catalogue | None = None
    ) -> pd.DataFrame:
        """Return the rows of all records, or of those called `names`.

        Without rows, the table has its key columns.

        Parameters
        ----------
        catalogue : Catalogue or None
            Of the product. Rows of its retired utterances are left out, and those of shards that it
            does not have. None: all rows.

        Raises
        ------
        DamagedData
            A file is not that of its record.
        """
        import pandas as pd

        table = self.stored_table(part, names, catalogue)
        if table is None:
            return pd.DataFrame(columns=COLUMNS[part])
        if part == "quarantine" and REFUSED in table.column_names:
            table = table.drop_columns([REFUSED])
        rows: pd.DataFrame = table.to_pandas()
        return rows

    def hashes(self, catalogue: Catalogue) -> tuple[dict[str, str], dict[str, str]]:
        """Return the SHA-256 of files of an ingest node by utterance id: ingested ones, and refused.

        It is empty where none was stored.
        """
        found: list[dict[str, str]] = []
        parts: tuple[Part, Part] = ("table", "quarantine")
        for part in parts:
            table = self.stored_table(part, None, catalogue)
            if table is None:
                found.append({})
                continue
            ids = table["utterance_id"].to_pylist()
            # Readers need not make hashes, and older versions stored none of refused files.
            hashes = table[REFUSED].to_pylist() if REFUSED in table.column_names else [""] * len(ids)
            found.append({one: sha256 or "" for one, sha256 in zip(ids, hashes, strict=True)})
        return found[0], found[1]

    def stored_table(self, part: Part, names: Collection[str] | None, catalogue: Catalogue | None) -> pa.Table | None:
        """Return the table of `read_table` as it is stored, None without rows."""
        records = self.records() if names is None else {name: self.done(name) for name in names}
        return self._rows(part, records, catalogue)

    def tables(self, part: Part, catalogue: Catalogue, at_once: int = 256) -> Iterator[pa.Table]:
        """Yield the rows of `read_table` as they are stored, those of some shards at a time.

        Parameters
        ----------
        part : Part
        catalogue : Catalogue
        at_once : int
            Shards.
        """
        names = [name for name in self.record_names() if name in catalogue.current_records]
        for start in range(0, len(names), at_once):
            table = self._rows(part, self.records(names[start : start + at_once]), catalogue)
            if table is not None:
                yield table

    def _rows(self, part: Part, records: Mapping[str, Record], catalogue: Catalogue | None) -> pa.Table | None:
        if catalogue is not None:
            records = {name: record for name, record in records.items() if name in catalogue.current_records}
        present = {file: record for name, record in records.items() if (file := part_file(part, name)) in record.files}
        if not present:
            return None
        data = self.each(lambda file: self.read_whole(present[file], file), present)
        tables = []
        for (file, record), content in zip(present.items(), data, strict=True):
            table = from_parquet(content, self.place(record, file))
            retired = frozenset() if catalogue is None else catalogue.retired_in(record.name)
            if retired:
                kept = [i for i, one in enumerate(table["utterance_id"].to_pylist()) if one not in retired]
                table = rows_at(table, np.array(kept, np.int64))
            tables.append(table)
        return concatenated(tables, f"{self.location.url}/{part}")

    def current(self, catalogue: Catalogue, records: Mapping[str, Record]) -> dict[str, Record]:
        """Return records of shards as if the retired utterances of the catalogue had never been.

        A record of a shard that the catalogue lacks, or whose utterances are all retired, is left
        out.
        """
        shards, found = catalogue.current_records, {}
        for name, record in records.items():
            retired = catalogue.retired_in(name)
            if name in shards and not retired:
                found[name] = record
            elif name in shards:
                n_quarantined = record.n_quarantined
                if n_quarantined and retired.intersection(record.absent):
                    n_quarantined = len(self.read_table("quarantine", [name], catalogue=catalogue))
                found[name] = replace(
                    record,
                    n_utterances=len(catalogue.shard(shards[name]).current),
                    absent=tuple(one for one in record.absent if one not in retired),
                    n_quarantined=n_quarantined,
                    duration_s=float(catalogue.shard_durations_s[shards[name]]),
                )
        return found

    def read_spans(self, name: str) -> list[Span]:
        """Return what the node kept and dropped of a record's shard; raise as `read_table`.

        It is empty where nothing came to the node.
        """
        table = self.stored_table("spans", [name], None)
        return [] if table is None else list(spans_of(table))

    def read_partners(self, record: Record) -> dict[str, Partner]:
        """Return what a shard's utterances were computed with, of another corpus; raise DamagedData.

        It is empty where there is no other corpus.
        """
        name = partners_file(record.name)
        if name not in record.files:
            return {}
        return read_partners(self.read_whole(record, name), self.place(record, name))

    @property
    def array_spec(self) -> ArraySpec:
        """Layout of its array; raise StoreError where it has none."""
        if self.description.array is None:
            raise StoreError(f"node {self.description.node!r} makes {self.description.kind}: it has no arrays to read")
        return self.description.array

    @cached_property
    def _stored(self) -> StoredArray:
        return StoredArray(self.array_spec, self.description.slot_length, self.location / "data")

    @cached_property
    def _known_digests(self) -> KnownDigests:
        return KnownDigests()

    @cached_property
    def _known_records(self) -> dict[str, Record]:
        return {}
