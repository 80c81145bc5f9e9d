"""Run tasks on a Dask cluster: small windows, a new key an attempt, our own count of attempts.

- How often a task is tried, and what is done after each death of a worker.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from melmill.cluster.connect import connected
from melmill.cluster.contract import ClusterSpec, RunningCluster
from melmill.cluster.process import limit_threads
from melmill.cluster.scheduler import links, missing_bokeh, one_span
from melmill.flows.errors import RunFailed
from melmill.flows.execution.probe import Flight, look_there
from melmill.flows.execution.serial import FATAL, Job, MakeJob, ResumableJob
from melmill.flows.execution.time_limit import ended_after
from melmill.flows.execution.window import Frontier, Task
from melmill.flows.tasks.receipt import Receipt
from melmill.flows.watching.events import (
    DIED,
    Failed,
    Finished,
    Listener,
    Note,
    Place,
    Ready,
    Retried,
    Running,
    Submitted,
    WorkerDied,
)
from melmill.stages.task_context import Employer, working, working_for

# Attempts of a task whose input or output failed.
MAX_ATTEMPTS = 3

# Dead workers after which a task may be what kills them: a child process then takes its utterances one by one.
ISOLATE_AFTER = 2

# Dead workers after which a task is given up. One that is isolated dies only by others on its worker, or from outside.
MAX_DEATHS = 8

# Dead workers in a row after which a task is given up that goes on from what it saved, if it saved nothing in between.
MAX_DEATHS_WITHOUT_PROGRESS = 3


@dataclass(frozen=True)
class Attempt:
    """A task as it was handed to the cluster, with how many workers died of it so far."""

    task: Task
    number: int = 1
    deaths: int = 0
    job: Job | None = None
    saved: str | None = None
    submitted: float = field(default_factory=time.monotonic)

    def of(self, job: Job) -> Attempt:
        """Return the attempt with its job, and how far that has come already."""
        return replace(self, job=job, saved=job.saved() if isinstance(job, ResumableJob) else None)

    def died(self) -> Attempt:
        """Return the attempt with another death: its first, where it came further since it began."""
        progressed = isinstance(self.job, ResumableJob) and self.job.saved() != self.saved
        return replace(self, deaths=1 if progressed else self.deaths + 1)

    def hung(self) -> Attempt:
        """Return the attempt with as many deaths as a task has that may be what kills."""
        return replace(self, deaths=max(self.deaths, ISOLATE_AFTER))

    @property
    def may_die(self) -> bool:
        """Whether it has another attempt after its worker died."""
        return self.deaths < (MAX_DEATHS_WITHOUT_PROGRESS if isinstance(self.job, ResumableJob) else MAX_DEATHS)

    def again(self) -> Attempt:
        """Return the next attempt."""
        return replace(self, number=self.number + 1, submitted=time.monotonic())


if TYPE_CHECKING:
    from distributed import Client, Future

# Tasks in flight per compute slot: one runs, one waits at the worker so that it never idles.
IN_FLIGHT = 2


def run_dask(
    frontier: Frontier, make_job: MakeJob, announce: Listener, spec: ClusterSpec, time_limit_s: float | None = None
) -> None:
    """Run all tasks on the cluster of `spec`.

    A worker whose task takes longer than `time_limit_s` ends itself. The first interrupt stops handing out tasks and
    waits for those in flight; a second one leaves at once.

    Raises
    ------
    RunFailed
        The store can't be written any more, or the scheduler is lost.
    KeyboardInterrupt
        After an interrupt, when everything in flight is done.
    """
    with connected(spec) as cluster:
        stream = _Stream(cluster, frontier, make_job, announce, time_limit_s)
        publish = _equip(cluster.client, announce)
        missing = missing_bokeh(spec)
        if missing:
            announce(Note(text=missing))
        dashboard, metrics = links(cluster.client, spec)
        announce(Ready(look=stream.look, dashboard=dashboard, metrics=metrics, publish=publish))
        with one_span():
            stream.run()


def _equip(client: Client, announce: Listener) -> Callable[[Mapping[str, Any]], None] | None:
    """Give the scheduler what it needs of melmill; return what publishes metrics, None where it can't import it."""
    from melmill.cluster.scheduler import bound_memory, publisher

    try:
        bound_memory(client)
        return publisher(client)
    except ImportError as error:
        lost = "its metrics will lack this run, and its memory grows by some 3 KiB a task"
        announce(Note(text=f"the scheduler can't import melmill ({error}): {lost}"))
    return None


