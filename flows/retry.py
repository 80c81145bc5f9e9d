"""Give utterances in quarantine another chance."""

from __future__ import annotations

from collections.abc import Mapping

from melmill.stages.stage import Kind
from melmill.storage.description import Address
from melmill.storage.product import ProductFolder
from melmill.storage.store import Store

# Names of records by product.
_Records = Mapping[Address, set[str]]


def drop_incomplete(store: Store) -> int:
    """Drop the records of the last run's shards that some utterance is absent from; return how many.

    What was made of them goes too, whole or not: a table may say of an utterance that it was missing, and a report
    was made without it. A training stays, which took long and needs no single utterance.
    """
    folders = {(entry.folder, entry.key): store.product(entry.folder, entry.key) for entry in store.nodes.values()}
    stale = {address: _incomplete(folder) for address, folder in folders.items()}
    grows = True
    while grows:
        n_before = _total(stale)
        for address, folder in folders.items():
            stale[address] |= _made_of(folder, stale)
        grows = _total(stale) > n_before
    for address, names in stale.items():
        for record in folders[address].records(names).values():
            folders[address].forget(record)
    return _total(stale)


def _total(records: _Records) -> int:
    return sum(map(len, records.values()))


def _incomplete(folder: ProductFolder) -> set[str]:
    return {name for name, record in folder.records().items() if record.absent}


def _made_of(folder: ProductFolder, stale: _Records) -> set[str]:
    """Return the names of a product's records that were made of stale ones."""
    sources = [source for port in folder.description.inputs.values() for source in port]
    names = {name for source in sources for name in stale.get(source, ())}
    own = set(folder.record_names())
    # A report has one record, of all shards.
    return own if names and folder.description.kind == Kind.REPORT else own & names
