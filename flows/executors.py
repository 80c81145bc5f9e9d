"""What an executor is given: tasks by a frontier, work by a function, and someone to tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from melmill.cluster.threads import limit_threads
from melmill.flows.errors import RunFailed
from melmill.flows.frontier import Frontier, Task
from melmill.flows.receipt import Receipt
from melmill.flows.word import Employer, working_for
from melmill.stages.errors import CompilerFailed, DeviceMissing, FileChanged
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


class Observer(Protocol):
    """Is told what happens to tasks."""

    def finished(self, task: Task, receipt: Receipt) -> None:
        """Hear that a task is done."""
        ...

    def failed(self, task: Task, error: BaseException) -> None:
        """Hear that a task was given up."""
        ...

    def note(self, text: str) -> None:
        """Hear something that a person should know."""
        ...


# Errors after which no task can succeed.
FATAL = (StoreFull, StoreUnwritable, DeviceMissing, CompilerFailed, FileChanged)


def run_serial(frontier: Frontier, make_job: MakeJob, observer: Observer) -> None:
    """Run all tasks in this process, one after the other: the reference for what every executor does.

    Raises
    ------
    RunFailed
        The store can't be written any more.
    """
    limit_threads(1)
    while not frontier.done:
        task = next((task for pool in frontier.pools if (task := frontier.take(pool))), None)
        if task is None:
            continue
        try:
            with working_for(Employer(observer.note)):
                receipt = make_job(task, 1, False).run()
        except FATAL as error:
            raise RunFailed(str(error)) from error
        except Exception as error:
            frontier.fail(task)
            observer.failed(task, error)
        else:
            frontier.finish(task)
            observer.finished(task, receipt)