def execute(job: Job, topic: str, time_limit_s: float | None) -> Receipt:
    """Run a job on a worker, which ends where that takes longer; what it says goes to whoever subscribed to `topic`.

    An error that it raises says in its `place` where it came up.
    """
    from distributed.worker import get_worker, thread_state

    limit_threads(1)
    worker, key = get_worker(), thread_state.key

    def wanted() -> bool:
        # Released when its client stops, disconnects or is lost; a thread can't be ended from outside.
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    try:
        employer = Employer(lambda line: worker.log_event(topic, line), wanted)
        with working_for(employer), working(key), ended_after(time_limit_s):
            return replace(job.run(), worker=str(worker.name))
    except Exception as error:
        error.__dict__["place"] = Place(worker=str(worker.name), host=platform.node())
        raise


class _Stream:
    """Keeps a bounded number of tasks in flight per pool."""

    def __init__(
        self,
        cluster: RunningCluster,
        frontier: Frontier,
        make_job: MakeJob,
        announce: Listener,
        time_limit_s: float | None,
    ) -> None:
        from distributed import as_completed

        self.cluster = cluster
        self.client = client = cluster.client
        self.frontier = frontier
        self.make_job = make_job
        self.announce = announce
        self.time_limit_s = time_limit_s
        pools = cluster.spec.pools
        self.resources = {name: cluster.spec.task_resources(name) for name in pools}
        self.attempts: dict[Any, tuple[Attempt, Future]] = {}
        self.in_flight = dict.fromkeys(pools, 0)
        self.completed = as_completed(loop=client.loop)
        self.topic = f"melmill-{client.id}"
        self.answers = True

    def run(self) -> None:
        """Submit and settle until the frontier is done."""
        self.client.subscribe_topic(self.topic, lambda event: self.announce(Note(text=event[1])))
        try:
            self._fill()
            while self.attempts:
                self._settle(next(self.completed))
                self._fill()
        except KeyboardInterrupt:
            self._drain()
            raise

    def _drain(self) -> None:
        """Wait for what is in flight, and start nothing more."""
        from distributed import as_completed

        # The interrupt may have come just when `completed` handed out a future: count anew.
        in_flight = {key: pair for key, pair in self.attempts.items() if not isinstance(pair[0].job, ResumableJob)}
        for attempt, future in self.attempts.values():
            if future.key not in in_flight:
                self.announce(Note(text=f"stopping: {attempt.task.node} will go on from what it saved last"))
                future.release()
        text = f"stopping: waiting for {len(in_flight)} tasks in flight (interrupt again to leave at once)"
        self.announce(Note(text=text))
        for future in as_completed([future for _, future in in_flight.values()], loop=self.client.loop):
            answer = _answer(future)
            if isinstance(answer, Receipt):
                attempt, _ = in_flight[future.key]
                self.announce(Finished(task=attempt.task, attempt=attempt.number, receipt=answer))

    def _fill(self) -> None:
        for pool in self.frontier.pools:
            # A pool whose workers are still to come is asked for a task's worth: some clusters start them for that.
            limit = IN_FLIGHT * max(1, self.cluster.slots(pool))
            while self.in_flight[pool] < limit:
                task = self.frontier.take(pool)
                if task is None:
                    break
                self._submit(Attempt(task))
        self.cluster.adapt({pool: self.frontier.n_left(pool) for pool in self.frontier.pools})
        for text in self.cluster.take_notes():
            self.announce(Note(text=text))

    def _submit(self, attempt: Attempt) -> None:
        task = attempt.task
        isolated = attempt.deaths >= ISOLATE_AFTER
        attempt = attempt.of(self.make_job(task, attempt.number, isolated))
        pool = self.frontier.nodes[task.node].pool
        # On a shared cluster a task of the same key is the same task, even if it writes to another store.
        future = self.client.submit(
            execute,
            attempt.job,
            self.topic,
            # Isolated utterances have their limit each, and what saves how far it is may take days.
            None if isolated or isinstance(attempt.job, ResumableJob) else self.time_limit_s,
            key=f"{task.node}-{task.corpus}-{task.shard}-{attempt.number}-{self.client.id}",
            resources=self.resources[pool],
            pure=False,
        )
        self.attempts[future.key] = attempt, future
        self.in_flight[pool] += 1
        self.completed.add(future)
        self.announce(Submitted(task=task, attempt=attempt.number))

    def _settle(self, future: Future) -> None:
        # In this order: an interrupt while the answer is fetched must leave the task among those to wait for.
        answer = _answer(future)
        attempt, _ = self.attempts.pop(future.key)
        self.in_flight[self.frontier.nodes[attempt.task.node].pool] -= 1
        if isinstance(answer, Receipt):
            self.frontier.finish(attempt.task)
            self.announce(Finished(task=attempt.task, attempt=attempt.number, receipt=answer))
        else:
            self._settle_error(attempt, answer)

    def _settle_error(self, attempt: Attempt, error: Exception) -> None:
        from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

        if isinstance(error, FATAL):
            raise RunFailed(str(error)) from error
        if isinstance(error, NoValidWorkerError | NoWorkerError):
            why = "; ".join([*self.cluster.take_notes(), "no worker is left and none can be started"])
            raise RunFailed(f"{why}; run again to go on from what is stored")
        task, number, place = attempt.task, attempt.number, _last_place(error)
        if isinstance(error, KilledWorker):
            hung = self._is_late(attempt)
            reason = f"no answer within {self.time_limit_s:g} s" if hung else DIED
            attempt = attempt.died()
            again = attempt.may_die
            attempt = attempt.hung() if hung else attempt
            self.announce(
                WorkerDied(task=task, attempt=number, deaths=attempt.deaths, again=again, reason=reason, place=place)
            )
        else:
            again = isinstance(error, OSError) and number < MAX_ATTEMPTS
            if again:
                self.announce(Retried(task=task, attempt=number, reason=str(error), place=place))
        if again:
            self._submit(attempt.again())
            return
        n_blocked = self.frontier.fail(task)
        self.announce(Failed(task=task, attempt=number, error=error, n_blocked=n_blocked, place=place))

    def _is_late(self, attempt: Attempt) -> bool:
        if self.time_limit_s is None or isinstance(attempt.job, ResumableJob):
            return False
        return time.monotonic() - attempt.submitted > self.time_limit_s

    def look(self, tasks: Sequence[Task]) -> list[Running]:
        """Return what those of the tasks are at that run now; called by another thread."""
        now, wanted = time.monotonic(), set(tasks)
        flights = {
            key: Flight(task=attempt.task, attempt=attempt.number, age_s=now - attempt.submitted)
            for key, (attempt, _) in list(self.attempts.items())
            if attempt.task in wanted
        }
        try:
            found = look_there(self.client, flights)
        except TimeoutError:
            self._hear(answers=False)
            return []
        self._hear(answers=True)
        return found

    def _hear(self, *, answers: bool) -> None:
        """Tell when the scheduler falls silent, and when it speaks again."""
        if answers != self.answers:
            self.answers = answers
            says = "answers again" if answers else "does not answer; the run goes on when it does"
            self.announce(Note(text=f"the Dask scheduler at {self.client.scheduler.address} {says}"))


def _last_place(error: Exception) -> Place:
    """Return where an attempt was when it failed, or its worker died."""
    worker = getattr(error, "last_worker", None)
    if worker is not None:
        return Place(worker=str(worker.name), host=worker.host)
    place = getattr(error, "place", None)
    return place if isinstance(place, Place) else Place()


def _answer(future: Future) -> Receipt | Exception:
    """Return what a task answered, or why it did not; raise RunFailed where nobody can tell any more."""
    from distributed import CancelledError
    from distributed.comm import CommClosedError

    try:
        receipt: Receipt = future.result()
    except (CancelledError, CommClosedError) as error:
        raise RunFailed("the Dask scheduler is lost; run again to go on from what is stored") from error
    except Exception as error:
        return error
    return receipt
