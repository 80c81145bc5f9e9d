"""What prepared corpora are made of: which samples of its input a node kept, and which it dropped.

A node that trims or splits utterances has a catalogue of its own. It is not stored: it follows from
the catalogue of the node's input and from the spans that the node stored of each shard. The shards
keep their numbers and their slots, so whatever is made of the items has its place in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from melmill.storage.corpus.packing import MAX_UTTERANCES
from melmill.storage.corpus.parts import SCHEMA
from melmill.storage.corpus.revisions import Retired, Revisions
from melmill.storage.errors import StoreError
from melmill.storage.tables import from_numpy, rows_at, to_numpy
from melmill.storage.utterance import Shard, Utterance

KEPT = ""
"""Reason of what was kept."""


class Span(NamedTuple):
    """Some samples of an utterance that a node was given, and what became of them.

    Parameters
    ----------
    utterance_id : str
        Of the utterance, as the node was given it.
    item_id : str
        Of what was made of the samples. Empty where they were dropped.
    start, stop : int
        First sample, and the one behind the last, of the utterance as the node was given it.
    reason : str
        Why they were dropped: a rule, the same for all that it dropped. Empty for what was kept.
    detail : str
        What was found, such as a number.
    """

    utterance_id: str
    item_id: str
    start: int
    stop: int
    reason: str = KEPT
    detail: str = ""

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return self.stop - self.start


SPANS = pa.schema(
    [
        ("shard", pa.int64()),
        ("utterance_id", pa.string()),
        ("item_id", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def spans_table(shard: int, spans: Sequence[Span]) -> pa.Table:
    """Return the table of a shard's spans."""
    columns = [list(column) for column in zip(*spans, strict=True)] or [[] for _ in Span._fields]
    return pa.table([[shard] * len(spans), *columns], schema=SPANS)


def spans_of(table: pa.Table) -> Iterator[Span]:
    """Yield the spans of a table."""
    for row in zip(*(table[name].to_pylist() for name in Span._fields), strict=True):
        yield Span(*row)


def check_spans(spans: Iterable[Span], lengths: Mapping[str, int], place: str) -> None:
    """Raise StoreError unless the spans of each utterance follow each other from its start to its end.

    Parameters
    ----------
    spans : iterable of Span
    lengths : mapping of str to int
        Samples of each utterance that the node was given, by id.
    place : str
        Where, for the message.
    """
    at = dict.fromkeys(lengths, 0)
    for span in spans:
        if span.utterance_id not in at:
            raise StoreError(f"{place}: spans of {span.utterance_id!r}, which the node was not given")
        if span.start != at[span.utterance_id] or span.stop < span.start:
            raise StoreError(
                f"{place}: a span of {span.utterance_id!r} goes from sample {span.start} to {span.stop}, and the one "
                f"before it ends at {at[span.utterance_id]}: kept and dropped samples must be all there are"
            )
        at[span.utterance_id] = span.stop
    for name, stop in at.items():
        if stop != lengths[name]:
            raise StoreError(f"{place}: spans of {name!r} end at sample {stop} of {lengths[name]}")


def kept_items(spans: Iterable[Span]) -> dict[str, list[Span]]:
    """Return the spans that were kept, by utterance."""
    kept: dict[str, list[Span]] = {}
    for span in spans:
        if span.item_id:
            kept.setdefault(span.utterance_id, []).append(span)
    return kept


def items_shard(shard: Shard, spans: Iterable[Span], sr: int) -> Shard:
    """Return a shard with the items that a node made in place of its utterances.

    An utterance that the node made nothing of stays, without samples.

    Parameters
    ----------
    shard : Shard
        As the node was given it.
    spans : iterable of Span
        At `sr`, Hz.
    sr : int

    Raises
    ------
    StoreError
        There are more items than arrays have room for.
    """
    kept = kept_items(spans)
    utterances: list[Utterance] = []
    retired: set[str] = set()
    for one in shard.utterances:
        made = kept.get(one.utterance_id) or [Span(one.utterance_id, one.utterance_id, 0, 0)]
        for span in made:
            # Nobody knows which words of a text are in one of several items.
            text = one.text if len(made) == 1 else ""
            path = one.path if len(made) == 1 else part_path(one.path, span.item_id)
            utterances.append(
                one._replace(utterance_id=span.item_id, n_samples=span.n_samples, sr=sr, text=text, path=path)
            )
        if one.utterance_id in shard.retired:
            retired.update(span.item_id for span in made)
    most = MAX_UTTERANCES * shard.n_slots
    if len(utterances) > max(most, len(shard.utterances)):
        raise StoreError(
            f"shard {shard.index} would hold {len(utterances):,} items, and there is room for {most:,}: make longer "
            "ones (min_s), or shorter shards (shard_duration_s)"
        )
    return Shard(
        index=shard.index,
        slot=shard.slot,
        n_slots=shard.n_slots,
        utterances=tuple(utterances),
        retired=frozenset(retired),
    )


