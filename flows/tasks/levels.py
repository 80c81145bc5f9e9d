"""What the records of an ingest node say of the levels of its recordings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from melmill.stages.ingest.levels import Levels
from melmill.storage.product import ProductFolder
from melmill.storage.records import Record

if TYPE_CHECKING:
    from melmill.storage.catalogue import Catalogue


def current_levels(folder: ProductFolder, catalogue: Catalogue, records: Iterable[Record]) -> Levels:
    """Return the counts of the recordings that some records are of, without those that are retired.

    A record keeps the counts of its shard. If a row of that is retired, the rows are counted anew.

    Parameters
    ----------
    folder : ProductFolder
        Product of the ingest node.
    catalogue : Catalogue
        As the corpus is now.
    records : iterable of Record
        Of shards of the catalogue.
    """
    return Levels.total(
        Levels.of(_rows(folder, catalogue, record.name))
        if catalogue.retired_in(record.name)
        else Levels.stored(record.levels)
        for record in records
        if record.levels
    )


def _rows(folder: ProductFolder, catalogue: Catalogue, name: str) -> Iterator[Mapping[str, Any]]:
    """Yield the facts of each recording of a shard that is not retired, without those it lacks."""
    for row in folder.read_table("table", [name], catalogue=catalogue).to_dict("records"):
        yield {str(fact): value for fact, value in row.items() if value is not None and value == value}
