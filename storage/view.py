"""A product as a mapping from utterance id to array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from melmill.storage.catalogue import Catalogue
from melmill.storage.description import Address, ProductDescription
from melmill.storage.location import Location
from melmill.storage.product import ProductFolder
from melmill.storage.records import record_name


class ProductView(Mapping[str, "NDArray[Any]"]):
    """Look arrays up by utterance id: waveforms ``(n_samples,)`` or mels ``(n_mels, n_frames)``, as stored.

    Only what is done when the view is made is in it, in storage order; an array is read when it is asked for.

    Parameters
    ----------
    store : Location
    name : str
        Of the node, for messages.
    folder : ProductFolder
    catalogue : Catalogue
    """

    def __init__(self, store: Location, name: str, folder: ProductFolder, catalogue: Catalogue) -> None:
        self._store = store
        self._name = name
        self.folder = folder
        self.catalogue = catalogue

    @property
    def description(self) -> ProductDescription:
        """What the product is."""
        return self.folder.description

    def __getitem__(self, utterance_id: str) -> NDArray[Any]:
        return self.part(utterance_id, slice(None))

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)

    def __contains__(self, utterance_id: object) -> bool:
        return utterance_id in self._shards

    def __repr__(self) -> str:
        return f"<{self.description.kind} {self._name!r}: {len(self)} of {self.catalogue.n_utterances} utterances>"

    def part(self, utterance_id: str, part: slice) -> NDArray[Any]:
        """Return `part` of an utterance's samples or frames; reads only the chunks that it lies in."""
        shard = self.catalogue.shard(self._shard(utterance_id))
        return self.folder.read_array(shard, utterance_id, part)

    @cached_property
    def _shards(self) -> dict[str, int]:
        """Map the ids of all utterances that have data to the index of their shard."""
        records = self.folder.records()
        absent = {utterance_id for record in records.values() for utterance_id in record.absent}
        done = {index for index in range(self.catalogue.n_shards) if record_name(index) in records}
        table = self.catalogue.table
        pairs = zip(table["utterance_id"].to_pylist(), table["shard"].to_pylist(), strict=True)
        return {name: index for name, index in pairs if index in done and name not in absent}

    def _shard(self, utterance_id: str) -> int:
        index = self._shards.get(utterance_id)
        if index is None:
            raise KeyError(self._why_not(utterance_id))
        return index

    def _why_not(self, utterance_id: str) -> str:
        if utterance_id not in self.catalogue:
            return f"no utterance is called {utterance_id!r} among the {self.catalogue.n_utterances} of {self._name!r}"
        record = record_name(self.catalogue.shard_of(utterance_id))
        description = self.folder.description
        found = self._quarantined(utterance_id, record, (description.node, description.key))
        if found:
            return f"{utterance_id!r} was quarantined at {found}"
        return f"{utterance_id!r} is not in {self._name!r} yet: its shard {record} is not done. Run the pipeline."

    def _quarantined(self, utterance_id: str, record: str, address: Address) -> str:
        """Say at which node, this or one before it, an utterance was quarantined and why; '' where at none."""
        folder = ProductFolder(self._store / address[0] / address[1])
        if folder.record(record) is not None:
            table = folder.read_table("quarantine", [record])
            for row in table[table["utterance_id"] == utterance_id].to_dict("records"):
                return f"{row['node']!r}: {row['reason']}"
        inputs = [pair for pairs in folder.description.inputs.values() for pair in pairs]
        return next(filter(None, (self._quarantined(utterance_id, record, pair) for pair in inputs)), "")
