"""What a plan asks of all records of a product: which shards are whole, in a byte for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from melmill.storage.corpus.shard_set import ShardSet
from melmill.storage.proof.packs import Gist
from melmill.storage.proof.record import Record, record_name

# Records that are objects at a time.
_READ = 4096

Levels = Mapping[str, int | float | str]


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The records of a product, and what their files are by size.

    Parameters
    ----------
    recorded : ShardSet
        Shards that have a file of a record, damaged ones too.
    whole : ShardSet
        Shards with a record whose files have their sizes.
    others : mapping of str to Record
        Records of what was made of whole corpora, by name.
    problems : mapping of str to str
        What is wrong with the files of a record, by its name.
    absent : mapping of str to tuple of str
        Ids without data by the name of the record, where there are any.
    quarantined : ShardSet
        Shards that are whole, and of which the node put an utterance into quarantine.
    levels : mapping of int to mapping
        What an ingest node counted of the levels of shards that are whole, where it said anything.
    counts : mapping of str to ndarray of int64, shape (n_shards,)
        What another node counted, by shard; 0 for those that are not whole.
    n_records : int
        Records that can be read.
    n_unpacked : int
        Records of shards that are in no pack.
    """

    recorded: ShardSet
    whole: ShardSet
    others: Mapping[str, Record]
    problems: Mapping[str, str]
    absent: Mapping[str, tuple[str, ...]]
    quarantined: ShardSet
    levels: Mapping[int, Levels]
    counts: Mapping[str, NDArray[np.int64]]
    n_records: int
    n_unpacked: int

    @property
    def last_names(self) -> list[str]:
        """Name of the record of the last shard, if there is one."""
        last = np.flatnonzero(self.recorded.mask)[-1:]
        return [record_name(int(shard)) for shard in last]


@dataclass
class _Notes:
    """What is noted of one record after the other."""

    size_of: Callable[[str], int | None]
    whole: ShardSet
    problems: dict[str, str] = field(default_factory=dict)
    absent: dict[str, tuple[str, ...]] = field(default_factory=dict)
    quarantined: list[int] = field(default_factory=list)
    levels: dict[int, Levels] = field(default_factory=dict)
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    n_records: int = 0

    def add(self, gist: Gist, shard: int | None) -> None:
        """Note what a record says, and whether its files have their sizes."""
        self.n_records += 1
        if gist.absent:
            self.absent[gist.name] = gist.absent
        problem = size_problem(gist.n_bytes, {file: self.size_of(file) for file in gist.n_bytes})
        if problem:
            self.problems[gist.name] = problem
        elif shard is not None:
            self.whole.mask[shard] = True
            if gist.n_quarantined:
                self.quarantined.append(shard)
            if gist.levels:
                self.levels[shard] = gist.levels
            for what, count in gist.counts.items():
                of_shards = self.counts.setdefault(what, np.zeros(len(self.whole.mask), np.int64))
                of_shards[shard] = count


def take_inventory(
    names: Sequence[str],
    packed: Iterable[Gist],
    read: Callable[[Sequence[str]], Iterable[Record]],
    size_of: Callable[[str], int | None],
) -> Inventory:
    """Return what records say.

    Parameters
    ----------
    names : sequence of str
        Of all records.
    packed : iterable of Gist
        Of those in packs, some perhaps twice.
    read : callable
        Returns those of some records that can be parsed.
    size_of : callable
        Returns the size of a file of the product, None where there is none.
    """
    recorded = shards_of(names)
    others = [name for name in names if _shard_of(name) is None] if len(recorded) < len(names) else []
    notes = _Notes(size_of, ShardSet(np.zeros_like(recorded.mask)))
    unread = recorded.mask.copy()
    for gist in gists_of(unread, packed):
        notes.add(gist, int(gist.name))
    n_unpacked = int(np.count_nonzero(unread))
    for gist in unpacked_gists(unread, read):
        notes.add(gist, int(gist.name))
    whole_corpora = {record.name: record for record in read(others)}
    for record in whole_corpora.values():
        notes.add(Gist.of(record), None)
    return Inventory(
        recorded=recorded,
        whole=ShardSet(notes.whole.mask),
        others=whole_corpora,
        problems=notes.problems,
        absent=notes.absent,
        quarantined=ShardSet.of(notes.quarantined),
        levels=notes.levels,
        counts=notes.counts,
        n_records=notes.n_records,
        n_unpacked=n_unpacked,
    )


def shards_of(names: Iterable[str]) -> ShardSet:
    """Return the shards that records are named after."""
    return ShardSet.of(shard for name in names if (shard := _shard_of(name)) is not None)


def gists_of(unread: NDArray[np.bool_], packed: Iterable[Gist]) -> Iterator[Gist]:
    """Yield the packed gists of unread shards, each once, and mark the shards as read."""
    for gist in packed:
        shard = _shard_of(gist.name)
        if shard is not None and shard < len(unread) and unread[shard]:
            unread[shard] = False
            yield gist


def unpacked_gists(unread: NDArray[np.bool_], read: Callable[[Sequence[str]], Iterable[Record]]) -> Iterator[Gist]:
    """Yield the gists of the records of unread shards, some records at a time."""
    shards = np.flatnonzero(unread)
    for first in range(0, len(shards), _READ):
        yield from map(Gist.of, read([record_name(shard) for shard in shards[first : first + _READ].tolist()]))


def _shard_of(name: str) -> int | None:
    """Return the number of the shard that a record is named after, None for other records."""
    # Names of six digits, the most of them, are not made anew to compare.
    if not (name.isdecimal() and name.isascii() and (len(name) == 6 or record_name(int(name)) == name)):
        return None
    return int(name)


def size_problem(expected: Mapping[str, int], sizes: Mapping[str, int | None]) -> str | None:
    """Return the first problem of files by size, None if there is none.

    Parameters
    ----------
    expected : mapping of str to int
        Sizes that a record names.
    sizes : mapping of str to int or None
        Of the files in question, None for one that is missing.
    """
    for name, size in sizes.items():
        if name not in expected:
            return f"{name} is not named by its record"
        if size is None:
            return f"{name} is missing"
        if size != expected[name]:
            return f"{name} has {size} bytes, expected {expected[name]}"
    return None
