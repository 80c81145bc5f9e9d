"""One shard of a stored catalogue, read without the others: what a task begins with."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa

from melmill.storage.corpus.parts import StoredPart, part_names, utterances_of
from melmill.storage.corpus.revisions import by_shard, read_lists
from melmill.storage.errors import CatalogueError
from melmill.storage.files.location import Location
from melmill.storage.utterance import Shard


def read_shard(location: Location, index: int) -> Shard:
    """Return one shard, decoding no more of the stored catalogue than needed.

    Its labels are those of the part: no array depends on them.
    """
    tags = location.tags()
    names = list(tags or location.sizes())

    def read(name: str) -> bytes:
        return _tagged(location, name, tags[name]) if name in tags else location.read(name)

    retired = by_shard(read_lists(location, names, read)).get(index, frozenset())
    for name in part_names(names):
        part = _part(location, name, tags[name]) if name in tags else StoredPart(location, name)
        rows = part.shard_rows(index)
        if len(rows):
            return shard_of_rows(index, rows, retired)
    raise CatalogueError(f"{location.url}: there is no shard {index!r} in the catalogue")


@lru_cache(maxsize=16)
def _part(location: Location, name: str, tag: str) -> StoredPart:
    """Return a part, cached by its tag, so that a worker opens it once."""
    return StoredPart(location, name)


@lru_cache(maxsize=16)
def _tagged(location: Location, name: str, tag: str) -> bytes:
    """Return a file, cached by its tag, so that a worker does not fetch it again for each shard."""
    return location.read(name)


def shard_of_rows(index: int, rows: pa.Table, retired: frozenset[str]) -> Shard:
    """Return a shard of its rows in a catalogue."""
    return Shard(
        index=index,
        slot=rows["slot"][0].as_py(),
        n_slots=rows["n_slots"][0].as_py(),
        utterances=tuple(utterances_of(rows)),
        retired=retired,
    )
