"""What an executor is given: tasks by a frontier, work by a function, and someone to tell."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from melmill.cluster.process import limit_threads
from melmill.flows.errors import RunFailed
from melmill.flows.execution.probe import Flight, look_here
from melmill.flows.execution.window import Frontier, Task
from melmill.flows.tasks.receipt import Receipt
from melmill.flows.watching.events import Failed, Finished, Listener, Note, Place, Ready, Running, Submitted
from melmill.stages.errors import CompilerFailed, FileChanged
from melmill.stages.numeric.errors import DeviceMissing
from melmill.stages.task_context import Employer, working, working_for
from melmill.storage.errors import StoreFull, StoreUnwritable


class Job(Protocol):
    """A task with all that it needs, as it travels to a worker."""

    def run(self) -> Receipt:
        """Do the work and commit it."""
        ...


@runtime_checkable
class ResumableJob(Job, Protocol):
    """A job that goes on, when it is run again, where it last saved what it had."""

    def saved(self) -> str | None:
        """Return what changes whenever it has come further."""
        ...


# Job of a task: its attempt, counted from 1, and whether each utterance gets a process of its own.
MakeJob = Callable[[Task, int, bool], Job]


# Errors after which no task can succeed.
FATAL = (StoreFull, StoreUnwritable, DeviceMissing, CompilerFailed, FileChanged)


def run_serial(frontier: Frontier, make_job: MakeJob, announce: Listener) -> None:
    """Run all tasks in this process, one after the other: the reference for what every executor does.

    Raises
    ------
    RunFailed
        The store can't be written any more.
    """
    limit_threads(1)
    announce(Ready(look=_look))
    while not frontier.done:
        task = next((task for pool in frontier.pools if (task := frontier.take(pool))), None)
        if task is None:
            continue
        announce(Submitted(task=task, attempt=1))
        try:
            with working_for(Employer(lambda line: announce(Note(text=line)))), working(repr(task)):
                receipt = make_job(task, 1, False).run()
        except FATAL as error:
            raise RunFailed(str(error)) from error
        except Exception as error:
            n_blocked = frontier.fail(task)
            announce(Failed(task=task, attempt=1, error=error, n_blocked=n_blocked, place=Place(host=platform.node())))
        else:
            frontier.finish(task)
            announce(Finished(task=task, attempt=1, receipt=receipt))


def _look(tasks: Sequence[Task]) -> list[Running]:
    # There is one at most, which has run for as long as it was in flight.
    return look_here({repr(task): Flight(task=task, attempt=1, age_s=0.0) for task in tasks})
