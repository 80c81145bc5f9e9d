"""Run tasks in this process, one after the other: the reference for every executor."""

from __future__ import annotations

import platform
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial

from melmill.cluster.process import threads_limited
from melmill.flows.execution.errors import MachineFailed, RunFailed
from melmill.flows.execution.machines import Again, Machines
from melmill.flows.execution.probe import InFlight, probe_process
from melmill.flows.execution.window import ShardWindow
from melmill.flows.tasks.job import Held, Job
from melmill.flows.tasks.judging import FATAL, run_judged
from melmill.flows.tasks.task import Task
from melmill.flows.watching.events import (
    Failed,
    Finished,
    Listener,
    Note,
    Place,
    Ready,
    Retried,
    Submitted,
    TaskStatus,
)
from melmill.stages.task_context import current_task

# Returns the job of a task, given its attempt, counted from 1, and whether utterances are processed
# in isolation.
MakeJob = Callable[[Task, int, bool], Job]


def run_serial(window: ShardWindow, make_job: MakeJob, announce: Listener) -> None:
    """Run all tasks in this process, with one thread for each numerical library meanwhile.

    A task takes from memory what the one before made of the same shard. A task that this machine
    fails at is tried once more. A child process then takes its utterances.

    Raises
    ------
    RunFailed
        No task can succeed any more, for example because the disk is full. Or this machine fails.
        Or tasks are left, and none of them may run.
    """
    machines, place = Machines(announce), Place(host=platform.node())
    again: deque[Again] = deque()
    attempts: Counter[Task] = Counter()
    handed = _Handed()
    with threads_limited(1):
        announce(Ready(probe=_probe))
        while again or not window.done:
            how = again.popleft() if again else _next(window)
            if how is None:
                # Nothing runs that could free a task. All that was left may be blocked.
                again.extend(machines.at_end())
                if not again:
                    break
                continue
            task = how.task
            attempts[task] += 1
            attempt = attempts[task]
            announce(Submitted(task=task, attempt=attempt))
            try:
                with current_task(repr(task), report=lambda line: announce(Note(text=line))):
                    job = make_job(task, attempt, how.isolated).suspecting(how.suspects, trusted=how.trusted)
                    receipt = run_judged(partial(job.run_holding, handed.to(task, job)))
            except FATAL as error:
                raise RunFailed(str(error)) from error
            except MachineFailed as error:
                retry = machines.failed(task, error, place, ())
                if retry is None and task.is_whole:
                    n_blocked = window.fail(task)
                    announce(Failed(task=task, attempt=attempt, error=error, n_blocked=n_blocked, place=place))
                    continue
                announce(Retried(task=task, attempt=attempt, reason=str(error), place=place))
                if retry is not None:
                    again.append(retry)
            except Exception as error:
                n_blocked = window.fail(task)
                announce(Failed(task=task, attempt=attempt, error=error, n_blocked=n_blocked, place=place))
            else:
                window.finish(task)
                announce(Finished(task=task, attempt=attempt, receipt=receipt))
                again.extend(machines.succeeded(task, place))
        window.check_done()


class _Handed:
    """The arrays that a task hands to the next one, if that is of the same shard."""

    def __init__(self) -> None:
        self._held = Held()
        self._shard = ("", 0)

    def to(self, task: Task, job: Job) -> Held:
        """Return what a task can take, and where it puts what it makes."""
        if self._shard != (task.corpus, task.shard):
            self._held, self._shard = Held(), (task.corpus, task.shard)
        self._held.keep(job.reads | job.makes)
        return self._held


def _next(window: ShardWindow) -> Again | None:
    task = next((task for pool in window.pools if (task := window.take(pool))), None)
    return None if task is None else Again(task=task)


def _probe(tasks: Sequence[Task]) -> list[TaskStatus]:
    # At most one task runs. It began when it was submitted, so its age is not needed.
    return probe_process({repr(task): InFlight(task=task, attempt=1, age_s=0.0) for task in tasks})
