"""Pair the utterances of two corpora for the nodes that compare them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from melmill.flows.errors import PipelineError
from melmill.flows.pipeline.graph import Node, table_of_pairs
from melmill.stages.numeric.errors import StageError
from melmill.stages.score.contract import PairingStage
from melmill.storage.catalogue import Catalogue
from melmill.storage.partners import Partner, partners_csv, partners_file
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

    def outdated(self, records: Mapping[str, Record]) -> Iterator[str]:
        """Yield the names of records whose shards were made of other pairs than there are now."""
        for index, partners in enumerate(self.partners):
            record = records.get(record_name(index))
            if record is not None:
                stored = record.files.get(partners_file(record.name))
                if stored != StoredFile.of(partners_csv(partners)):
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
    shards = [own.shard(index).utterances for index in range(own.n_shards)]
    try:
        table = None if stage.pairs is None else table_of_pairs(stage.pairs)
        found = stage.pair([one for shard in shards for one in shard], list(other.utterances()), inputs, table)
    except StageError as error:
        raise PipelineError(f"node {node.name!r}: {error}", node.where) from error
    names = found.partners
    partners = tuple(
        {
            one.utterance_id: Partner(names[one.utterance_id], other.shard_of(names[one.utterance_id]))
            for one in shard
            if one.utterance_id in names
        }
        for shard in shards
    )
    return Paired(source=source.name, corpus=corpus, partners=partners, notes=found.notes)
