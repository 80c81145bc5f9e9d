"""Make a damaged catalogue anew from the corpus, where what is stored proves that it is the same.

- Give utterances in quarantine another chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import cast

from melmill.flows.errors import PipelineError
from melmill.flows.pipeline.graph import Node, build_graph
from melmill.flows.pipeline.spec import Pipeline
from melmill.stages.contract import IngestStage, Kind, Mel, Waveform
from melmill.storage.catalogue import Catalogue
from melmill.storage.files.sources import SourceTree
from melmill.storage.product import Address, ProductFolder
from melmill.storage.records import record_name
from melmill.storage.store import Store

_GIVE_UP = "Restore it from a copy; without one, remove the folder of that key and of all that was made of it."


def remake_catalogue(store: Store, address: Address, pipeline: Pipeline) -> None:
    """Replace the damaged last part of the catalogue of an ingest node by one made of the corpus.

    Every shard of which anything is stored must have been ingested from the utterances that it now gets, in the same
    order and of the same bytes.

    Raises
    ------
    PipelineError
        The pipeline has no such node, or the corpus is not what it was.
    StoreError
        A part before the last is damaged, or what would prove the shards is.
    """
    node = _node(address, pipeline)
    folder = store.product(*address)
    tree = SourceTree(cast("IngestStage", node.stage).root)
    catalogue = _surveyed(node, folder, tree, pipeline.shard_duration_s)
    proven = folder.records()
    for name in proven:
        _prove(node, folder, catalogue, name, tree)
    for other, product in store.products():
        if product.location.exists("node.json") and product.description.catalogue == address:
            unproven = sorted(set(product.record_names()) - proven.keys())
            if unproven:
                raise _differs(node, f"nothing tells what shard {unproven[0]} of {'/'.join(other)} was made of")
    catalogue.replace_part(folder.location / "catalogue")


def _node(address: Address, pipeline: Pipeline) -> Node:
    for node in build_graph(pipeline).values():
        if (node.folder, node.key) == address:
            return node
    raise PipelineError(
        f"no node of the pipeline makes {'/'.join(address)}, whose catalogue is damaged: give the pipeline, with the "
        "overrides, that it was made by"
    )


def _surveyed(node: Node, folder: ProductFolder, tree: SourceTree, shard_duration_s: float) -> Catalogue:
    """Return the parts that are whole, extended by what else the corpus holds."""
    sr = cast("Waveform | Mel", node.product).sr
    whole = Catalogue.read_whole_parts(folder.location / "catalogue") or Catalogue.empty(sr, shard_duration_s)
    known = {utterance.path: utterance for utterance in whole.utterances()}
    found = cast("IngestStage", node.stage).discover(tree, known)
    others = [utterance for utterance in found if utterance.path not in known]
    if not others:
        raise _differs(node, "what the damaged part told of is gone")
    return whole.extended(others)


def _prove(node: Node, folder: ProductFolder, catalogue: Catalogue, name: str, tree: SourceTree) -> None:
    """Raise PipelineError unless a shard was ingested from the utterances that the catalogue gives it."""
    shards = {record_name(index): index for index in range(catalogue.n_shards)}
    if name not in shards:
        raise _differs(node, f"there is no shard {name} any more")
    absent = folder.absent(name)
    utterances = catalogue.shard(shards[name]).utterances
    if not absent <= {utterance.utterance_id for utterance in utterances}:
        raise _differs(node, f"shard {name} has lost {min(absent)}")
    table = folder.read_table("table", [name])
    expected = list(zip(table["utterance_id"], table["content_sha256"], strict=True)) if len(table) else []
    present = [utterance for utterance in utterances if utterance.utterance_id not in absent]
    if [one for one, _ in expected] != [utterance.utterance_id for utterance in present]:
        raise _differs(node, f"shard {name} would hold other utterances")
    for utterance, (_, sha256) in zip(present, expected, strict=True):
        if hashlib.sha256(tree.read(utterance.path)).hexdigest() != sha256:
            raise _differs(node, f"{utterance.path} has changed")


def _differs(node: Node, how: str) -> PipelineError:
    return PipelineError(f"the catalogue of {node.name!r} can't be made of the corpus as it is now: {how}. {_GIVE_UP}")


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
