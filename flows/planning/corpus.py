"""Compare a corpus with the catalogue that the store has of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

from melmill.flows.errors import PipelineError
from melmill.flows.pipeline.graph import Node
from melmill.stages.contract import IngestStage, Mel, Waveform
from melmill.stages.numeric.errors import StageError
from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import StoreError
from melmill.storage.files.sources import SourceTree
from melmill.storage.product import ProductFolder
from melmill.storage.store import Store
from melmill.storage.utterance import Labels, Utterance

NAMED = 3


class Surveyed(NamedTuple):
    """Hold the catalogue of an ingest node, and what a person should know of its corpus."""

    catalogue: Catalogue
    notes: tuple[str, ...]


def survey(node: Node, store: Store, shard_duration_s: float) -> Surveyed:
    """Return the catalogue of an ingest node, extended by what is new in the corpus, with notes.

    Parameters
    ----------
    node : Node
        Its stage is an IngestStage.
    store : Store
        If a file has another time of change, its content is compared with the hash stored here.
    shard_duration_s : float
        Audio in a shard, s.

    Raises
    ------
    PipelineError
        The corpus can't be read or is empty, or a catalogued file is gone or has changed.
    StoreError
        The catalogue can't be read.
    """
    folder = store.product(node.folder, node.key)
    # Records first: another run may be storing shards of the catalogue, and then their records.
    record_names = folder.record_names()
    stored = store.catalogue(node.folder, node.key)
    stage = cast("IngestStage", node.stage)
    product = cast("Waveform | Mel", node.product)
    catalogue = Catalogue.empty(sr=product.sr, shard_duration_s=shard_duration_s) if stored is None else stored
    known = {utterance.path: utterance for utterance in catalogue.utterances()}
    try:
        catalogue.check_covers(record_names, f"{folder.location.url}/catalogue")
        tree = SourceTree(stage.root)
        discovered = stage.discover(tree, known)
        check_unchanged(node, known, discovered.utterances, folder, tree)
    except (StoreError, StageError) as error:
        raise PipelineError(f"node {node.name!r}: {error}", node.where) from error
    new = [utterance for utterance in discovered.utterances if utterance.path not in known]
    catalogue = catalogue.extended(new).relabelled(discovered.labels)
    return Surveyed(catalogue, (*_label_notes(known, discovered.labels), *discovered.notes))


def _label_notes(known: Mapping[str, Utterance], labels: Mapping[str, Labels]) -> Iterator[str]:
    """Yield how many texts and speakers of known utterances changed."""
    pairs = [(one.labels, labels[one.utterance_id]) for one in known.values() if one.utterance_id in labels]
    texts = [(before.text, now.text) for before, now in pairs if before.text != now.text]
    speakers = [now for before, now in pairs if before[1:4] != now[1:4]]
    if texts:
        added, gone = sum(not before for before, _ in texts), sum(not now for _, now in texts)
        parts = [f"{n:,} {what}" for n, what in ((added, "added"), (gone, "gone")) if n]
        of_these = f" ({', '.join(parts)})" if parts else ""
        yield f"{len(texts):,} text{'s' * (len(texts) > 1)} changed{of_these}; the catalogue follows"
    if speakers:
        yield f"{len(speakers):,} speaker{'s' * (len(speakers) > 1)} changed; the catalogue follows"


def check_unchanged(
    node: Node, known: Mapping[str, Utterance], discovered: Sequence[Utterance], folder: ProductFolder, tree: SourceTree
) -> None:
    """Raise PipelineError if a catalogued file is gone, or holds other bytes than were ingested.

    Parameters
    ----------
    node : Node
    known : mapping of str to Utterance
        Utterances of the catalogue, by path.
    discovered : sequence of Utterance
        Utterances of the corpus. One that did not change is the very object in `known`.
    folder : ProductFolder
        What the node has stored.
    tree : SourceTree
        The corpus.
    """
    present = {utterance.path: utterance for utterance in discovered}
    gone = [path for path in known if path not in present]
    touched = {path: present[path] for path in known if path in present and present[path] is not known[path]}
    changed = _changed(known, touched, folder, tree) if touched else []
    for paths, what in ((gone, "gone"), (changed, "changed")):
        if paths:
            more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
            raise PipelineError(
                f"the corpus of node {node.name!r} at {tree.url!r} is not what the store holds: "
                f"{what} since it was catalogued: {', '.join(paths[:NAMED])}{more}. "
                "Restore the files, or run with another store (--store) or under another node name.",
                node.where,
            )


def _changed(
    known: Mapping[str, Utterance], touched: Mapping[str, Utterance], folder: ProductFolder, tree: SourceTree
) -> list[str]:
    """Return the paths whose bytes differ.

    A file in quarantine has no hash and may be mended. It only must have its old length, for which
    its shard has room.
    """
    facts = folder.read_table("table")
    hashes = dict(zip(facts["utterance_id"], facts["content_sha256"], strict=True)) if len(facts) else {}
    return [
        path
        for path, now in touched.items()
        if (
            hashes[now.utterance_id] != hashlib.sha256(tree.read(path)).hexdigest()
            if now.utterance_id in hashes
            else _length(now) != _length(known[path])
        )
    ]


def _length(utterance: Utterance) -> tuple[int, int]:
    return utterance.source_n_samples, utterance.source_sr
