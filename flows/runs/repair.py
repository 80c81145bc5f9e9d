"""Repair a store: rebuild a damaged catalogue, and retry utterances in quarantine."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import Node, build_graph
from melmill.flows.pipeline.spec import Pipeline
from melmill.stages.contract import IngestStage, Kind, Mel, Waveform
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.revisions import Revisions
from melmill.storage.errors import DamagedData
from melmill.storage.files.location import Location
from melmill.storage.files.sources import SourceTree
from melmill.storage.product import CATALOGUE, Address, ProductFolder
from melmill.storage.records import record_name, record_order
from melmill.storage.runs import NodeEntry
from melmill.storage.store import Store

# No file has this time.
_NEVER = -1
_LAST_RESORT = (
    "Restore the catalogue from a copy. "
    "Without one, remove the folder of that key and the folders of all that was made from it."
)


def remake_catalogue(store: Store, address: Address, pipeline: Pipeline) -> None:
    """Replace the damaged last part of an ingest node's catalogue by one made from the corpus.

    If the last list of retired utterances is damaged or missing, that is made anew instead.

    The store must prove that the corpus is the same: the ingested tables of all stored shards must
    name the same utterances, in the same order and with the same bytes.

    Parameters
    ----------
    store : Store
    address : (str, str)
        Folder and key of the ingest node.
    pipeline : Pipeline
        The pipeline that the store was made by.

    Raises
    ------
    PipelineError
        The pipeline has no such node, or the corpus has changed.
    StoreError
        A part before the last is damaged, or the ingested tables are.
    """
    node, stage = _ingest_node(address, pipeline)
    folder = store.product(*address)
    tree = SourceTree(stage.root)
    if not isinstance(node.product, Waveform | Mel):
        raise _differs(node, f"its stage {stage.uses!r} makes {node.product.kind}")
    location = folder.location / CATALOGUE
    whole = Catalogue.read_whole_parts(location) or Catalogue.empty(node.product.sr, pipeline.shard_duration_s)
    try:
        whole = whole.revised(Revisions.read(location, location.sizes()))
        whole.check_unique(location.url)
    except DamagedData:
        _remake_retired(location, whole, stage, tree)
        return
    known = {utterance.path: utterance for utterance in whole.utterances()}
    others = [utterance for utterance in stage.discover(tree, known).every() if utterance.path not in known]
    if not others:
        raise _differs(node, "the utterances of the damaged part are gone")
    catalogue = whole.extended(others)
    proven = folder.records()
    for name in proven:
        _check_same_shard(node, folder, catalogue, name, tree)
    for other, product in store.products():
        if product.location.exists("node.json") and product.description.catalogue == address:
            unproven = sorted(set(product.record_names()) - proven.keys(), key=record_order)
            if unproven:
                raise _differs(node, f"nothing says what shard {unproven[0]} of {'/'.join(other)} was made from")
    catalogue.replace_part(location)


def _remake_retired(location: Location, whole: Catalogue, stage: IngestStage, tree: SourceTree) -> None:
    """Store a list of retired utterances in place of the last ones, which are damaged or missing.

    Of two rows of an id the first is retired, and so is one whose file the corpus has no more.
    """
    catalogue = whole.revised(Revisions.read(location, location.sizes(), without_last=True))
    known = {utterance.path: utterance for utterance in catalogue.utterances()}
    present = {utterance.path for utterance in stage.discover(tree, known).every()}
    catalogue.revised(catalogue.revisions.retiring(catalogue.outdated(present))).revisions.replace_last(location)


def _ingest_node(address: Address, pipeline: Pipeline) -> tuple[Node, IngestStage]:
    for node in build_graph(pipeline).values():
        if (node.folder, node.key) == address and isinstance(node.stage, IngestStage):
            return node, node.stage
    raise PipelineError(
        f"no node of the pipeline makes {'/'.join(address)}, whose catalogue is damaged: give the pipeline, with the "
        "overrides, that it was made by"
    )


def _check_same_shard(node: Node, folder: ProductFolder, catalogue: Catalogue, name: str, tree: SourceTree) -> None:
    """Raise PipelineError unless a stored shard holds what the catalogue gives it."""
    shards = {record_name(index): index for index in range(catalogue.n_shards)}
    if name not in shards:
        raise _differs(node, f"there is no shard {name} any more")
    absent = folder.absent(name)
    utterances = catalogue.shard(shards[name]).utterances
    if not absent <= {utterance.utterance_id for utterance in utterances}:
        raise _differs(node, f"shard {name} lacks {min(absent)}")
    table = folder.read_table("table", [name])
    expected = list(zip(table["utterance_id"], table["content_sha256"], strict=True)) if len(table) else []
    present = [utterance for utterance in utterances if utterance.utterance_id not in absent]
    if [one for one, _ in expected] != [utterance.utterance_id for utterance in present]:
        raise _differs(node, f"shard {name} would hold other utterances")
    retired = catalogue.retired_in(name)
    for utterance, (_, sha256) in zip(present, expected, strict=True):
        # The corpus has a retired one no more, or otherwise. Its id and its place must do.
        if utterance.utterance_id not in retired and hashlib.sha256(tree.read(utterance.path)).hexdigest() != sha256:
            raise _differs(node, f"{utterance.path} has changed")


def _differs(node: Node, how: str) -> PipelineError:
    return PipelineError(
        f"the catalogue of {node.name!r} can't be made of the corpus as it is now: {how}. {_LAST_RESORT}"
    )


def drop_incomplete(store: Store) -> int:
    """Drop the records of the last run's shards that lack an utterance; return how many.

    One that the corpus has no more, or otherwise, is not missed.

    The next plan measures the files of those in quarantine anew. An older version may have believed
    what their headers say.

    The records of what was made from those shards are dropped too, as a table may say that the
    utterance is missing, and a report was made without it. Trainings stay: they took long and need
    no single utterance.
    """
    folders = {(entry.folder, entry.key): store.product(entry.folder, entry.key) for entry in store.nodes.values()}
    stale = {}
    for entry in store.nodes.values():
        catalogue = store.catalogue_of(entry)
        records = folders[entry.folder, entry.key].records()
        stale[entry.folder, entry.key] = {
            name for name, record in records.items() if frozenset(record.absent) - catalogue.retired_in(name)
        }
    grows = True
    while grows:
        n_before = sum(map(len, stale.values()))
        for address, folder in folders.items():
            sources = [source for port in folder.description.inputs.values() for source in port]
            others = [source for source in sources if _is_of_another_corpus(source, folder, folders)]
            names = {name for source in sources if source not in others for name in stale.get(source, ())}
            names |= _paired_with(folder, {name for source in others for name in stale.get(source, ())})
            own = set(folder.record_names())
            # A report has one record, for all shards.
            stale[address] |= own if names and folder.description.kind == Kind.REPORT else own & names
        grows = sum(map(len, stale.values())) > n_before
    for entry in store.nodes.values():
        _forget_times(store, entry, stale[entry.folder, entry.key])
    for address, names in stale.items():
        for record in folders[address].records(names).values():
            folders[address].forget(record)
    return sum(map(len, stale.values()))


def _forget_times(store: Store, entry: NodeEntry, names: Collection[str]) -> None:
    """Forget when the files of an ingest node in quarantine were seen, so that they are measured anew."""
    if not entry.is_ingest:
        return
    folder = store.product(entry.folder, entry.key)
    catalogue = store.catalogue_of(entry)
    absent = {one for record in folder.records(names).values() for one in record.absent}
    files = [one._replace(mtime_ns=_NEVER) for one in catalogue.utterances() if one.utterance_id in absent]
    catalogue.seeing(files).write_parts(folder.location / CATALOGUE)


def _is_of_another_corpus(source: Address, folder: ProductFolder, folders: Mapping[Address, ProductFolder]) -> bool:
    """Tell whether an input has a catalogue that is not the product's own."""
    own = folder.description.items_of or folder.description.catalogue
    return own is not None and source in folders and folders[source].description.catalogue not in (None, own)


def _paired_with(folder: ProductFolder, others: Collection[str]) -> set[str]:
    """Return the records that were computed with a shard of another corpus whose record is given."""
    if not others:
        return set()
    return {
        name
        for name, record in folder.records().items()
        if any(record_name(partner.shard) in others for partner in folder.read_partners(record).values())
    }
