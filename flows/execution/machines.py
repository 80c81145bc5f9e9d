"""Where to try a task again that a machine failed at, and which workers to take out of service."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from melmill.flows.execution.errors import MachineFailed, RunFailed
from melmill.flows.tasks.task import Task
from melmill.flows.watching.events import Listener, Note, Place
from melmill.stages.blame import Blame

# Failures of one task after which it is given up: on several workers, or on the only one. The last
# attempt takes the utterances one by one, in a child process.
MAX_FAILURES = 3
MAX_FAILURES_ALONE = 2

# Tasks in a row that a worker fails, of two shards at least, before it is taken out of service.
MAX_IN_A_ROW = 3

# Tasks of a node that are put aside, and none works, after which the run ends.
MAX_ASIDE = 3


@dataclass(frozen=True, kw_only=True)
class Again:
    """How a task is tried.

    Parameters
    ----------
    task : Task
    on : frozenset of str
        Addresses of the workers that may take it. Empty for any.
    isolated : bool
        Whether a child process takes the utterances one by one.
    suspects : frozenset of str
        Utterances that failed elsewhere, while others worked.
    trusted : bool
        Whether those workers have done the same for other shards since.
    """

    task: Task
    on: frozenset[str] = frozenset()
    isolated: bool = False
    suspects: frozenset[str] = frozenset()
    trusted: bool = False


@dataclass(frozen=True)
class _Failure:
    task: Task
    place: Place
    error: MachineFailed

    @property
    def is_of_one(self) -> bool:
        """Whether the task had one utterance, which may be the cause by itself."""
        return self.error.n_utterances == 1 and self.error.verdict.blame < Blame.MACHINE


@dataclass
class _Streak:
    """The tasks that a worker failed since it last did one of the same node."""

    failures: list[_Failure] = field(default_factory=list)

    @property
    def is_long(self) -> bool:
        tasks = {one.task for one in self.failures}
        return len(tasks) >= MAX_IN_A_ROW and len({task.shard for task in tasks}) > 1


class Machines:
    """Keep what each worker failed at, and decide what comes next.

    A task that a machine fails at is tried on other workers. If it fails there too, and

    - no utterance can cause that: the run ends;
    - an utterance may: the task is put aside. If it has one utterance, and one of those workers
      then does another shard of the node, the utterance is to blame. Otherwise the run ends when
      all else is done.

    A worker that fails one task after the other, which others do, is taken out of service. What
    failed there counts no more.

    Parameters
    ----------
    announce : callable

    Attributes
    ----------
    out_of_service : dict of str to Place
        Workers out of service, by address.
    """

    def __init__(self, announce: Listener) -> None:
        self.announce = announce
        self.out_of_service: dict[str, Place] = {}
        self._failures: dict[Task, list[_Failure]] = {}
        self._streaks: dict[str, _Streak] = {}
        self._aside: dict[Task, list[_Failure]] = {}
        # Addresses of the workers that did a task of a node.
        self._able: dict[str, set[str]] = {}

    def succeeded(self, task: Task, place: Place) -> list[Again]:
        """Note that a worker did a task; return the tasks put aside that are to be tried now."""
        self._able.setdefault(task.node, set()).add(place.address)
        self._failures.pop(task, None)
        streak = self._streaks.get(place.address)
        if streak is not None:
            streak.failures = [one for one in streak.failures if one.task.node != task.node]
        ready = [
            other
            for other, failures in self._aside.items()
            if other.node == task.node
            and failures[-1].is_of_one
            and place.address in {one.place.address for one in failures}
        ]
        return [self._trusting(other, place.address) for other in ready]

    def failed(self, task: Task, error: MachineFailed, place: Place, workers: Collection[str]) -> Again | None:
        """Return how to try a task again; None if it is not tried again, at least not now.

        Parameters
        ----------
        task : Task
        error : MachineFailed
        place : Place
            Where it failed.
        workers : collection of str
            Addresses of the workers that can do it. Empty without Dask.

        Raises
        ------
        RunFailed
            The machines are to blame.
        """
        failure = _Failure(task, place, error)
        others = set(workers) - self.out_of_service.keys() - {place.address}
        self._failures.setdefault(task, [])
        if place.address not in self.out_of_service:
            self._failures[task].append(failure)
            # A shard of one utterance says little about its worker.
            if not (failure.is_of_one and error.verdict.blame is Blame.LIKELY_UTTERANCE):
                self._streaks.setdefault(place.address, _Streak()).failures.append(failure)
                self._check_worker(place, others)
        failures = self._failures[task]
        # A message without a remedy says all, and another process on the machine changes nothing.
        untried = others - {one.place.address for one in failures}
        if not error.verdict.remedy and not untried:
            raise RunFailed(f"{error}{_tried(failures)}")
        limit = MAX_FAILURES if others else MAX_FAILURES_ALONE
        if len(failures) < limit:
            suspects = {name for one in failures if not one.error.is_whole for name in one.error.utterances}
            on = untried or others
            return Again(task=task, on=frozenset(on), isolated=len(failures) == limit - 1, suspects=frozenset(suspects))
        if not task.is_whole:
            self._put_aside(task)
        return None

    def at_end(self) -> list[Again]:
        """Return the tasks put aside that are to be tried when nothing else is left.

        Raises
        ------
        RunFailed
            The machines are to blame for one of them.
        """
        for task, failures in self._aside.items():
            alone = sum(other.node == task.node for other in self._aside) == 1
            error = failures[-1].error
            if not (alone and failures[-1].is_of_one and error.verdict.blame is Blame.LIKELY_UTTERANCE):
                raise RunFailed(_message(failures))
        return [self._trusting(task) for task in list(self._aside)]

    def _trusting(self, task: Task, address: str = "") -> Again:
        failures = self._aside.pop(task)
        isolated = failures[-1].error.verdict.blame is Blame.LIKELY_MACHINE
        return Again(task=task, on=frozenset(filter(None, [address])), isolated=isolated, trusted=True)

    def _check_worker(self, place: Place, others: Collection[str]) -> None:
        """Take a worker out of service that fails what others do; raise RunFailed if it is the last."""
        failures = self._streaks[place.address].failures
        if not self._streaks[place.address].is_long:
            return
        if not others:
            raise RunFailed(_message(failures, last=True))
        if not any(self._able.get(one.task.node, set()) & set(others) for one in failures):
            return
        self.out_of_service[place.address] = place
        reason = failures[-1].error.reason
        n_tasks = len({one.task for one in failures})
        self.announce(Note(text=f"worker {place} is taken out of service: {n_tasks} tasks in a row failed: {reason}"))
        for task, of_task in self._failures.items():
            self._failures[task] = [one for one in of_task if one.place.address != place.address]

    def _put_aside(self, task: Task) -> None:
        failures = self._failures.pop(task)
        if failures[-1].error.verdict.blame is Blame.MACHINE:
            raise RunFailed(_message(failures))
        self._aside[task] = failures
        able = self._able.get(task.node, set())
        same = [of_task for other, of_task in self._aside.items() if other.node == task.node]
        if len(same) >= MAX_ASIDE and not able:
            raise RunFailed(_message(failures))


def _tried(failures: Sequence[_Failure]) -> str:
    places = [str(one.place) for one in failures if one.place.worker]
    return f" (tried on {', '.join(dict.fromkeys(places))})" if places else ""


def _message(failures: Sequence[_Failure], *, last: bool = False) -> str:
    """Return one line: which task failed where, of what, and how to go on."""
    last_one = failures[-1]
    error = last_one.error
    places = ", ".join(dict.fromkeys(str(one.place) for one in failures))
    if last:
        n_tasks = len({one.task for one in failures})
        where = f"{n_tasks} tasks in a row failed on {places}, and no other worker is left; the last: {last_one.task}"
    else:
        where = f"{last_one.task}: failed on {places}"
    if error.verdict.blame is Blame.LIKELY_UTTERANCE and error.n_utterances > 1:
        who = f"All its utterances failed alike ({len(error.utterances)}), so none is to blame"
    else:
        who = "No utterance is to blame"
    remedy = f": {error.verdict.remedy}; then run again" if error.verdict.remedy else ". Run again when that is mended"
    return f"{where}: {error.reason.rstrip('.')}. {who}{remedy}: what is stored is kept"
