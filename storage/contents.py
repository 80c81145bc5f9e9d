"""What a task hands to the store for one shard, checked and turned into files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from melmill.storage.chunks import encode
from melmill.storage.description import ProductDescription
from melmill.storage.errors import StoreError
from melmill.storage.records import record_name
from melmill.storage.tables import Row, rows_table, to_parquet, traces_table
from melmill.storage.utterance import Shard

Part = Literal["table", "trace", "quarantine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """Say which utterance a stage could not process, where and why."""

    utterance_id: str
    node: str
    stage: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardContents:
    """Hold what a node made of one shard.

    Every utterance of the shard has an array (or a row, in a product without arrays), is quarantined, or absent.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        By utterance id: ``(n_samples,)`` or ``(n_mels, n_frames)``.
    rows : sequence of mapping or None
        Rows of the table, each with an ``utterance_id``.
    traces : mapping of str to mapping or None
        By utterance id: columns of one value per iteration.
    quarantined : sequence of Quarantined
        By this node.
    absent : sequence of str
        Ids that the inputs lack.
    """

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    rows: Sequence[Row] | None = None
    traces: Mapping[str, Mapping[str, NDArray[Any]]] | None = None
    quarantined: Sequence[Quarantined] = ()
    absent: Sequence[str] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Ids without data: quarantined here or before, sorted."""
        return tuple(sorted({*self.absent, *(one.utterance_id for one in self.quarantined)}))


def part_file(part: Part, name: str) -> str:
    """Return the file of a table of a record, relative to the product's folder."""
    return f"{part}/{name}.parquet"


def contents_files(description: ProductDescription, shard: Shard, contents: ShardContents) -> dict[str, bytes]:
    """Return the files that hold a shard's contents, by name relative to the product's folder.

    Raises
    ------
    StoreError
        For an utterance that is left out, is of another shard, or has an array of wrong shape, dtype or values.
    """
    place = f"node {description.node!r}, shard {shard.index}"
    _check_complete(description, shard, contents, place)
    files = {f"data/{name}": data for name, data in _array_files(description, shard, contents, place).items()}
    name = record_name(shard.index)
    if contents.rows:
        files[part_file("table", name)] = to_parquet(rows_table(contents.rows, place))
    if contents.traces:
        files[part_file("trace", name)] = to_parquet(traces_table(contents.traces, place))
    if contents.quarantined:
        rows = [asdict(one) for one in contents.quarantined]
        files[part_file("quarantine", name)] = to_parquet(rows_table(rows, place))
    return files


def _check_complete(description: ProductDescription, shard: Shard, contents: ShardContents, place: str) -> None:
    row_ids = {row["utterance_id"] for row in contents.rows or ()}
    present = set(contents.arrays) if description.array else row_ids
    missing = set(contents.missing)
    known = {utterance.utterance_id for utterance in shard.utterances}
    problems = {
        "not of this shard": (present | row_ids | missing | set(contents.traces or ())) - known,
        "neither stored nor quarantined": known - present - missing,
        "both stored and quarantined": present & missing,
    }
    for problem, ids in problems.items():
        if ids:
            raise StoreError(f"{place}: {len(ids)} utterances are {problem}, e.g. {min(ids)!r}")
    if contents.arrays and not description.array:
        raise StoreError(f"{place}: arrays for a product of kind {description.kind!r}, which has none")


def _array_files(
    description: ProductDescription, shard: Shard, contents: ShardContents, place: str
) -> dict[str, bytes]:
    if description.array is None:
        return {}
    for utterance in shard.utterances:
        if utterance.utterance_id in contents.arrays:
            description.array.check(utterance, contents.arrays[utterance.utterance_id], place)
    return encode(description.array, description.slot_length, shard, contents.arrays)
