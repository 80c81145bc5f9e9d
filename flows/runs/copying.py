"""Copy products from one store to another, with what they need, so that a run there uses them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from melmill.flows.runs.prune import claim
from melmill.flows.runs.trends.page import write_trends
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.labels import label_files
from melmill.storage.corpus.parts import part_names
from melmill.storage.corpus.revisions import list_names
from melmill.storage.errors import AlreadyThere, DamagedData, StoreError, StoreUnwritable
from melmill.storage.files.location import Location
from melmill.storage.product import CATALOGUE, Address, ProductDescription, ProductFolder
from melmill.storage.runs import NodeEntry, RunRecord
from melmill.storage.store import MANIFEST, RUNS, STATE, Store

_THERE = -1
# Records at a time where a store is remote.
_AT_ONCE = 8

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What a call copied.

    Parameters
    ----------
    products : int
        Products that were asked for.
    records, n_bytes : int
        Shards and other results that were copied, and the size of their files.
    there : int
        Those that the target had already.
    runs : tuple of str
        Runs whose records the target has now.
    problems : tuple of str
        What could not be copied because the source is damaged, a line each.
    """

    products: int
    records: int = 0
    n_bytes: int = 0
    there: int = 0
    runs: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "products": self.products,
            "records": self.records,
            "bytes": self.n_bytes,
            "there": self.there,
            "runs": list(self.runs),
            "problems": list(self.problems),
        }


def copy_runs(
    source: Store,
    target_url: str,
    runs: Sequence[RunRecord],
    nodes: Collection[str] | None = None,
    *,
    with_runs: bool = False,
    say: Say = lambda line: None,
) -> Copied:
    """Copy the products of runs to another store, which is made if there is none.

    What the target has is left as it is, so that a call that was killed is repeated to go on. Files
    are compared with the checksums of their records before they are stored.

    Parameters
    ----------
    source : Store
    target_url : str
    runs : sequence of RunRecord
        Of the source.
    nodes : collection of str or None
        Names of nodes in these runs; None for all. The catalogues that they need are copied too.
    with_runs : bool
        Whether the records of the runs are copied, so that names in the target mean what they do
        here.
    say : callable
        Receives a line about each product.

    Raises
    ------
    StoreMismatch
        The target is the store of another project.
    StoreError
        A node is unknown, or the target has another catalogue of the same corpus.
    """
    entries = _entries(source, runs, nodes)
    wanted = {(entry.folder, entry.key) for entry in entries}
    catalogues = {address for entry in entries for address in entry.catalogues}
    # A catalogue of what was cut of a corpus is not stored: it follows from what the node stored.
    cut = {address for address in catalogues if source.product(*address).description.items_of is not None}
    wanted, catalogues = wanted | cut, catalogues - cut
    target = _target(source, target_url)
    with ExitStack() as claims:
        # Neither may be pruned meanwhile. A source that this user can't write may be, which is noticed.
        claims.enter_context(claim(target)).take(target.location, wanted | catalogues)
        with suppress(StoreUnwritable):
            claims.enter_context(claim(source)).take(source.location, wanted | catalogues)
        for address in sorted(catalogues):
            copy_catalogue(source, target, address)
        copied = [_copy_product(source, target, address, say) for address in _in_order(source, wanted)]
        for run in runs if with_runs else ():
            _copy_run(source.location, target.location, run)
        if with_runs:
            write_trends(target)
    return Copied(
        products=len(wanted),
        records=sum(one.records for one in copied),
        n_bytes=sum(one.n_bytes for one in copied),
        there=sum(one.there for one in copied),
        runs=tuple(run.run_id for run in runs) if with_runs else (),
        problems=tuple(problem for one in copied for problem in one.problems),
    )


def _in_order(source: Store, addresses: Collection[Address]) -> list[Address]:
    """Return products so that the nodes that cut utterances come before what is made of their items."""

    def depth(address: Address) -> int:
        items_of = source.product(*address).description.items_of
        return 0 if items_of is None else 1 + depth(items_of)

    def place(address: Address) -> tuple[int, bool]:
        description = source.product(*address).description
        if description.items_of is not None:
            return depth(address), False
        return (0 if description.catalogue is None else depth(description.catalogue)), True

    return sorted(addresses, key=lambda address: (*place(address), address))


def _entries(source: Store, runs: Iterable[RunRecord], nodes: Collection[str] | None) -> list[NodeEntry]:
    """Return what the names of nodes mean in runs."""
    known = {name: entry for run in runs for name, entry in run.manifest.nodes.items()}
    for name in nodes or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f" (nodes: {', '.join(known)})"
            raise StoreError(f"store {source.location.url!r} has no node {name!r} to copy{hint}")
    return [entry for run in runs for name, entry in run.manifest.nodes.items() if nodes is None or name in nodes]


