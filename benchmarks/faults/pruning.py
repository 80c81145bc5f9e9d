"""Prune the store of a run in progress, kill that, and let another prune finish it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, replace

from benchmarks.faults.processes import PATIENCE_S, Process
from benchmarks.faults.scene import Scene
from melmill.storage.product import Address
from melmill.storage.records import RECORDS
from melmill.storage.runs import Manifest, NodeEntry
from melmill.storage.store import Store
from melmill.storage.verify import verify

# Copies of the product that is deleted, so that a kill finds the deletion under way.
N_COPIES = 40
# Longest time from the first removal to the kill, s.
LONGEST_S = 0.06
_PRUNE = ("--keep", "1", "--grace", "0", "--yes")


@dataclass(frozen=True, kw_only=True)
class Struck:
    """What came of it: a description, and whether the prune was at work when it was killed."""

    says: str
    met: bool


def strike(scene: Scene, pick: float) -> Struck | None:
    """Prune and kill. Return None if the run has not stored what can be copied.

    In half of the cases the last run of the store means nothing that the run in progress does. So
    its products stay only because it uses them.

    Raises
    ------
    RuntimeError
        The store does not verify, something stays or something is gone.
    """
    store = Store.open(scene.url)
    mine = store.latest_manifest()
    if mine is None or mine.nodes.keys() != scene.workshop.nodes.keys():
        return None
    strays = _strays(store, mine.nodes["speech"])
    if not strays:
        return None
    by_use = pick >= 0.5
    if by_use:
        node, key = strays.pop()
        # It stays if the run in progress ends now.
        scene.strays.add(scene.store / node / key)
        entry = replace(mine.nodes["speech"], key=key, catalogues=((node, key),))
        store.publish_run(run_id := store.new_run_id(), replace(mine, run_id=run_id, nodes={"speech": entry}))
    before = _records(store, mine)
    n_deleted, was_at_work = _kill(scene, store, strays, (2 * pick) % 1)
    _check_whole(store, strays)
    if scene.client.returncode is None:
        # It was so all the time.
        _check_kept(scene, store, mine, before)
        store.publish_run(run_id := store.new_run_id(), replace(mine, run_id=run_id))
    said = _prune(scene).said
    left = {*strays} & {address for address, folder in store.products() if folder.location.everything()}
    if left and "melmill repair" in said:
        # The record of a run is damaged by another fault, and prune refuses to guess.
        scene.strays |= {scene.store / node / key for node, key in left}
        return Struck(says="the store is damaged", met=False)
    if left:
        raise RuntimeError(f"{len(left)} products that no run needs are left after a prune: {said}")
    how = f"at {n_deleted} of {len(strays)} products" + ", the run's own kept by use alone" * by_use
    return Struck(says=how, met=was_at_work)


def _strays(store: Store, entry: NodeEntry) -> list[Address]:
    """Store copies of a product under other keys; return those, none where it has no records yet."""
    made = store.product(entry.folder, entry.key).location
    # Tasks go on, so records are listed before the files that they name.
    records = [name for name in made.tree() if name.startswith(RECORDS)]
    others = [name for name in made.tree() if not name.startswith(RECORDS)]
    # What another fault has damaged is no use.
    if not records or any(damage.key == entry.key for damage in verify(store)):
        return []
    try:
        files = {name: made.read(name) for name in (*others, *records)}
    except FileNotFoundError:
        return []
    addresses = [(entry.folder, f"{entry.key[:-2]}{i:02d}") for i in range(N_COPIES)]
    for address in addresses:
        store.product(*address).location.put_all(files)
    return addresses


def _kill(scene: Scene, store: Store, strays: Collection[Address], pick: float) -> tuple[int, bool]:
    """Start a prune and kill it a moment after its first removal."""
    pruning = _start(scene)
    deadline = time.monotonic() + PATIENCE_S
    while pruning.returncode is None and time.monotonic() < deadline and not _n_gone(store, strays):
        time.sleep(0.001)
    time.sleep(pick * LONGEST_S)
    was_at_work = pruning.returncode is None
    if was_at_work:
        pruning.signal(signal.SIGKILL)
    pruning.exit_code()
    return _n_gone(store, strays), was_at_work


def _start(scene: Scene) -> Process:
    workshop = scene.workshop
    log = workshop.folder / f"prune-{len(list(workshop.folder.glob('prune-*'))):04d}.log"
    command = [sys.executable, "-m", "melmill", "prune", scene.url, *_PRUNE]
    return Process(command, workshop.folder, log, {**os.environ, **workshop.environment})


def _prune(scene: Scene) -> Process:
    pruning = _start(scene)
    pruning.exit_code()
    return pruning


def _n_gone(store: Store, strays: Collection[Address]) -> int:
    keys = set((store.location / "speech").folders())
    return sum(key not in keys or not (store.location / node / key / RECORDS).sizes() for node, key in sorted(strays))


def _check_whole(store: Store, strays: Collection[Address]) -> None:
    keys = {key for _, key in strays}
    damages = [damage for damage in verify(store) if damage.key in keys]
    if damages:
        raise RuntimeError(f"a prune that was killed left damage: {damages}")


def _records(store: Store, manifest: Manifest) -> set[tuple[str, str, str]]:
    return {
        (entry.folder, entry.key, name)
        for entry in manifest.nodes.values()
        for name in store.product(entry.folder, entry.key).record_names()
    }


def _check_kept(scene: Scene, store: Store, mine: Manifest, before: set[tuple[str, str, str]]) -> None:
    # A worker that finds a damaged record makes it anew, which takes a moment.
    for pause_s in (0.0, 0.5, 5.0):
        time.sleep(pause_s)
        gone = before - _records(store, mine)
        if not gone or scene.client.returncode is not None:
            return
    raise RuntimeError(f"a prune deleted what the run in progress uses: {min(gone)}")
