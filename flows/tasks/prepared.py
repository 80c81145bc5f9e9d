"""What a stage that prepares waveforms made of a shard: items, and the account of every sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from melmill.stages.contract import Item, Outcome, PrintsStage, Processor
from melmill.stages.numeric.errors import StageError
from melmill.storage.corpus.items import Span, check_spans
from melmill.storage.errors import StoreError
from melmill.storage.product import ProductFolder, ShardContents
from melmill.storage.records import record_name

PORT = "from"
"""Port of what is prepared."""


def item_id(utterance_id: str, number: int, n_items: int) -> str:
    """Return the id of an item that was made of an utterance.

    >>> item_id("a", 0, 1), item_id("a", 2, 5)
    ('a', 'a~003')
    """
    return utterance_id if n_items == 1 else f"{utterance_id}~{number + 1:03d}"


def with_spans(
    contents: ShardContents, items: Sequence[Item], outcomes: Sequence[Outcome], *, reshapes: bool, place: str
) -> ShardContents:
    """Return the contents of a shard with what was kept of each item, and with all spans.

    Parameters
    ----------
    contents : ShardContents
        What else the outcomes say.
    items, outcomes : sequence
        In the same order.
    reshapes : bool
        Whether the stage may keep parts of utterances.
    place : str
        Node and shard, for messages.

    Raises
    ------
    StageError
        The spans of an item are not all of its samples, in order.
    """
    spans: list[Span] = []
    arrays: dict[str, NDArray[Any]] = {}
    dropped: list[str] = []
    lengths: dict[str, int] = {}
    for item, outcome in zip(items, outcomes, strict=True):
        if outcome.rejected is not None:
            continue
        name = item.utterance.utterance_id
        lengths[name] = item.inputs[PORT].shape[-1]
        n_kept = sum(span.array is not None for span in outcome.spans or ())
        if not reshapes and n_kept and len(outcome.spans or ()) > 1:
            raise StageError(f"{place}: parts of {name!r} were kept by a stage that does not say that it reshapes")
        number = 0
        for span in outcome.spans or ():
            made = ""
            if span.array is not None:
                made = item_id(name, number, n_kept)
                arrays[made] = span.array
                number += 1
            spans.append(Span(name, made, span.start, span.stop, span.reason, span.detail))
        if not n_kept:
            dropped.append(name)
    try:
        check_spans(spans, lengths, place)
    except StoreError as error:
        raise StageError(str(error)) from error
    return replace(contents, arrays=arrays, spans=spans, absent=(*contents.absent, *dropped))


# What knows the tables of a corpus, by the product's URL, its records and the stage: the last ones.
_known: dict[tuple[str, frozenset[str], str], Processor] = {}
_MOST_KNOWN = 2


def knowing(
    stage: PrintsStage, folder: ProductFolder, shards: Sequence[int], shard: int, retired: Mapping[str, Collection[str]]
) -> Processor:
    """Return what processes a shard, given the table of a whole corpus.

    Parameters
    ----------
    stage : PrintsStage
    folder : ProductFolder
        Product with the table.
    shards : sequence of int
        All shards of the corpus.
    shard : int
        The one to process. The table must hold it, and all before it.
    retired : mapping of str to collection of str
        Utterances that count no more, by record.

    Raises
    ------
    StoreError
        A shard of it is not done.
    """
    for index in shards:
        if index <= shard:
            folder.done(record_name(index))
    records = folder.records([record_name(index) for index in shards])
    place = (folder.location.url, frozenset(records), f"{stage!r} {sorted(retired)}")
    if place not in _known:
        columns: dict[str, list[Any]] = {}
        for name in sorted(records, key=int):
            table = folder.stored_table("table", [name], None)
            if table is None:
                continue
            gone = retired.get(name, ())
            kept = [one not in gone and one.rpartition("~")[0] not in gone for one in table["utterance_id"].to_pylist()]
            for column in table.column_names:
                values = table[column].to_pylist()
                columns.setdefault(column, []).extend(value for value, keep in zip(values, kept, strict=True) if keep)
        while len(_known) >= _MOST_KNOWN:
            del _known[next(iter(_known))]
        _known[place] = stage.knowing(columns)
    return _known[place]