def _target(source: Store, url: str) -> Store:
    if Location(url).url == source.location.url:
        raise StoreError(f"{url!r} is the store to copy from: name another place to copy to")
    target = Store.create(url, source.project)
    target.raise_format(source.format)
    return target


def copy_catalogue(source: Store, target: Store, address: Address) -> None:
    """Copy the catalogue of an ingest node and its description, without what it ingested.

    Shards are numbered by the catalogue. So it must be that of the target, or go on from it.

    Raises
    ------
    StoreError
        The target has another one.
    """
    read, written = (store.product(*address).location / CATALOGUE for store in (source, target))
    mine, theirs = read.sizes(), written.sizes()
    # Lists of retired rows come before the parts that replace them, as a run stores them.
    ours, others = ([*list_names(names), *part_names(names)] for names in (mine, theirs))
    if {*ours} - {*others} and {*others} - {*ours}:
        raise _differs(source, target, address)
    try:
        for name in ours:
            if name in mine and (
                name not in theirs or mine[name] != theirs[name] or read.read(name) != written.read(name)
            ):
                written.put(name, read.read(name))
    except AlreadyThere as error:
        raise _differs(source, target, address) from error
    if not label_files(theirs):
        for name in label_files(mine):
            written.put(name, read.read(name))
    _prepare(source, target, address, Catalogue.read(written).n_slots)


def _differs(source: Store, target: Store, address: Address) -> StoreError:
    return StoreError(
        f"{target.location.url} has another catalogue of {'/'.join(address)} than {source.location.url}, so that the "
        "shards hold other utterances: copy to another store, or run the pipeline there"
    )


def _prepare(source: Store, target: Store, address: Address, n_slots: int) -> ProductDescription:
    """Make a product of the target ready for records of the source; return its description.

    Raises
    ------
    StoreError
        It is there with another description, or with arrays in other codecs.
    """
    description = source.product(*address).description
    target.prepare(description, n_slots)
    there = target.product(*address).description
    if there.array != description.array:
        raise StoreError(
            f"{target.location.url} has {'/'.join(address)} in other codecs than {source.location.url}: run the "
            "pipeline there, which makes what is missing"
        )
    return description


def _copy_product(source: Store, target: Store, address: Address, say: Say) -> Copied:
    """Copy the records of a product with their files."""
    read, written = source.product(*address), target.product(*address)
    owner = read.description.items_of or read.description.catalogue
    n_slots = 0 if owner is None else target.catalogue_at(owner).n_slots
    _prepare(source, target, address, n_slots)
    names = read.record_names()
    at_once = _AT_ONCE if source.location.is_remote or target.location.is_remote else 1
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(partial(_copy_record, read, written), names))
    written.pack()
    copied = Copied(
        products=1,
        records=sum(isinstance(one, int) and one >= 0 for one in found),
        n_bytes=sum(one for one in found if isinstance(one, int) and one >= 0),
        there=found.count(_THERE),
        problems=tuple(one for one in found if isinstance(one, str)),
    )
    say(f"{'/'.join(address)}: {copied.records} of {len(names)} copied, {copied.there} were there")
    return copied


def _copy_record(read: ProductFolder, written: ProductFolder, name: str) -> int | str:
    """Copy a record and its files; return their size, `_THERE`, or why it can't be copied."""
    there = written.record(name)
    if there is not None and written.damage(there) is None:
        return _THERE
    record = read.record(name)
    if record is None:
        return f"{read.location.url}: record {name} can't be parsed"
    try:
        files = {file: read.read_whole(record, file) for file in record.files}
    except DamagedData as error:
        return str(error)
    if record.at and read.other(record.at).description.array != written.description.array:
        return f"{read.location.url}: the files of record {name} are in other codecs in {record.at}"
    if there is not None:
        written.forget(there)
    written.publish(replace(record, at=""), files)
    return sum(map(len, files.values()))


def _copy_run(source: Location, target: Location, run: RunRecord) -> None:
    """Copy the record of a run.

    Raises
    ------
    AlreadyThere
        The target has another run of this id.
    """
    # A run of an older version may have repeated the manifest of the run before it.
    for run_id in dict.fromkeys([run.manifest.run_id, run.run_id]):
        read, written = (store / RUNS / run_id for store in (source, target))
        for name in sorted(read.sizes(), key=lambda name: name == MANIFEST):
            if name == STATE:
                written.replace(name, read.read(name))
            else:
                written.put(name, read.read(name))
