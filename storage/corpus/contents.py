"""The contents of a shard: what a stage computed of it, and the files that hold that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melmill.storage.arrays import Array, encode
from melmill.storage.corpus.items import SPANS, Span, spans_table
from melmill.storage.corpus.partners import Partner, partners_csv, partners_file
from melmill.storage.description import ProductDescription
from melmill.storage.errors import StoreError
from melmill.storage.reading.recordings import with_digests
from melmill.storage.records import record_name
from melmill.storage.tables import Row, rows_table, to_parquet, traces_table
from melmill.storage.utterance import Shard

Part = Literal["table", "trace", "quarantine", "spans"]

# Column of quarantine tables for the hashes of files. It is no part of what people read.
REFUSED = "content_sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """An utterance that a stage could not process, with node and reason.

    `content_sha256` is that of a file that an ingest stage refused. It is empty elsewhere.
    """

    utterance_id: str
    node: str
    stage: str
    reason: str
    detail: str = ""
    content_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardContents:
    """What a node made of one shard.

    Every utterance of the shard has an array, is quarantined, or is absent. In a product without
    arrays, it has a row instead.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        By utterance id: ``(n_samples,)`` or ``(n_mels, n_frames)``.
    rows : sequence of mapping or None
        Rows of the table. Each has an ``utterance_id``.
    traces : mapping of str to mapping or None
        By utterance id: columns with a value per iteration.
    quarantined : sequence of Quarantined
        By this node.
    absent : sequence of str
        Ids that the inputs lack.
    partners : mapping of str to Partner, or None
        By utterance id: what each was computed with, where that is of another corpus.
    spans : sequence of Span or None
        What a node that prepares waveforms kept of them, and what it dropped.
    """

    arrays: Mapping[str, Array] = field(default_factory=dict)
    rows: Sequence[Row] | None = None
    traces: Mapping[str, Mapping[str, NDArray[np.int64 | np.float64 | np.str_]]] | None = None
    quarantined: Sequence[Quarantined] = ()
    absent: Sequence[str] = ()
    partners: Mapping[str, Partner] | None = None
    spans: Sequence[Span] | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Ids that were quarantined or dropped here or before, sorted."""
        return tuple(sorted({*self.absent, *(one.utterance_id for one in self.quarantined)}))


COLUMNS: Mapping[Part, list[str]] = {
    "table": ["utterance_id"],
    "trace": ["utterance_id", "iteration"],
    "quarantine": [name for name in Quarantined.__dataclass_fields__ if name != REFUSED],
    "spans": SPANS.names,
}


def part_file(part: Part, name: str) -> str:
    """Return the file of a table of a record, relative to the product's folder."""
    return f"{part}/{name}.parquet"


def contents_files(description: ProductDescription, shard: Shard, contents: ShardContents) -> dict[str, bytes]:
    """Return the files of a shard's contents by name, relative to the product's folder.

    Raises
    ------
    StoreError
        An utterance is missing, is of another shard, or has an array of wrong shape, dtype or
        values.
    """
    place = f"node {description.node!r}, shard {shard.index}"
    _check_complete(description, shard, contents, place)
    files = {}
    if description.array:
        for utterance in shard.utterances:
            if utterance.utterance_id in contents.arrays:
                description.array.check(utterance, contents.arrays[utterance.utterance_id], place)
    if description.stored_array:
        encoded = encode(description.stored_array, description.slot_length, shard, contents.arrays)
        files = {f"data/{name}": data for name, data in encoded.items()}
    name = record_name(shard.index)
    rows = with_digests(contents.rows or (), contents.arrays, place) if description.referenced else contents.rows
    if rows:
        files[part_file("table", name)] = to_parquet(rows_table(rows, place))
    if contents.traces:
        files[part_file("trace", name)] = to_parquet(traces_table(contents.traces, place))
    if contents.quarantined:
        table = rows_table([asdict(one) for one in contents.quarantined], place)
        if not any(one.content_sha256 for one in contents.quarantined):
            table = table.drop_columns([REFUSED])
        files[part_file("quarantine", name)] = to_parquet(table)
    return {**files, **_companions(shard.index, contents)}


def _companions(index: int, contents: ShardContents) -> dict[str, bytes]:
    """Return the files that say how the contents of a shard came about."""
    name, files = record_name(index), {}
    if contents.spans is not None:
        files[part_file("spans", name)] = to_parquet(spans_table(index, contents.spans))
    if contents.partners is not None:
        files[partners_file(name)] = partners_csv(contents.partners)
    return files


def _check_complete(description: ProductDescription, shard: Shard, contents: ShardContents, place: str) -> None:
    row_ids = {str(row["utterance_id"]) for row in contents.rows or ()}
    present = set(contents.arrays) if description.array else row_ids
    missing = set(contents.missing)
    known = {utterance.utterance_id for utterance in shard.utterances}
    # Rows and spans are about what the node was given, which it may have split.
    given = known | {span.utterance_id for span in contents.spans or ()}
    problems = {
        "not of this shard": ((present | missing | set(contents.traces or ())) - known) | (row_ids - given),
        "neither stored nor quarantined": known - present - missing - shard.retired,
        "both stored and quarantined": present & missing,
    }
    for problem, ids in problems.items():
        if ids:
            raise StoreError(f"{place}: {len(ids)} utterances are {problem}, e.g. {min(ids)!r}")
    if contents.arrays and not description.array:
        raise StoreError(f"{place}: arrays for a product of kind {description.kind!r}, which has none")
