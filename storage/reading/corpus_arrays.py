"""The arrays of a product, a shard at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property

from melmill.storage.arrays import Array
from melmill.storage.reading.views import ProductView
from melmill.storage.utterance import Utterance


class StoredCorpusArrays:
    """Read the arrays of a product shard by shard; see `melmill.stages.contract.CorpusArrays`.

    Parameters
    ----------
    view : ProductView
    ids : collection of str
        Utterances to use.
    """

    def __init__(self, view: ProductView, ids: Collection[str]) -> None:
        self._view = view
        self._ids = frozenset(ids)

    @cached_property
    def _by_shard(self) -> list[tuple[int, list[Utterance]]]:
        catalogue = self._view.catalogue
        shards = ((index, catalogue.shard(index).current) for index in catalogue.current_shards)
        wanted = ((index, [one for one in some if one.utterance_id in self._ids]) for index, some in shards)
        return [(index, some) for index, some in wanted if some]

    @property
    def n_shards(self) -> int:
        """Number of shards that hold some of the utterances."""
        return len(self._by_shard)

    @property
    def utterances(self) -> Sequence[Utterance]:
        """The utterances, in storage order."""
        return [one for _, some in self._by_shard for one in some]

    def shards(self, first: int = 0) -> Iterator[Mapping[Utterance, Array]]:
        """Yield the arrays of one shard after the other by utterance, from shard number `first` on."""
        for index, some in self._by_shard[first:]:
            shard = self._view.catalogue.shard(index)
            arrays = self._view.folder.read_arrays(shard, [one.utterance_id for one in some])
            yield {one: arrays[one.utterance_id] for one in some}
