"""What the records of an ingest node say of the levels of its recordings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from melmill.stages.ingest.levels import Levels
from melmill.storage.product import ProductFolder

if TYPE_CHECKING:
    from melmill.storage.catalogue import Catalogue

Said = Mapping[str, int | float | str]


def current_levels(folder: ProductFolder, catalogue: Catalogue, said: Mapping[str, Said]) -> Levels:
    """Return the counts of the recordings that some records are of, without those that are retired.

    A record keeps the counts of its shard. If a row of that is retired, the rows are counted anew.

    Parameters
    ----------
    folder : ProductFolder
        Product of the ingest node.
    catalogue : Catalogue
        As the corpus is now.
    said : mapping of str to mapping
        What records of shards of the catalogue keep of levels, by the record's name.
    """
    return Levels.total(
        Levels.of(_rows(folder, catalogue, name)) if catalogue.retired_in(name) else Levels.stored(levels)
        for name, levels in said.items()
        if levels
    )


def _rows(folder: ProductFolder, catalogue: Catalogue, name: str) -> Iterator[Mapping[str, Any]]:
    """Yield the facts of each recording of a shard that is not retired, without those it lacks."""
    table = folder.stored_table("table", [name], catalogue)
    for row in [] if table is None else table.to_pylist():
        yield {fact: value for fact, value in row.items() if value is not None and value == value}
