"""Run tasks in this process, one after the other: the reference for every executor."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from melmill.cluster.process import threads_limited
from melmill.flows.errors import RunFailed
from melmill.flows.execution.probe import InFlight, probe_process
from melmill.flows.execution.window import ShardWindow
from melmill.flows.tasks.job import Job
from melmill.flows.tasks.task import Task
from melmill.flows.watching.events import Failed, Finished, Listener, Note, Place, Ready, Submitted, TaskStatus
from melmill.stages.errors import CompilerFailed, FileChanged
from melmill.stages.numeric.errors import DeviceMissing
from melmill.stages.task_context import current_task
from melmill.storage.errors import StoreFull, StoreUnwritable

# Returns the job of a task, given its attempt, counted from 1, and whether utterances are processed
# in isolation.
MakeJob = Callable[[Task, int, bool], Job]

# Errors after which no task can succeed.
FATAL = (StoreFull, StoreUnwritable, DeviceMissing, CompilerFailed, FileChanged)


def run_serial(window: ShardWindow, make_job: MakeJob, announce: Listener) -> None:
    """Run all tasks in this process, with one thread for each numerical library meanwhile.

    Raises
    ------
    RunFailed
        No task can succeed any more, for example because the disk is full. Or tasks are left, and
        none of them may run.
    """
    with threads_limited(1):
        announce(Ready(probe=_probe))
        while not window.done:
            task = next((task for pool in window.pools if (task := window.take(pool))), None)
            if task is None:
                # Nothing runs that could free a task. All that was left may be blocked.
                break
            announce(Submitted(task=task, attempt=1))
            try:
                with current_task(repr(task), report=lambda line: announce(Note(text=line))):
                    receipt = make_job(task, 1, False).run()
            except FATAL as error:
                raise RunFailed(str(error)) from error
            except Exception as error:
                n_blocked = window.fail(task)
                announce(
                    Failed(task=task, attempt=1, error=error, n_blocked=n_blocked, place=Place(host=platform.node()))
                )
            else:
                window.finish(task)
                announce(Finished(task=task, attempt=1, receipt=receipt))
        window.check_done()


def _probe(tasks: Sequence[Task]) -> list[TaskStatus]:
    # At most one task runs. It began when it was submitted, so its age is not needed.
    return probe_process({repr(task): InFlight(task=task, attempt=1, age_s=0.0) for task in tasks})
