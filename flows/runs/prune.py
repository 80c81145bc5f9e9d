"""Delete the products that no run needs any more. docs/lifecycle.md says why this is safe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from melmill.flows.runs.usage import (
    ProductUsage,
    as_plain,
    files_by_product,
    product_usage,
    reached_by,
    runs_by_product,
)
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.errors import StoreError
from melmill.storage.files.local import TEMPORARY
from melmill.storage.product import CATALOGUE, Address, ProductFolder
from melmill.storage.proof.claims import FOLDER, LEASE_S, Claim, Lock, claimed, store_now, taken, wait_for
from melmill.storage.records import sealed, unsealed
from melmill.storage.runs import RunRecord
from melmill.storage.store import Store

KEEP = 5
# Nightly calls may be a little less than a day apart.
GRACE_S = 12 * 3600.0
MARKS = "marks.json"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is kept.

    Parameters
    ----------
    keep : int
        Number of last runs whose products stay, 1 at least. Tagged runs and running ones stay too.
    older_than_s : float or None
        Runs and products that are younger stay as well, s.
    grace_s : float
        Time between the mark and the deletion of a product, s.
    """

    keep: int = KEEP
    older_than_s: float | None = None
    grace_s: float = GRACE_S

    def __post_init__(self) -> None:
        """Check every field."""
        if self.keep < 1:
            raise ParameterError(
                "keep",
                f"must be at least 1, got {self.keep}: the last run is what the names of a store mean. To remove "
                "everything, remove the folder of the store",
            )
        for name in ("older_than_s", "grace_s"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ParameterError(name, f"must be a time of 0 or more, s, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """When a product was first found unused, by the store's clock, s, and the last run of that time."""

    at_s: float
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A product that may go.

    Parameters
    ----------
    usage : ProductUsage
    mark : Mark or None
        None: no call has marked it.
    due_in_s : float
        Time until it may be deleted, s; 0 if it may be now.
    """

    usage: ProductUsage
    mark: Mark | None
    due_in_s: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a look at a store found. Nothing is changed by it.

    Parameters
    ----------
    kept_runs : tuple of str
        Runs whose products stay.
    candidates : tuple of Candidate
        In order of node and key.
    leftovers : mapping of str to int
        Sizes of the files that killed writers left.
    n_kept : int
        Products that stay.
    """

    kept_runs: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    leftovers: Mapping[str, int]
    n_kept: int


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What a call did.

    Parameters
    ----------
    deleted, marked, in_use : tuple of ProductUsage
        Products that are gone, that wait for the end of their grace, and that were due and are used
        by a run in progress.
    leftovers : mapping of str to int
        Sizes of the files of killed writers that are gone.
    """

    deleted: tuple[ProductUsage, ...]
    marked: tuple[Candidate, ...]
    in_use: tuple[ProductUsage, ...]
    leftovers: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "deleted": [as_plain(product) for product in self.deleted],
            "marked": [candidate_as_plain(one) for one in self.marked],
            "in_use": [as_plain(product) for product in self.in_use],
            "leftovers": {"files": len(self.leftovers), "bytes": sum(self.leftovers.values())},
        }


def candidate_as_plain(candidate: Candidate) -> dict[str, Any]:
    """Return plain values, for JSON."""
    return {
        **as_plain(candidate.usage),
        "marked": candidate.mark is not None,
        "due_in_s": round(candidate.due_in_s, 1),
    }


def look(store: Store, rules: Rules) -> Found:
    """Return what a call would mark or delete. Nothing is written.

    Raises
    ------
    DamagedData
        The record of a run or a tag is damaged. What it needs is not known.
    """
    now_s = datetime.now(UTC).timestamp()
    runs = store.runs()
    files, _ = files_by_product(store)
    found = _unused(store, rules, runs, files, now_s)
    marks = _kept_marks(_read_marks(store), found, runs)
    candidates = tuple(
        Candidate(usage=one, mark=marks.get(one.address), due_in_s=_due_in_s(marks.get(one.address), rules, now_s))
        for one in found
    )
    leftovers = {
        name: n_bytes
        for name, n_bytes in store.location.everything().items()
        if TEMPORARY.fullmatch(name) and _is_old(store, name, rules, now_s)
    }
    return Found(
        kept_runs=tuple(run.run_id for run in kept_runs(runs, rules, now_s)),
        candidates=candidates,
        leftovers=leftovers,
        n_kept=len(files) - len(candidates),
    )


def prune(store: Store, rules: Rules, say: Callable[[str], None] = lambda line: None) -> Pruned:
    """Mark what no run needs, and delete what was marked before the grace began.

    What a killed call left half deleted is deleted first.

    Parameters
    ----------
    store : Store
    rules : Rules
    say : callable
        Receives a line about each product that is gone.

    Raises
    ------
    StoreBusy
        Another process prunes the store.
    DamagedData
        The record of a run or a tag is damaged. What it needs is not known.
    """
    with taken(store.location) as lock:
        _delete(store, lock, say)
        now_s = store_now(store.location)
        runs = store.runs()
        files, _ = files_by_product(store)
        found = {one.address: one for one in _unused(store, rules, runs, files, now_s)}
        marks = _kept_marks(_read_marks(store), found.values(), runs)
        last = runs[-1].run_id if runs else ""
        marks = {address: marks.get(address) or Mark(at_s=now_s, run_id=last) for address in found}
        _write_marks(store, marks)
        due = {address for address, mark in marks.items() if not _due_in_s(mark, rules, now_s)}
        lock.announce(due)
        # A run that claimed something, or was recorded, before now is seen here. One that does so
        # later sees what is announced.
        used = claimed(store.location) | _reached(kept_runs(store.runs(), rules, now_s))
        going = _without_catalogues_in_use(store, due - used, files)
        lock.begin(going)
        _delete(store, lock, say)
        _write_marks(store, {address: mark for address, mark in marks.items() if address not in going})
        leftovers = _remove_leftovers(store, rules, now_s, used)
    return Pruned(
        deleted=tuple(found[address] for address in sorted(going)),
        marked=tuple(
            Candidate(usage=found[address], mark=marks[address], due_in_s=_due_in_s(marks[address], rules, now_s))
            for address in sorted(found.keys() - due)
        ),
        in_use=tuple(found[address] for address in sorted(due - going)),
        leftovers=leftovers,
    )


def finish(store: Store, lock: Lock) -> None:
    """Delete what a killed process left half deleted. Nobody can claim it."""
    _delete(store, lock, lambda line: None)


def claim(store: Store) -> Claim:
    """Return what claims products of a store for a block."""
    return Claim(partial(finish, store), _say)


def wait_until_deleted(store: Store, products: Collection[Address]) -> int:
    """Wait until none of some products is being deleted; return how often the store was pruned."""
    return wait_for(store.location, products, partial(finish, store), _say)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _delete(store: Store, lock: Lock, say: Callable[[str], None]) -> None:
    """Delete what a lock announces: catalogues last, after all that is made of their utterances."""
    going = {address: store.product(*address) for address in sorted(lock.deleting)}
    for address, folder in sorted(going.items(), key=lambda pair: bool((pair[1].location / CATALOGUE).sizes())):
        folder.delete(lock.check)
        lock.settle(address)
        say(f"deleted {'/'.join(address)}")


def kept_runs(runs: Iterable[RunRecord], rules: Rules, now_s: float) -> list[RunRecord]:
    """Return the runs whose products stay: the last ones, and the tagged, running and young ones."""
    runs = list(runs)
    last = {run.run_id for run in runs[-rules.keep :]}
    return [
        run
        for run in runs
        if run.run_id in last or run.tags or run.state == "running" or _is_young(run.started_at, rules, now_s)
    ]


def _is_young(at: str, rules: Rules, now_s: float) -> bool:
    if rules.older_than_s is None or not at:
        return False
    return now_s - datetime.fromisoformat(at).timestamp() < rules.older_than_s


def _reached(runs: Iterable[RunRecord]) -> frozenset[Address]:
    return frozenset[Address]().union(*(reached_by(run.manifest) for run in runs))


def _unused(
    store: Store, rules: Rules, runs: list[RunRecord], files: Mapping[Address, Mapping[str, int]], now_s: float
) -> list[ProductUsage]:
    """Return the products that no run needs, in order."""
    reached = _reached(kept_runs(runs, rules, now_s))
    users = runs_by_product(runs)
    found = {}
    for address in files.keys() - reached:
        folder = store.product(*address)
        one = product_usage(folder, address, files[address], users.get(address, ()))
        if rules.older_than_s is None or not _is_young(
            one.made_at or _written_at(folder, files[address]), rules, now_s
        ):
            found[address] = one
    return [found[address] for address in sorted(_without_catalogues_in_use(store, found, files))]


def _written_at(folder: ProductFolder, files: Iterable[str]) -> str:
    """Return when the last file of a product without records was written."""
    times = [written for name in files if (written := folder.location.modified_s(name)) is not None]
    return datetime.fromtimestamp(max(times), UTC).isoformat() if times else ""


def _without_catalogues_in_use(
    store: Store, going: Collection[Address], files: Iterable[Address]
) -> frozenset[Address]:
    """Leave out the catalogues of products that stay.

    A catalogue that is made anew may put utterances into other shards. So no product may be left
    that was made of the shards of a catalogue that is gone.
    """
    needed: set[Address] = set()
    for address in set(files) - set(going):
        folder = store.product(*address)
        try:
            owner = folder.description.catalogue
            while owner is not None and owner not in needed:
                needed.add(owner)
                # What was cut of a corpus is listed by what the node stored, and by the corpus.
                owner = store.product(*owner).description.items_of
        except StoreError:
            if folder.record_names():
                # Nothing says which catalogue it needs.
                return frozenset(one for one in going if not (store.product(*one).location / CATALOGUE).sizes())
    return frozenset(going) - needed


def _due_in_s(mark: Mark | None, rules: Rules, now_s: float) -> float:
    return rules.grace_s if mark is None else max(0.0, mark.at_s + rules.grace_s - now_s)


def _kept_marks(
    marks: Mapping[Address, Mark], found: Iterable[ProductUsage], runs: Iterable[RunRecord]
) -> dict[Address, Mark]:
    """Return the marks of products that nothing has used since they were marked."""
    used_by = {one.address: max(one.runs, default="") for one in found}
    return {address: mark for address, mark in marks.items() if address in used_by and used_by[address] <= mark.run_id}


def _read_marks(store: Store) -> dict[Address, Mark]:
    """Return the stored marks; none where they can't be read, which costs another grace."""
    try:
        rows = unsealed((store.location / FOLDER).read(MARKS))["marks"]
        return {(node, key): Mark(at_s=float(at_s), run_id=str(run_id)) for node, key, at_s, run_id in rows}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return {}


def _write_marks(store: Store, marks: Mapping[Address, Mark]) -> None:
    rows = [[*address, mark.at_s, mark.run_id] for address, mark in sorted(marks.items())]
    (store.location / FOLDER).replace(MARKS, sealed({"marks": rows}))


def _is_old(store: Store, name: str, rules: Rules, now_s: float) -> bool:
    written_s = store.location.modified_s(name)
    return written_s is not None and now_s - written_s > max(rules.grace_s, LEASE_S)


def _remove_leftovers(store: Store, rules: Rules, now_s: float, used: Collection[Address]) -> dict[str, int]:
    """Remove what killed writers left long ago, but where a run is at work; return the sizes."""
    gone = {}
    for name, n_bytes in store.location.everything().items():
        if TEMPORARY.fullmatch(name) and tuple(name.split("/")[:2]) not in used and _is_old(store, name, rules, now_s):
            store.location.remove(name)
            gone[name] = n_bytes
    return gone
