"""Prepare a store before tasks run: descriptions, catalogues, array metadata and the manifest."""

from __future__ import annotations

from collections.abc import Mapping

from melmill.flows.pipeline.graph import Node
from melmill.flows.pipeline.recordings import recordings_of
from melmill.flows.planning.plan import Plan
from melmill.flows.runs.copying import copy_catalogue
from melmill.stages.contract import Embedding, EmbeddingRows, Features, Mel, Scores, Trained, TrustRows, Waveform
from melmill.storage.arrays import ArraySpec
from melmill.storage.errors import StoreError
from melmill.storage.product import ProductDescription
from melmill.storage.runs import now
from melmill.storage.store import FORMAT, FORMAT_ELSEWHERE, Manifest, NodeEntry, Store


def prepare_store(plan: Plan) -> Store:
    """Return the store of a plan, fit for its tasks.

    It holds all that tasks rely on, and no records of damaged data. If nothing is pending, only
    records are packed, so that the next plan reads them with few requests, and texts that changed
    are stored.

    Raises
    ------
    StoreError
        The store can't be written, or belongs to another project.
    """
    store = Store.create(plan.pipeline.store, plan.pipeline.name)
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    if any(map(recordings_of, nodes.values())):
        store.raise_format(FORMAT)
    adopts = _read_elsewhere(plan, store, nodes)
    for name, node_plan in plan.nodes.items():
        node = node_plan.node
        folder = store.product(node.folder, node.key)
        if node_plan.n_unpacked >= folder.min_unpacked:
            folder.pack()
        if plan.n_pending or adopts:
            n_slots = 0 if node.is_whole else plan.catalogues[node.corpora[0]].n_slots
            store.prepare(describe(node, nodes, plan.pipeline.shard_duration_s), n_slots)
        if name in plan.catalogues:
            # Utterances may be retired, or files seen with other times, with nothing to run.
            store.write_catalogue(node.folder, node.key, plan.catalogues[name])
        for record in node_plan.damaged:
            folder.drop(record)
        for stale in folder.records(node_plan.outdated).values() if node_plan.outdated else ():
            folder.forget(stale)
    for name, catalogue in plan.catalogues.items():
        store.write_labels(nodes[name].folder, nodes[name].key, catalogue)
    _adopt(plan, store)
    return store


def _adopt(plan: Plan, store: Store) -> None:
    """Store the records of what other stores have done, now that damaged ones are gone."""
    for node_plan in plan.nodes.values():
        address = node_plan.node.folder, node_plan.node.key
        for url, names in node_plan.adopted.names.items():
            other = Store.open(url).product(*address)
            records = other.records(names)
            if len(records) < len(names):
                n_lost = len(names) - len(records)
                raise StoreError(f"{other.location.url} has lost {n_lost} records since the run was planned: run again")
            store.product(*address).adopt(records.values(), other)


def _read_elsewhere(plan: Plan, store: Store, nodes: Mapping[str, Node]) -> bool:
    """Get ready to read what other stores have done; return whether they have done anything."""
    for name, url in plan.catalogued_in.items():
        copy_catalogue(Store.open(url), store, (nodes[name].folder, nodes[name].key))
    adopts = any(node_plan.adopted.names for node_plan in plan.nodes.values())
    if adopts:
        store.raise_format(FORMAT_ELSEWHERE)
    return adopts


def publish_manifest(plan: Plan, store: Store, *, partial: bool) -> str:
    """Store which products the pipeline's names mean now; return the id of the new run.

    With `partial` the plan leaves out nodes of the pipeline, and what the last run says of those
    stays.
    """
    run_id = store.new_run_id()
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    entries = {
        name: NodeEntry(
            folder=node.folder,
            key=node.key,
            kind=node.product.kind.value,
            stage=node.stage.uses,
            catalogues=tuple(_address(nodes[one]) for one in (*reversed(node.items_made), *node.corpora)),
            scored=_measured(node),
            recordings=recordings_of(node),
        )
        for name, node in nodes.items()
    }
    last = store.latest_manifest() if partial else None
    if last is not None:
        entries = {**last.nodes, **entries}
    manifest = Manifest(
        run_id=run_id,
        project=plan.pipeline.name,
        started_at=now(),
        nodes=entries,
        pipeline=dict(plan.pipeline.document),
    )
    store.publish_run(run_id, manifest)
    return run_id


def _measured(node: Node) -> str | None:
    """Return the node whose waveforms a node measures, None if it measures none."""
    product = node.product
    if isinstance(product, TrustRows):
        return product.damaged
    return product.scored if isinstance(product, Scores | EmbeddingRows) else None


def describe(node: Node, nodes: Mapping[str, Node], shard_duration_s: float) -> ProductDescription:
    """Return the description that is stored beside a node's product."""
    product, array = node.product, array_spec(node)
    read = _address(nodes[node.reads_items_of])
    # The mel that the product is, was made from, needs, or has the frames of.
    mel = product.spec if isinstance(product, Mel | Features | Trained) else None
    if isinstance(product, Waveform):
        mel = product.mel
    return ProductDescription(
        node=node.folder,
        key=node.key,
        kind=product.kind.value,
        stage=node.stage.uses,
        version=node.stage.version,
        parameters=dict(node.parameters),
        inputs={port: [_address(nodes[name]) for name in names] for port, names in node.inputs.items()},
        catalogue=None if node.is_whole else _address(node) if node.reshapes else read,
        items_of=read if node.reshapes else None,
        array=array,
        mel=None if mel is None else mel.as_dict(),
        conversions=dict(product.conversions) if isinstance(product, Waveform) else {},
        sr=None if array is None else array.sr,
        referenced=isinstance(product, Waveform) and product.referenced,
        shard_duration_s=shard_duration_s,
    )


def array_spec(node: Node) -> ArraySpec | None:
    """Return the layout of a node's array; None if it makes none."""
    product = node.product
    if isinstance(product, Waveform):
        return ArraySpec(dtype=product.dtype, sr=product.sr)
    if isinstance(product, Embedding):
        return ArraySpec(dtype=product.dtype, sr=product.sr, n_mels=product.size, frames="one")
    if isinstance(product, Mel | Features):
        stft = product.spec.stft
        return ArraySpec(
            dtype=product.dtype,
            sr=product.spec.sr,
            n_mels=product.spec.n_mels if isinstance(product, Mel) else len(product.rows),
            n_fft=stft.n_fft,
            hop_length=stft.hop_length,
            pad=stft.pad,
            frames=product.spec.frames,
            frame_multiple=product.spec.frame_multiple,
        )
    return None


def _address(node: Node) -> tuple[str, str]:
    return node.folder, node.key
