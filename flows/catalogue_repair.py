"""Make a damaged catalogue anew from the corpus, where what is stored proves that it is the same."""

from __future__ import annotations

import hashlib
from typing import cast

from melmill.flows.errors import PipelineError
from melmill.flows.graph import Node, build_graph
from melmill.flows.spec import Pipeline
from melmill.stages.stage import IngestStage, Mel, Waveform
from melmill.storage.catalogue import Catalogue
from melmill.storage.description import Address
from melmill.storage.product import ProductFolder
from melmill.storage.records import record_name
from melmill.storage.sources import SourceTree
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
