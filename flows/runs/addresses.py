"""Addresses of runs as people write them: ``STORE``, ``STORE@TAG``, ``STORE@RUN``, each with ``:NODE``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from melmill.storage.errors import StoreError, StoreMissing
from melmill.storage.files.location import Location
from melmill.storage.runs import Manifest, RunFacts, RunOutcome, RunRecord
from melmill.storage.store import Store

# What stands before the last part of a path: a scheme, a drive, folders.
_FOLDERS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z]:(?=[\\/]))?(?:.*[\\/])?", flags=re.DOTALL)
_FORM = "expected STORE, STORE@TAG or STORE@RUN, with :NODE where one node is meant"


@dataclass(frozen=True, kw_only=True)
class Address:
    """An address, taken apart.

    Parameters
    ----------
    store : str
        Path or URL of the store.
    at : str or None
        A tag, or a run's id or its beginning. None: the last run.
    node : str or None
    text : str
        The address as it was written.
    """

    store: str
    at: str | None = None
    node: str | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class ResolvedRun:
    """The run that an address means.

    Parameters
    ----------
    store : Store
        Its names mean the products of this run.
    location : Location
        Of the store.
    run_id : str
    manifest : Manifest
    facts : RunFacts or None
        None: an older version ran it.
    outcome : RunOutcome or None
        None: it runs, its driver was killed, or an older version ran it.
    tags : tuple of str
    node : str or None
        The node that the address names. It is one of the run.
    record : RunRecord
        All of this, and the state of the run.
    """

    store: Store
    location: Location
    run_id: str
    manifest: Manifest
    facts: RunFacts | None
    outcome: RunOutcome | None
    tags: tuple[str, ...]
    node: str | None
    record: RunRecord

    @property
    def name(self) -> str:
        """What people call it: its first tag, else its id."""
        return self.tags[0] if self.tags else self.run_id


def parse_address(text: str) -> Address:
    """Take an address apart. Only the last part of a path may name a run or a node.

    A slash at the end of the store keeps an ``@`` or ``:`` of its name: ``runs/a@b/@base:admm``.

    Raises
    ------
    StoreError
        Nothing stands where a store, a run or a node must.

    >>> parse_address("s3://team/demo@base:admm[n_iter=10]")
    Address(store='s3://team/demo', at='base', node='admm[n_iter=10]', text='s3://team/demo@base:admm[n_iter=10]')
    """
    values = _values(text)
    path = text.removesuffix(values)
    match = _FOLDERS.match(path)
    folders = match.group() if match else ""
    last = path.removeprefix(folders)
    node: str | None = None
    at: str | None = None
    if ":" in last and "@" not in last.rpartition(":")[2]:
        last, _, name = last.rpartition(":")
        node = name + values
    elif values:
        last += values
    if "@" in last:
        last, _, at = last.rpartition("@")
    # A slash at the end was written to keep the name of the store whole.
    store = folders + last if last else folders.rstrip("/\\") or folders
    for what, part in (("store", store), ("run or tag", at), ("node", node)):
        if part == "":
            raise StoreError(f"address {text!r} has no {what}: {_FORM}")
    return Address(store=store, at=at, node=node, text=text)


def _values(text: str) -> str:
    """Return the values in brackets that end a node's name, which may hold any character."""
    depth = 0
    for at in range(len(text) - 1, -1, -1) if text.endswith("]") else ():
        depth += {"]": 1, "[": -1}.get(text[at], 0)
        if depth == 0:
            return text[at:]
    return ""


def resolve(address: Address) -> ResolvedRun:
    """Return the run that an address means.

    A tag goes before a run. The beginning of a run's id is enough if it is that of one run alone.

    Raises
    ------
    StoreError
        There is no such store, run or node, or no run at all. The message names the nearest.
    """
    store, address = _opened(address)
    runs = {run.run_id: run for run in store.runs()}
    if not runs:
        raise StoreError(f"store {store.location.url!r} has no runs yet: run a pipeline on it")
    run = runs[_run_id(store, address.at, list(runs))]
    if address.node is not None and address.node not in run.manifest.nodes:
        raise StoreError(
            f"run {run.run_id!r} of store {store.location.url!r} has no node {address.node!r}"
            f"{_hint(address.node, run.manifest.nodes, 'nodes')}"
        )
    return ResolvedRun(
        store=pinned(store, run),
        location=store.location,
        run_id=run.run_id,
        manifest=run.manifest,
        facts=run.facts,
        outcome=run.outcome,
        tags=run.tags,
        node=address.node,
        record=run,
    )


def gone(node: str) -> str:
    """Return what to say after the name of a run that a store has a node's product no more of."""
    return (
        f"has nothing of node {node!r} any more: its product was pruned, or is not copied. Run its pipeline again, and "
        "tag the runs that must stay"
    )


def pinned(store: Store, run: RunRecord) -> Store:
    """Return a store whose names mean what they meant in a run."""
    # A run of an older version may have repeated the manifest of the run before it.
    return store.at(run.manifest.run_id)


def _opened(address: Address) -> tuple[Store, Address]:
    try:
        return Store.open(address.store), address
    except StoreMissing:
        # The name of the store itself may hold an @ or a colon.
        whole = address.text
        if whole and whole != address.store:
            with suppress(StoreError):
                return Store.open(whole), Address(store=whole, text=whole)
        raise


def _run_id(store: Store, at: str | None, run_ids: list[str]) -> str:
    """Return the id of the run that a tag, an id or its beginning means."""
    if at is None:
        return run_ids[-1]
    tags = store.tags()
    if at in tags:
        tagged = tags[at].run_id
        if tagged in run_ids:
            return tagged
        raise StoreError(f"tag {at!r} of store {store.location.url!r} means run {tagged!r}, which is gone")
    # An empty variable of a script must not mean the only run of a store.
    begun = [run_id for run_id in run_ids if at and run_id.startswith(at)]
    if at in run_ids or len(begun) == 1:
        return at if at in run_ids else begun[0]
    if begun:
        raise StoreError(
            f"store {store.location.url!r} has {len(begun)} runs that begin with {at!r}, "
            f"such as {begun[-2]!r} and {begun[-1]!r}: write more of the id"
        )
    raise StoreError(
        f"store {store.location.url!r} has no tag or run {at!r}{_hint(at, [*tags, *run_ids], 'its last run', -1)}"
    )


def _hint(name: str, known: Collection[str], what: str, start: int = 0) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f" ({what}: {', '.join([*known][start:]) or 'none'})"
