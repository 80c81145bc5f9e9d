"""Pair the utterances of two corpora for the nodes that compare them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import Node, table_of_pairs
from melmill.stages.numeric.errors import StageError
from melmill.stages.score.contract import PairingStage
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.partners import Partner, partners_csv, partners_file
from melmill.storage.product import ProductFolder
from melmill.storage.records import Record, StoredFile, record_name


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What the shards of a node read of another corpus.

    Parameters
    ----------
    source : str
        Node of the other corpus that is read.
    corpus : str
        Its ingest node.
    partners : tuple of mapping of str to Partner
        For each shard of the node: what belongs to its utterances, by id. Utterances without a
        partner are left out.
    notes : tuple of str
        What a person should know of the pairs, a line each.
    """

    source: str
    corpus: str
    partners: tuple[Mapping[str, Partner], ...]
    notes: tuple[str, ...]

    def shards_for(self, shard: int) -> frozenset[int]:
        """Return the shards of the other corpus that a shard of the node reads."""
        return frozenset(partner.shard for partner in self.partners[shard].values())

    def outdated(self, folder: ProductFolder, records: Mapping[str, Record], own: Catalogue) -> Iterator[str]:
        """Yield the names of records whose shards were made of other pairs than there are now.

        Parameters
        ----------
        folder : ProductFolder
            Product of the node.
        records : mapping of str to Record
            Those of its records that are whole.
        own : Catalogue
            Of its own corpus. Pairs of utterances that it lacks count no more.
        """
        for index, partners in enumerate(self.partners):
            record = records.get(record_name(index))
            if record is None or record.files.get(partners_file(record.name)) == StoredFile.of(partners_csv(partners)):
                continue
            stored = folder.read_partners(record)
            if partners != {name: one for name, one in stored.items() if name in own and own.shard_of(name) == index}:
                yield record.name


def pair(node: Node, nodes: Mapping[str, Node], catalogues: Mapping[str, Catalogue]) -> Paired | None:
    """Return the pairs of a node, None where all its inputs are of one corpus.

    Parameters
    ----------
    node : Node
    nodes : mapping of str to Node
        All that it reads.
    catalogues : mapping of str to Catalogue
        By ingest node.

    Raises
    ------
    PipelineError
        Nothing belongs together, or the stage can't tell what does.
    """
    if node.paired_source is None:
        return None
    stage, source = cast("PairingStage", node.stage), nodes[node.paired_source]
    corpus = source.corpora[0]
    own, other = catalogues[node.corpora[0]], catalogues[corpus]
    inputs = {port: nodes[names[0]].product for port, names in node.inputs.items()}
    try:
        table = None if stage.pairs is None else table_of_pairs(stage.pairs)
        found = stage.pair(list(own.utterances()), list(other.utterances()), inputs, table)
    except StageError as error:
        raise PipelineError(f"node {node.name!r}: {error}", node.where) from error
    partners: list[dict[str, Partner]] = [{} for _ in range(own.n_shards)]
    for name, partner in found.partners.items():
        partners[own.shard_of(name)][name] = Partner(partner, other.shard_of(partner))
    return Paired(source=source.name, corpus=corpus, partners=tuple(partners), notes=found.notes)