def part_path(path: str, item_id: str) -> str:
    """Return what stands for the file of an item that is one of several of a file.

    >>> part_path("a/b.flac", "b~002")
    'a/b.flac//b~002'
    """
    return f"{path}//{item_id}"


class ItemRows:
    """The rows of a catalogue of items, in order of shard; see `melmill.storage.corpus.parts.CatalogueRows`.

    Parameters
    ----------
    table : pyarrow.Table
        Columns of `SCHEMA`, with what a part says of the whole catalogue in its metadata.
    end : (int, int)
        Numbers of the next shard and of the next slot.
    """

    def __init__(self, table: pa.Table, end: tuple[int, int]) -> None:
        self._table = table
        self.end = end

    @property
    def schema(self) -> pa.Schema:
        """Columns and metadata."""
        return self._table.schema

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self._table.num_rows)

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows at once."""
        yield self._table if columns is None else self._table.select(columns)

    def rows(self, start: int, stop: int) -> pa.Table:
        """Return the rows from `start` to before `stop`."""
        return self._table.slice(start, stop - start)

    def shard_rows(self, index: int) -> pa.Table:
        """Return the rows of a shard, none if there is no such shard."""
        start, stop = np.searchsorted(to_numpy(self._table["shard"]), [index, index + 1])
        return self._table.slice(start, stop - start)


def items_rows(table: pa.Table, spans: pa.Table | None, sr: int) -> tuple[pa.Table, dict[tuple[int, str], list[str]]]:
    """Return the rows of a catalogue with items in place of utterances, and the items of each by shard and id.

    Shards without spans, which are not done yet, have the rows that they had.

    Parameters
    ----------
    table : pyarrow.Table
        All rows of the catalogue of the node's input, in order of shard.
    spans : pyarrow.Table or None
        Of the shards that are done.
    sr : int
        Rate that spans count samples at, Hz.
    """
    kept: dict[tuple[int, str], list[tuple[str, int]]] = {}
    done: set[int] = set()
    if spans is not None:
        columns = (spans[name].to_pylist() for name in ("shard", "utterance_id", "item_id", "start", "stop"))
        for shard, name, item, start, stop in zip(*columns, strict=True):
            done.add(shard)
            if item:
                kept.setdefault((shard, name), []).append((item, stop - start))
    shards, ids = table["shard"].to_pylist(), table["utterance_id"].to_pylist()
    at_rate = [
        -(-n * sr // (old or 1)) for n, old in zip(*(table[c].to_pylist() for c in ("n_samples", "sr")), strict=True)
    ]
    sources, names, lengths, is_part = [], [], [], []
    for row, place in enumerate(zip(shards, ids, strict=True)):
        n_whole = 0 if place[0] in done else at_rate[row]
        made = kept.get(place) or [(place[1], n_whole)]
        for name, n_samples in made:
            sources.append(row)
            names.append(name)
            lengths.append(n_samples)
            is_part.append(len(made) > 1)
    rows = rows_at(table, np.array(sources, np.int64))
    counts = np.array(lengths, np.int64)
    texts, paths = rows["text"].to_pylist(), rows["path"].to_pylist()
    new = {
        "utterance_id": pa.array(names, pa.string()),
        "text": pa.array(["" if part else text for text, part in zip(texts, is_part, strict=True)], pa.string()),
        "path": pa.array(
            [part_path(path, name) if part else path for path, name, part in zip(paths, names, is_part, strict=True)],
            pa.string(),
        ),
        "sr": from_numpy(np.full(len(names), sr, np.int64)),
        "n_samples": from_numpy(counts),
        "duration_s": from_numpy(counts / sr),
        "start": from_numpy(_starts(to_numpy(rows["shard"]), counts)),
    }
    for name, column in new.items():
        rows = rows.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    return rows, {place: [item for item, _ in made] for place, made in kept.items()}


def _starts(shards: NDArray[np.int64], n_samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first sample of each row within its shard."""
    before = np.cumsum(n_samples) - n_samples
    first = np.searchsorted(shards, shards, side="left")
    starts: NDArray[np.int64] = before - before[first]
    return starts


def items_revisions(revisions: Revisions, items: Mapping[tuple[int, str], Sequence[str]]) -> Revisions:
    """Return which items are retired, where the utterances that they were made of are."""
    rows = [
        Retired(row.shard, item, row.path, row.reason)
        for listed in revisions.lists
        for row in listed
        for item in items.get((row.shard, row.utterance_id), (row.utterance_id,))
    ]
    return Revisions(lists=(tuple(rows),), n_stored=1) if rows else Revisions()
