"""What other stores of a project have done already, so that a run reads it there (``also:``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import Node
from melmill.flows.pipeline.spec import Pipeline
from melmill.flows.tasks.trained import TRAINED
from melmill.stages.contract import Kind
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.parts import StoredPart, part_names
from melmill.storage.corpus.shard_set import ShardSet
from melmill.storage.files.location import Location
from melmill.storage.product import CATALOGUE, Address
from melmill.storage.proof.inventory import Inventory
from melmill.storage.records import record_name
from melmill.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What a node need not do, as another store has it.

    Parameters
    ----------
    names : mapping of str to tuple of str
        Names of the records by URL of the store.
    quarantined : frozenset of str
        Of those, the ones whose shards have utterances in quarantine.
    """

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    quarantined: frozenset[str] = frozenset()

    @property
    def every(self) -> frozenset[str]:
        """Names of all records."""
        return frozenset(name for names in self.names.values() for name in names)

    @property
    def note(self) -> str:
        """A line for people, empty for nothing."""
        return ", ".join(f"{len(names)} done in {url}, read there" for url, names in self.names.items())


class OtherStores:
    """The stores that a pipeline names with ``also``, which are only read.

    Parameters
    ----------
    pipeline : Pipeline
    store : Store
        The pipeline's own, which may not exist yet.

    Raises
    ------
    PipelineError
        One is the pipeline's own, or of another project.
    StoreError
        One does not exist, or has an unknown format.
    """

    def __init__(self, pipeline: Pipeline, store: Store) -> None:
        self._own = store
        self.stores = [Store.open(url) for url in pipeline.also]
        for other in self.stores:
            if other.location == store.location:
                raise PipelineError(f"also: {other.location.url} is the pipeline's own store: name another one")
            if other.project != pipeline.name:
                raise PipelineError(
                    f"also: {other.location.url} is the store of project {other.project!r}, not of {pipeline.name!r}: "
                    "name a store of the same project"
                )

    def catalogued_in(self, node: Node) -> Store:
        """Return the store that has the catalogue of an ingest node: its own, or else another, or none."""
        for store in (self._own, *self.stores):
            if (store.product(node.folder, node.key).location / CATALOGUE).sizes():
                return store
        return self._own

    def adopted(self, node: Node, own: Inventory, corpus: Node, catalogue: Catalogue, base: Store) -> Adopted:
        """Return what other stores have done of a node, and its own store has not.

        Parameters
        ----------
        node : Node
        own : Inventory
            Of its own store.
        corpus : Node
            Ingest node of its utterances.
        catalogue : Catalogue
            Of those, as planned.
        base : Store
            Where the catalogue is stored.
        """
        # A report has pages, which are opened where they lie. What pairs two corpora depends on both.
        if node.product.kind is Kind.REPORT or node.paired_port is not None:
            return Adopted()
        names: dict[str, tuple[str, ...]] = {}
        quarantined: set[str] = set()
        done = own.whole.sized(catalogue.n_shards) if not node.is_whole else np.zeros(0, np.bool_)
        for other in self.stores:
            there = other.product(node.folder, node.key).inventory()
            if node.is_whole:
                if TRAINED in there.others and TRAINED not in {*there.problems, *own.others} and not names:
                    names[other.location.url] = (TRAINED,)
                continue
            same = _same_shards((corpus.folder, corpus.key), catalogue, base, other)
            new = same & there.whole.sized(len(same)) & ~done
            done = done | new
            if new.any():
                names[other.location.url] = tuple(record_name(shard) for shard in np.flatnonzero(new).tolist())
                quarantined.update(record_name(shard) for shard in there.quarantined if new[shard])
        return Adopted(names=names, quarantined=frozenset(quarantined))


def _same_shards(address: Address, catalogue: Catalogue, base: Store, other: Store) -> NDArray[np.bool_]:
    """Return which shards of a catalogue hold the same utterances in another store.

    Those of the parts that both have in common do. The other may have retired no utterance that
    counts here.
    """
    same = np.zeros(catalogue.n_shards, np.bool_)
    mine, theirs = (store.product(*address).location / CATALOGUE for store in (base, other))
    common = _common_parts(mine, theirs)
    if not common:
        return same
    same[: StoredPart(theirs, common[-1]).end[0]] = True
    found = Catalogue.find(theirs, checked=False)
    for shard, ids in found.retired.items() if found is not None else ():
        if shard < len(same) and not ids <= catalogue.retired.get(shard, frozenset()):
            same[shard] = False
    return same


def _common_parts(mine: Location, theirs: Location) -> list[str]:
    sizes, others = mine.sizes(), theirs.sizes()
    common: list[str] = []
    for name in part_names(others):
        if mine != theirs and (sizes.get(name) != others[name] or mine.read(name) != theirs.read(name)):
            break
        common.append(name)
    return common


def whole_mask(names: Sequence[str] | frozenset[str], n_shards: int) -> NDArray[np.bool_]:
    """Return which shards have a record among some names."""
    return ShardSet.of(int(name) for name in names).sized(n_shards)
