"""Rounds of faults: disturb, go on until everything is done, and compare with a quiet run."""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from benchmarks.faults.cluster import Cluster
from benchmarks.faults.judging import Verdict, judge, mend
from benchmarks.faults.scene import Scene
from benchmarks.faults.schedule import Fault, Kind
from benchmarks.faults.strikes import Strike, strike
from benchmarks.faults.workshop import Workshop
from melmill.flows.execution.errors import RunFailed
from melmill.flows.pipeline.errors import PipelineError
from melmill.storage.errors import StoreError

# Times that a user runs the pipeline again before giving up.
MAX_RUNS = 20
PATIENCE_S = 900.0
# Strikes of a kind in a round that may miss before it is left at that.
MAX_MISSES = 3
# Runs in a row without a strike: then a fault has no target, which is wrong.
MAX_IDLE = 4
_TICK_S = 0.05
_DISK = (Kind.DISK_FULL, Kind.READ_ONLY)
# Characters of what a run said last.
_TOLD = 2000


@dataclass
class Round:
    """The outcome of a round.

    Parameters
    ----------
    strikes : list of Strike
        In the order in which they struck.
    verdicts : list of Verdict
        One for each store. A round whose work ends before its faults do begins another store.
    duration_s : float
    """

    strikes: list[Strike] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    duration_s: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """All verdicts, added up."""
        return sum(self.verdicts, Verdict())


class Campaign:
    """Plays the rounds of a workshop.

    Parameters
    ----------
    workshop : Workshop
    """

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.cluster = self._new_cluster()
        self.injected: Counter[Kind] = Counter()
        self.missed: Counter[Kind] = Counter()

    def _new_cluster(self) -> Cluster:
        return Cluster(self.workshop.folder, self.workshop.library, self.workshop.environment)

    def play(self, faults: Sequence[Fault]) -> Round:
        """Play a round."""
        started = time.monotonic()
        played = Round()
        for on_objects in (False, True):
            waiting = deque(fault for fault in faults if fault.kind.on_objects is on_objects)
            n_idle = 0
            while waiting:
                n_struck = len(played.strikes)
                played.verdicts.append(self._scene(waiting, played))
                n_idle = n_idle + 1 if len(played.strikes) == n_struck else 0
                if n_idle == MAX_IDLE:
                    complaint = f"{waiting[0].kind} found no target in {n_idle} runs"
                    played.verdicts.append(Verdict(complaints=(complaint,)))
                    break
        played.duration_s = time.monotonic() - started
        return played

    def _scene(self, waiting: deque[Fault], played: Round) -> Verdict:
        """Run the pipeline once from nothing, under as many of the faults as find a target."""
        store = self.workshop.disk.folder / "store"
        self.cluster.wait()
        scene = Scene(
            self.workshop,
            self.cluster,
            store,
            hangs=any(fault.kind is Kind.POISON_HANGS for fault in waiting),
            on_objects=waiting[0].kind.on_objects,
        )
        first = len(played.strikes)
        trouble = ""
        try:
            _Director(self, scene, waiting, played).direct()
        except (RuntimeError, TimeoutError) as error:
            trouble = str(error)
            waiting.clear()
        finally:
            scene.client.end()
            self.cluster.end()
        # Starts while the store is judged.
        self.cluster = self._new_cluster()
        verdict = self._judged(scene, trouble)
        scene.story.end()
        for struck in played.strikes[first:]:
            struck.missed = not struck.met()
            self.injected[struck.fault.kind] += not struck.missed
            self.missed[struck.fault.kind] += struck.missed
        if not trouble:
            waiting.extendleft(tried_again(played.strikes, first))
        if verdict.good:
            shutil.rmtree(store)
        else:
            shutil.move(store, self.workshop.folder / f"bad-{time.monotonic_ns()}")
        return verdict

    def _judged(self, scene: Scene, trouble: str) -> Verdict:
        try:
            return judge(scene, trouble)
        except (PipelineError, RunFailed, StoreError) as error:
            return Verdict(complaints=(trouble, f"what is left can't be used: {error}"))

    def renewed(self) -> Cluster:
        """Return a cluster that is alive."""
        if not self.cluster.alive:
            self.cluster.end()
            self.cluster = self._new_cluster()
        self.cluster.wait()
        return self.cluster

    def close(self) -> None:
        """End all processes."""
        self.cluster.end()
        self.workshop.objects.end()


def tried_again(strikes: Sequence[Strike], first: int) -> list[Fault]:
    """Return the faults that missed in the last scene, to strike early in the next.

    A run may have passed the target of a strike: no task begins any more at the worker that was
    replaced. A kind that has missed `MAX_MISSES` times in a round is left at that.

    Parameters
    ----------
    strikes : sequence of Strike
        Of a round.
    first : int
        Where those of its last scene begin.
    """
    n_missed = Counter(struck.fault.kind for struck in strikes if struck.missed)
    return [
        replace(struck.fault, after=1)
        for struck in strikes[first:]
        if struck.missed and n_missed[struck.fault.kind] < MAX_MISSES
    ]


class _Director:
    """Applies the faults of a scene when they are due, and restarts the client when it has ended."""

    def __init__(self, campaign: Campaign, scene: Scene, waiting: deque[Fault], played: Round) -> None:
        self.campaign = campaign
        self.scene = scene
        self.waiting = waiting
        self.played = played
        self.lasting: list[Strike] = []
        self.struck_at = 0
        self.n_runs = 1
        self.deadline = time.monotonic() + PATIENCE_S

    def direct(self) -> None:
        """Go on until the pipeline is done and every fault has ended."""
        try:
            self._go_on()
        finally:
            for struck in self.lasting:
                struck.end()

    def _go_on(self) -> None:
        while True:
            self._end_strikes()
            n_records = self.scene.watch()
            code = self.scene.client.returncode
            if code is None:
                self._strike(n_records)
            elif not self.lasting:
                if code == 0 and not self.scene.story.go_on():
                    return
                self._run_again()
            if time.monotonic() > self.deadline:
                raise TimeoutError(f"the run came to no end in {PATIENCE_S:g} s: {self.scene.client.said[-_TOLD:]}")
            time.sleep(_TICK_S)

    def _end_strikes(self) -> None:
        for struck in [struck for struck in self.lasting if struck.over()]:
            struck.end()
            self.lasting.remove(struck)
        self.scene.held = {struck.worker for struck in self.lasting}

    def _strike(self, n_records: int) -> None:
        if not self.waiting or n_records < self.struck_at + self.waiting[0].after:
            return
        # Nothing else can be done to files meanwhile.
        if any(struck.fault.kind in _DISK for struck in self.lasting):
            return
        struck = strike(self.scene, self.waiting[0])
        if struck is not None:
            self.waiting.popleft()
            self.struck_at = n_records
            self.played.strikes.append(struck)
            self.lasting.append(struck)
            self.scene.held.add(struck.worker)

    def _run_again(self) -> None:
        """Do what a user does: read the message, repair if it says so, run again."""
        said = self.scene.client.said
        if "Traceback" in said:
            raise RuntimeError(f"a run ended with a traceback: {said}")
        if self.n_runs == MAX_RUNS:
            raise RuntimeError(f"not done after {MAX_RUNS} runs: {said}")
        if "melmill repair" in said:
            mend(self.scene)
        self.n_runs += 1
        self.scene.go_on(self.campaign.renewed(), follow="Add --follow" in said)
