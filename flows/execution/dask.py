"""Run tasks on a Dask cluster: a few per slot at a time, each attempt under a key of its own."""

from __future__ import annotations

import pickle
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from melmill.cluster.connect import connected
from melmill.cluster.contract import ClusterSpec, RunningCluster
from melmill.cluster.process import limit_threads
from melmill.cluster.scheduler import bound_memory, links, missing_bokeh, one_span, publisher
from melmill.flows.errors import MachineFailed, RunFailed
from melmill.flows.execution.machines import Again, Machines
from melmill.flows.execution.probe import InFlight, probe_workers
from melmill.flows.execution.serial import MakeJob
from melmill.flows.execution.time_limit import time_limit
from melmill.flows.execution.window import ShardWindow
from melmill.flows.tasks.job import Job
from melmill.flows.tasks.judging import FATAL, machine_failure, run_judged
from melmill.flows.tasks.task import Receipt, Task
from melmill.flows.watching.events import (
    DIED,
    Failed,
    Finished,
    Listener,
    Note,
    Place,
    Ready,
    Retried,
    Submitted,
    TaskStatus,
    WorkerDied,
)
from melmill.stages.task_context import current_task

if TYPE_CHECKING:
    from distributed import Future

# Tasks in flight per compute slot: one runs, one waits at the worker so that it is never idle.
IN_FLIGHT = 2

# Attempts of a task that fails to read or write.
MAX_ATTEMPTS = 3

# Dead workers after which a task may be the cause. A child process then takes its utterances one by
# one.
ISOLATE_AFTER = 2

# Dead workers after which a task is given up. An isolated task dies only of other tasks on its
# worker, or from outside.
MAX_DEATHS = 8

# Dead workers in a row, without progress in between, after which a task that resumes is given up.
MAX_DEATHS_WITHOUT_PROGRESS = 3

# Longest time that the first failure of a task waits for a second worker, s.
START_S = 30.0

# Pause between looks at the workers that attempts are restricted to, s.
LOOK_AGAIN_S = 0.05


@dataclass(frozen=True)
class Attempt:
    """An attempt at a task, as it was submitted to the cluster.

    Parameters
    ----------
    task : Task
    job : Job
    how : Again
        What is known from earlier attempts.
    allowed : list of str or None
        Addresses of the workers that may take it. None for any of its pool.
    number : int
        From 1.
    deaths : int
        Workers that died at the task before this attempt. A job that resumes counts from its last
        progress.
    saved : str or None
        Stamp of what the job had saved before this attempt.
    submitted_s : float
        On the monotonic clock, s.
    """

    task: Task
    job: Job
    how: Again
    allowed: list[str] | None = None
    number: int = 1
    deaths: int = 0
    saved: str | None = None
    submitted_s: float = field(default_factory=time.monotonic)

    @property
    def is_isolated(self) -> bool:
        """Whether a child process takes its utterances one by one."""
        return self.how.isolated or self.deaths >= ISOLATE_AFTER

    def deaths_with_this(self) -> int:
        """Return how many dead workers count after the worker of this attempt died too."""
        progressed = self.job.saved() != self.saved
        return 1 if progressed else self.deaths + 1

    def may_go_on(self, deaths: int) -> bool:
        """Return whether the task gets another attempt after so many dead workers."""
        return deaths < (MAX_DEATHS_WITHOUT_PROGRESS if self.job.resumes else MAX_DEATHS)


def run_dask(
    window: ShardWindow, make_job: MakeJob, announce: Listener, spec: ClusterSpec, time_limit_s: float | None = None
) -> None:
    """Run all tasks on the cluster of `spec`.

    A worker ends itself if its task takes longer than `time_limit_s`. The first interrupt stops
    submitting tasks and waits for those in flight. A second one leaves at once.

    Raises
    ------
    RunFailed
        No task can succeed any more, or the scheduler is lost. Or tasks are left, and none of them
        may run.
    KeyboardInterrupt
        After an interrupt, when everything in flight is done.
    """
    with connected(spec) as cluster:
        stream = _TaskStream(cluster, window, make_job, announce, time_limit_s)
        publish = None
        try:
            bound_memory(cluster.client)
            publish = publisher(cluster.client)
        except ImportError as error:
            effect = "its metrics will lack this run, and its memory grows by about 3 KiB per task"
            announce(Note(text=f"the scheduler can't import melmill ({error}): {effect}"))
        missing = missing_bokeh(spec)
        if missing:
            announce(Note(text=missing))
        dashboard, metrics = links(cluster.client, spec)
        announce(Ready(probe=stream.probe, dashboard=dashboard, metrics=metrics, publish=publish))
        with one_span():
            stream.run()


