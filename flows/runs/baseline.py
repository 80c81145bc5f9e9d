"""The runs that comparisons and gates name: by an address, or as the baseline of a store."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from melmill.flows.runs.addresses import Address, ResolvedRun, parse_address, resolve
from melmill.stages.report.comparison.evaluation import RunAt
from melmill.storage.errors import StoreError, StoreMissing
from melmill.storage.files.location import Location
from melmill.storage.runs import RunRecord
from melmill.storage.store import Store


def resolved(text: str) -> tuple[ResolvedRun, str | None]:
    """Return the run of an address, and the node that it names, which may stand for several."""
    address = parse_address(text)
    if address.node is None:
        return resolve(address), None
    # A node that was fanned out has no product of its own name.
    return resolve(replace(address, node=None, text="")), address.node


def label(address: Address) -> str:
    """Return what messages call a run: its store, with the tag or run that was named.

    >>> label(Address(store="runs/x", at="nightly", node="gla"))
    'runs/x@nightly'
    """
    return address.store if address.at is None else f"{address.store}@{address.at}"


def find_baseline(text: str, store: str) -> tuple[ResolvedRun, str | None]:
    """Return the run that the baseline of a gate means, and the node that it names.

    Parameters
    ----------
    text : str
        A tag or a run of the store, with ``:NODE`` or without, or an address of another store.
    store : str
        URL of the store whose run is judged.

    Raises
    ------
    StoreError
        It is neither. The message names the nearest tag or run.
    """
    at, _, node = text.removeprefix("@").partition(":")
    try:
        # A tag may be called as a scheme is: s3://team/store is none.
        return resolve(Address(store=store, at=text if node.startswith("//") else at)), node or None
    except StoreError as error:
        if text.startswith("@"):
            raise
        with suppress(StoreMissing):
            return resolved(text)
        if is_place(text):
            raise StoreMissing(f"baseline {text!r} is no store, and no tag or run of {store!r} ({error})") from error
        raise


def is_place(text: str) -> bool:
    """Tell whether a baseline can only be an address of a store, by how it is written.

    >>> is_place("nightly:gla"), is_place("runs/x"), is_place("x@nightly")
    (False, True, True)
    """
    if text.startswith("@"):
        return False
    address = parse_address(text)
    return address.at is not None or any(mark in address.store for mark in "/\\")


def published_baseline(text: str, store: str) -> tuple[RunAt | None, str]:
    """Return what the baseline of a gate node means now, or why there is none yet.

    There is none until a run of the store is done and has scores. So a first run that was interrupted
    goes on. Later a baseline that is not found is an error. So is another store that is not there.

    Raises
    ------
    StoreError
        Nothing has that name, and the store has a run that could be the baseline, or it names
        another store.
    """
    try:
        runs = Store.open(store).runs()
    except StoreMissing:
        runs = []
    try:
        run, node = find_baseline(text, store)
    except StoreError as error:
        if is_place(text) and Location(parse_address(text).store) != Location(store):
            raise
        if any(map(_could_be_baseline, runs)):
            raise StoreError(
                f"{error}. Tag the run that is to be the baseline (`melmill tag {store} {text}`), or name another"
            ) from error
        why = "no run of the store is done and has scores" if runs else "this is the store's first run"
        return None, f"there is no baseline {text!r} yet, as {why}"
    products = tuple((name, entry.key) for name, entry in sorted(run.manifest.nodes.items()) if entry.kind == "scores")
    return RunAt(store=run.location.url, run_id=run.manifest.run_id, label=text, node=node, products=products), ""


def _could_be_baseline(run: RunRecord) -> bool:
    is_done = run.state in ("done", "unknown")
    return is_done and any(entry.kind == "scores" for entry in run.manifest.nodes.values())
