"""The folder of one product: what a node made, shard by shard."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from melmill.storage.arrays import ArraySpec
from melmill.storage.catalogue import Catalogue
from melmill.storage.chunks import METADATA, StoredArray, array_slots, decode, metadata, shard_files
from melmill.storage.contents import Part, Quarantined, ShardContents, contents_files, part_file
from melmill.storage.description import ProductDescription
from melmill.storage.errors import AlreadyThere, StoreError, damaged
from melmill.storage.location import Location
from melmill.storage.recorded import RecordedFolder
from melmill.storage.records import Facts, Record, StoredFile, record_name
from melmill.storage.tables import concatenated, from_parquet
from melmill.storage.utterance import Shard

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Facts", "Part", "ProductDescription", "ProductFolder", "Quarantined", "Record", "ShardContents"]

DESCRIPTION = "node.json"
ARRAY_METADATA = f"data/{METADATA}"
_WHOLE = slice(None)
_COLUMNS: Mapping[Part, list[str]] = {
    "table": ["utterance_id"],
    "trace": ["utterance_id", "iteration"],
    "quarantine": list(Quarantined.__dataclass_fields__),
}


class ProductFolder(RecordedFolder):
    """Read and write the product of a node under its key; cheap to make and to pickle.

    Parameters
    ----------
    location : Location
        ``<store>/<node>/<key>``.
    """

    def __getstate__(self) -> dict[str, Location]:
        return {"location": self.location}

    def prepare(self, description: ProductDescription, n_slots: int) -> None:
        """Store the description and make the array, or grow it to `n_slots`; for the driver alone.

        Raises
        ------
        StoreError
            Where the folder holds a product of another description.
        """
        try:
            self.location.put(DESCRIPTION, description.to_json())
        except AlreadyThere:
            _check_same(self.description, description, self.location)
        if description.array and n_slots > self._n_slots(description):
            data = metadata(description.array, description.slot_length, n_slots)
            self.location.replace(ARRAY_METADATA, data)

    def _n_slots(self, description: ProductDescription) -> int:
        try:
            data = self.location.read(ARRAY_METADATA)
        except FileNotFoundError:
            return 0
        try:
            return array_slots(data, description.slot_length)
        except ValueError:
            # Follows from the description, so that a damaged one is just written anew.
            return 0

    @cached_property
    def description(self) -> ProductDescription:
        """What the product is; raise StoreError where it was never prepared, DamagedData."""
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
        """Read the catalogue of an ingest node; raise CatalogueError where none is stored."""
        return Catalogue.read(self.location / "catalogue")

    def write_catalogue(self, catalogue: Catalogue) -> None:
        """Store the parts of the catalogue that are not on disk yet."""
        catalogue.write_parts(self.location / "catalogue")

    def commit(self, shard: Shard, contents: ShardContents, facts: Facts, clock: float | None = None) -> Record:
        """Store what was made of a shard, then its record, durably; return the record that counts.

        Another process may have stored the shard first: its record then wins and ours is discarded, unless its
        files are not what it says. `clock`: see `publish`.

        Raises
        ------
        StoreError
            Where `contents` don't fit the shard or the product; nothing is stored then.
        """
        files = contents_files(self.description, shard, contents)
        record = Record(
            node=self.description.node,
            key=self.description.key,
            name=record_name(shard.index),
            n_utterances=len(shard.utterances),
            absent=contents.missing,
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
        duration_s: float = 0.0,
    ) -> Record:
        """Store what was made of all shards in a folder of its own, then its record; return the record that counts.

        `n_utterances` and `duration_s` tell of the corpus that it was made of, where that may grow without it.
        """
        files = {f"{folder}/{relative}": data for relative, data in files.items()}
        record = Record(
            node=self.description.node,
            key=self.description.key,
            name=name,
            n_utterances=n_utterances,
            absent=(),
            n_quarantined=0,
            files={relative: StoredFile.of(data) for relative, data in files.items()},
            duration_s=duration_s,
            **asdict(facts),
        )
        return self.publish(record, files, clock)

    def absent(self, name: str) -> frozenset[str]:
        """Return the ids of a record's shard that have no data here; raise StoreError where there is no record."""
        return frozenset(self.done(name).absent)

    def read_arrays(self, shard: Shard, ids: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
        """Return the arrays of a shard by utterance id, those of `ids` or all; absent ones are left out.

        Returns
        -------
        dict of str to ndarray
            ``(n_samples,)`` or ``(n_mels, n_frames)`` in the dtype stored, in storage order.

        Raises
        ------
        StoreError
            Where the shard is not done.
        DamagedData
            Where its files are not those of its record.
        """
        spec, record = self.array_spec, self.done(record_name(shard.index))
        known = [utterance.utterance_id for utterance in shard.utterances]
        unknown = set(ids or ()) - set(known)
        if unknown:
            raise StoreError(f"{self.place(record, 'data')}: {min(unknown)!r} is not of this shard")
        wanted = set(known if ids is None else ids) - set(record.absent)
        present = [utterance_id for utterance_id in known if utterance_id in wanted]
        files = {name: self.read_whole(record, f"data/{name}") for name in shard_files(spec, shard)}
        return decode(spec, self.description.slot_length, shard, files, present, self.place(record, "data"))

    def read_array(self, shard: Shard, utterance_id: str, part: slice = _WHOLE) -> NDArray[Any]:
        """Return `part` of the samples or frames of one utterance, fetching only the chunks that it lies in.

        Raises
        ------
        KeyError
            Where it has no data here.
        StoreError, DamagedData
            As `read_arrays`.
        """
        record = self._sized(shard)
        if utterance_id in record.absent:
            raise KeyError(utterance_id)
        return self._stored.read(shard, utterance_id, part, self.place(record, "data"))

    def read_table(self, part: Part, names: Collection[str] | None = None) -> pd.DataFrame:
        """Return the rows of the records called `names`, or of all; without rows, a table of its key columns.

        Raises
        ------
        DamagedData
            Where a file is not that of its record.
        """
        import pandas as pd

        records = self.records() if names is None else {name: self.done(name) for name in names}
        files = {part_file(part, name): record for name, record in records.items()}
        held = {file: record for file, record in files.items() if file in record.files}
        if not held:
            return pd.DataFrame(columns=_COLUMNS[part])
        data = self.each(lambda file: self.read_whole(held[file], file), held)
        tables = [from_parquet(data, self.place(held[file], file)) for file, data in zip(held, data, strict=True)]
        table: pd.DataFrame = concatenated(tables, f"{self.location.url}/{part}").to_pandas()
        return table

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
    def _seen(self) -> dict[str, Record]:
        return {}

    def _sized(self, shard: Shard) -> Record:
        """Return the record of a shard, kept from an earlier call if it fits, its array files' sizes checked."""
        name = record_name(shard.index)
        files = [f"data/{file}" for file in shard_files(self.array_spec, shard)]
        record = self._seen.get(name)
        if record is None or self.size_problem(record, files):
            record = self._seen[name] = self.done(name)
            problem = self.size_problem(record, files)
            if problem:
                raise damaged(self.place(record, "data"), problem)
        return record


def _check_same(stored: ProductDescription, new: ProductDescription, location: Location) -> None:
    old, wanted = stored.comparable(), new.comparable()
    got = ", ".join(f"{name} {wanted[name]!r} (stored: {old[name]!r})" for name in wanted if wanted[name] != old[name])
    if got:
        raise StoreError(
            f"{location.url} holds another product than the one described: {got}. What differs in its results needs "
            "another key."
        )