def run_job(pickled: bytes, topic: str, time_limit_s: float | None) -> Receipt:
    """Run a job on a worker; an error gets an attribute `place` that says where it happened.

    Parameters
    ----------
    pickled : bytes
        The job. A worker that lacks a module of it says so, and stays up.
    topic : str
        Dask topic that receives the lines that the task reports.
    time_limit_s : float or None
        The worker ends itself if the job takes longer, s.
    """
    from distributed.worker import get_worker, thread_state

    limit_threads(1)
    worker, key = get_worker(), thread_state.key

    def is_wanted() -> bool:
        # Dask releases the task when its client stops, disconnects or is lost. It can't end the
        # thread.
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    try:
        report = partial(worker.log_event, topic)
        with current_task(key, report=report, is_wanted=is_wanted), time_limit(time_limit_s):
            return replace(
                run_judged(lambda: pickle.loads(pickled).run()), worker=str(worker.name), address=worker.address
            )
    except Exception as error:
        error.__dict__["place"] = Place(worker=str(worker.name), host=platform.node(), address=worker.address)
        raise


class _TaskStream:
    """Keep a bounded number of tasks in flight per pool."""

    def __init__(
        self,
        cluster: RunningCluster,
        window: ShardWindow,
        make_job: MakeJob,
        announce: Listener,
        time_limit_s: float | None,
    ) -> None:
        from distributed import as_completed

        self.cluster = cluster
        self.client = client = cluster.client
        self.window = window
        self.make_job = make_job
        self.announce = announce
        self.time_limit_s = time_limit_s
        pools = cluster.spec.pools
        self.resources = {name: cluster.spec.task_resources(name) for name in pools}
        # By Dask key.
        self.attempts: dict[str, tuple[Attempt, Future]] = {}
        self.n_in_flight = dict.fromkeys(pools, 0)
        self.completed = as_completed(loop=client.loop)
        self.topic = f"melmill-{client.id}"
        self.scheduler_answers = True
        self.machines = Machines(announce)
        self.wait_for_others_s = START_S
        # The number of the last attempt of each task that was put aside.
        self.aside: dict[Task, int] = {}

    def run(self) -> None:
        """Submit tasks and settle their results until none is left; raise RunFailed."""
        self.client.subscribe_topic(self.topic, lambda event: self.announce(Note(text=event[1])))
        try:
            self._fill()
            while self.attempts:
                self._settle(self._next_done())
                self._fill()
                if not self.attempts:
                    self._take_up(self.machines.at_end())
            self.window.check_done()
        except KeyboardInterrupt:
            self._drain()
            raise

    def _drain(self) -> None:
        """Wait for what is in flight, and start nothing more."""
        from distributed import as_completed

        # The interrupt may have come just when `completed` handed out a future: count anew.
        in_flight = {key: pair for key, pair in self.attempts.items() if not pair[0].job.resumes}
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
        """Submit as many tasks as the cluster has room for."""
        for pool in self.window.pools:
            # A pool whose workers are still to come gets the tasks of one slot: some clusters start
            # workers for them.
            limit = IN_FLIGHT * max(1, self.cluster.slots(pool))
            while self.n_in_flight[pool] < limit:
                task = self.window.take(pool)
                if task is None:
                    break
                self._submit(Again(task=task))
        self.cluster.adapt({pool: self.window.n_left(pool) for pool in self.window.pools})
        for text in self.cluster.take_notes():
            self.announce(Note(text=text))

    def _submit(self, how: Again, number: int = 1, deaths: int = 0) -> None:
        """Submit an attempt at a task, after so many dead workers."""
        task = how.task
        job = self.make_job(task, number, how.isolated or deaths >= ISOLATE_AFTER)
        job = job.suspecting(how.suspects, trusted=how.trusted)
        pool = self.window.nodes[task.node].pool
        attempt = Attempt(task, job, how, self._allowed(how, pool), number, deaths, job.saved())
        # Isolated utterances have a limit each. A job that resumes may take days.
        limit_s = None if attempt.is_isolated or job.resumes else self.time_limit_s
        future = self.client.submit(
            run_job,
            pickle.dumps(job),
            self.topic,
            limit_s,
            # On a shared cluster two tasks of one key are the same task, even if they write to
            # different stores.
            key=f"{task.node}-{task.corpus}-{task.shard}-{number}-{self.client.id}",
            resources=self.resources[pool],
            workers=attempt.allowed,
            pure=False,
        )
        self.attempts[future.key] = attempt, future
        self.n_in_flight[pool] += 1
        self.completed.add(future)
        self.announce(Submitted(task=task, attempt=number))

    def _allowed(self, how: Again, pool: str) -> list[str] | None:
        """Return the addresses of the workers that an attempt may run on; None for any."""
        out = self.machines.out_of_service.keys()
        if not how.on and not out:
            return None
        up = [address for address in self.cluster.addresses(pool) if address not in out]
        return [address for address in up if address in how.on] or (up if out else None)

    def _workers(self, pool: str) -> list[str]:
        """Return the addresses of a pool's workers. If there is one, wait for others, once a run."""
        out = self.machines.out_of_service.keys()
        until_s = time.monotonic() + self.wait_for_others_s
        while True:
            up = self.cluster.addresses(pool)
            n_expected = self.cluster.spec.pools[pool].workers - len(out)
            if len(set(up) - out) > 1 or n_expected < 2:
                return up
            if time.monotonic() > until_s:
                self.wait_for_others_s = 0.0
                return up
            time.sleep(LOOK_AGAIN_S)

    def _next_done(self) -> Future:
        """Return the next future that is done. Meanwhile free attempts whose workers are all gone."""
        while not self.completed.has_ready() and any(attempt.allowed for attempt, _ in self.attempts.values()):
            for attempt, future in list(self.attempts.values()):
                pool = self.window.nodes[attempt.task.node].pool
                up = self.cluster.addresses(pool)
                if attempt.allowed and up and not set(attempt.allowed) & set(up):
                    del self.attempts[future.key]
                    self.n_in_flight[pool] -= 1
                    future.cancel()
                    self._submit(replace(attempt.how, on=frozenset()), attempt.number + 1, attempt.deaths)
            time.sleep(LOOK_AGAIN_S)
        return next(self.completed)

    def _take_up(self, tasks: Sequence[Again]) -> None:
        """Submit tasks that were put aside."""
        for how in tasks:
            self._submit(how, self.aside.pop(how.task) + 1)

    def _settle(self, future: Future) -> None:
        if future.key not in self.attempts:
            return  # it was cancelled, and another attempt submitted
        # In this order: after an interrupt while the answer is fetched, the task is still among
        # those to wait for.
        answer = _answer(future)
        attempt, _ = self.attempts.pop(future.key)
        self.n_in_flight[self.window.nodes[attempt.task.node].pool] -= 1
        if isinstance(answer, Receipt):
            self.window.finish(attempt.task)
            self.announce(Finished(task=attempt.task, attempt=attempt.number, receipt=answer))
            place = Place(worker=answer.worker, host=answer.host, address=answer.address)
            self._take_up(self.machines.succeeded(attempt.task, place))
        else:
            self._settle_error(attempt, answer)

    def _settle_error(self, attempt: Attempt, error: Exception) -> None:
        """Try the task again, or give it up; raise RunFailed if no task can succeed any more."""
        from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

        if isinstance(error, FATAL):
            raise RunFailed(str(error)) from error
        if isinstance(error, NoValidWorkerError | NoWorkerError):
            why = "; ".join([*self.cluster.take_notes(), "no worker is left and none can be started"])
            raise RunFailed(f"{why}; run again to go on from what is stored")
        task, number, place = attempt.task, attempt.number, _last_place(error)
        failure = None if isinstance(error, KilledWorker) else machine_failure(error)
        if failure is not None:
            self._settle_failure(attempt, failure, place)
            return
        deaths = attempt.deaths
        if isinstance(error, KilledWorker):
            in_flight_s = time.monotonic() - attempt.submitted_s
            hung = self.time_limit_s is not None and not attempt.job.resumes and in_flight_s > self.time_limit_s
            reason = f"no answer within {self.time_limit_s:g} s" if hung else DIED
            deaths = attempt.deaths_with_this()
            again = attempt.may_go_on(deaths)
            if hung:
                # One of its utterances may be the cause.
                deaths = max(deaths, ISOLATE_AFTER)
            self.announce(WorkerDied(task=task, attempt=number, deaths=deaths, again=again, reason=reason, place=place))
        else:
            again = isinstance(error, OSError) and number < MAX_ATTEMPTS
            if again:
                self.announce(Retried(task=task, attempt=number, reason=str(error), place=place))
        if again:
            self._submit(replace(attempt.how, on=frozenset()), number + 1, deaths)
        else:
            n_blocked = self.window.fail(task)
            self.announce(Failed(task=task, attempt=number, error=error, n_blocked=n_blocked, place=place))

    def _settle_failure(self, attempt: Attempt, error: MachineFailed, place: Place) -> None:
        """Try the task on another worker, put it aside or give it up; raise RunFailed."""
        task, number = attempt.task, attempt.number
        before = set(self.machines.out_of_service)
        how = self.machines.failed(task, error, place, self._workers(self.window.nodes[task.node].pool))
        for address in self.machines.out_of_service.keys() - before:
            self.cluster.retire(address)
        if how is None and task.is_whole:
            n_blocked = self.window.fail(task)
            self.announce(Failed(task=task, attempt=number, error=error, n_blocked=n_blocked, place=place))
            return
        self.announce(Retried(task=task, attempt=number, reason=str(error), place=place))
        if how is not None:
            self._submit(how, number + 1, attempt.deaths)
        else:
            self.aside[task] = number

    def probe(self, tasks: Sequence[Task]) -> list[TaskStatus]:
        """Return the status of those of the tasks that run now; another thread calls this."""
        now, wanted = time.monotonic(), set(tasks)
        in_flight = {
            key: InFlight(task=attempt.task, attempt=attempt.number, age_s=now - attempt.submitted_s)
            for key, (attempt, _) in list(self.attempts.items())
            if attempt.task in wanted
        }
        try:
            statuses = probe_workers(self.client, in_flight)
        except TimeoutError:
            self._note_scheduler(answers=False)
            return []
        self._note_scheduler(answers=True)
        return statuses

    def _note_scheduler(self, *, answers: bool) -> None:
        """Announce when the scheduler stops answering, and when it answers again."""
        if answers != self.scheduler_answers:
            self.scheduler_answers = answers
            what = "answers again" if answers else "does not answer; the run goes on when it does"
            self.announce(Note(text=f"the Dask scheduler at {self.client.scheduler.address} {what}"))


def _last_place(error: Exception) -> Place:
    """Return where an attempt ran when it failed, or when its worker died."""
    worker = getattr(error, "last_worker", None)
    if worker is not None:
        return Place(worker=str(worker.name), host=worker.host)
    place = getattr(error, "place", None)
    return place if isinstance(place, Place) else Place()


def _answer(future: Future) -> Receipt | Exception:
    """Return the receipt of a task, or its error; raise RunFailed if the scheduler is lost."""
    from distributed import CancelledError
    from distributed.comm import CommClosedError

    try:
        receipt: Receipt = future.result()
    except (CancelledError, CommClosedError) as error:
        raise RunFailed("the Dask scheduler is lost; run again to go on from what is stored") from error
    except Exception as error:
        return error
    return receipt
