"""The history of a store: its runs, the tags that name some of them, and how two runs differ."""

from __future__ import annotations

import difflib
import getpass
import platform

from melmill.storage.errors import AlreadyThere, StoreError
from melmill.storage.runs import RunRecord, Tag, check_tag_name, now
from melmill.storage.store import Store


def runs_of(store: Store) -> list[RunRecord]:
    """Return what a store knows of each run, the oldest first; raise DamagedData."""
    return store.runs()


def tags_of(store: Store) -> dict[str, Tag]:
    """Return all tags of a store by name; raise DamagedData."""
    return store.tags()


def set_tag(store: Store, name: str, run_id: str, force: bool = False) -> Tag:
    """Give a run a name, which protects it from pruning; return the tag.

    Parameters
    ----------
    store : Store
    name : str
    run_id : str
    force : bool
        Whether the name may be taken from another run.

    Raises
    ------
    StoreError
        The name can't be one, there is no such run, it still runs, or the name means another run.
    """
    if problem := check_tag_name(name):
        raise StoreError(problem)
    run = next((run for run in store.runs() if run.run_id == run_id), None)
    if run is None:
        raise StoreError(f"store {store.location.url!r} has no run {run_id!r}")
    if run.state == "running":
        raise StoreError(
            f"run {run_id!r} of store {store.location.url!r} is still running: tag it when it is done "
            f"(`melmill status {store.location.url}` says how far it is)"
        )
    tag = Tag(name=name, run_id=run_id, at=now(), by=f"{_user()}@{platform.node()}")
    if force:
        store.write_tag(tag, replace=True)
        return tag
    try:
        store.write_tag(tag)
    except AlreadyThere as error:
        other = store.tag(name)
        if other is not None and other.run_id == run_id:
            return other
        meant = "another run" if other is None else f"run {other.run_id!r} since {other.at}"
        raise StoreError(
            f"tag {name!r} of store {store.location.url!r} means {meant}: give --force to move it to {run_id!r}"
        ) from error
    return tag


def remove_tag(store: Store, name: str) -> Tag:
    """Remove a tag and return what it was; raise StoreError where there is none. Its run stays."""
    tags = store.tags()
    if name not in tags:
        near = difflib.get_close_matches(name, tags, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (tags: {', '.join(tags) or 'none'})"
        raise StoreError(f"store {store.location.url!r} has no tag {name!r}{hint}")
    store.remove_tag(name)
    return tags[name]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"  # a container may run as a user that has no name
