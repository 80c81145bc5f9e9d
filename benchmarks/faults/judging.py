"""Judge the store that is left when the faults are over."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from benchmarks.faults.comparing import differing_bytes, differing_contents, lost_utterances
from benchmarks.faults.scene import Scene, digest
from melmill.flows.runs.repair import drop_incomplete
from melmill.storage.files.location import Location
from melmill.storage.store import Store
from melmill.storage.verify import repair, verify


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of a scene.

    Parameters
    ----------
    redone : int
        Attempts beyond the first of each task, and tasks whose records had to be made again.
    lost : int
        Utterances that some product lacks.
    n_bytes : int
        Bytes that differ from the undisturbed store.
    complaints : tuple of str
        Everything that is wrong, the above included.
    """

    redone: int = 0
    lost: int = 0
    n_bytes: int = 0
    complaints: tuple[str, ...] = ()

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            redone=self.redone + other.redone,
            lost=self.lost + other.lost,
            n_bytes=self.n_bytes + other.n_bytes,
            complaints=self.complaints + other.complaints,
        )

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.n_bytes or self.complaints)


def mend(scene: Scene) -> None:
    """Repair a store."""
    Store(Location(scene.url)).rewrite_marker()
    store = Store.open(scene.url)
    repair(store, verify(store))


def judge(scene: Scene, trouble: str = "") -> Verdict:
    """Check the store, repair it, run what is missing, and compare.

    `trouble` is what is known to be wrong already.
    """
    found = [trouble] if trouble else []
    scene.watch()
    found += _unnoticed(scene)
    mend(scene)
    found += _innocent(scene)
    _cure(scene)
    workshop = scene.workshop
    tasks = workshop.resume(scene.url).tasks
    scene.watch()
    # A corpus that was followed has more shards.
    if tasks.failed or (tasks.total != workshop.n_tasks and not scene.story.told):
        found.append(f"the resumed run had {tasks}, expected {workshop.n_tasks} tasks and none failed")
    left = workshop.plan(scene.url).n_pending
    if left:
        found.append(f"{left} tasks are still to do when all is done")
    if dict(Store.open(scene.url).nodes) != dict(workshop.nodes):
        found.append("the names of the last run do not mean its products")
    found += [f"damaged after all: {damage}" for damage in verify(Store.open(scene.url))]
    scene.watch()
    if scene.story.told:
        differing = differing_contents(scene.url, workshop.undisturbed)
    else:
        differing = differing_bytes(scene.store, workshop.undisturbed, workshop.expected)
    found += [f"{name} differs in {n} bytes" for name, n in differing.items()]
    lost = lost_utterances(scene.url, workshop.utterances)
    found += [f"{name} is lost" for name in sorted(lost)]
    return Verdict(redone=scene.n_redone, lost=len(lost), n_bytes=sum(differing.values()), complaints=tuple(found))


def _unnoticed(scene: Scene) -> list[str]:
    """Name the damaged files that were not made anew and that `verify` does not find."""
    # Without its mark a store is not even opened: that is noticed.
    Store(Location(scene.url)).rewrite_marker()
    named = tuple(f"{d.node}/{d.key}/{d.file}" for d in verify(Store.open(scene.url)))
    damaged = [path for path, checksum in scene.damaged.items() if digest(path) == checksum]
    names = [str(path.relative_to(scene.store)) for path in damaged]
    return [f"a flipped bit in {name} was not found" for name in names if not name.startswith(named)]


def _innocent(scene: Scene) -> list[str]:
    """Name the quarantined utterances that no fault made poisonous."""
    quarantined = set(Store.open(scene.url).quarantine()["utterance_id"])
    scene.caught = quarantined & scene.moods.keys()
    return [f"{name} is in quarantine, innocent" for name in sorted(quarantined - scene.moods.keys())]


def _cure(scene: Scene) -> None:
    """End all poison, retry the quarantine, and remove the products of other pipelines."""
    scene.workshop.touchy.put({}, pause_s=0.0)
    if scene.moods:
        drop_incomplete(Store.open(scene.url))
    for stray in scene.strays:
        shutil.rmtree(stray, ignore_errors=True)
