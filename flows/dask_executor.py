"""Run tasks on a Dask cluster: small windows, a new key an attempt, our own count of attempts."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from melmill.cluster.client import connected, pool_resources
from melmill.cluster.dashboard import links, missing_bokeh
from melmill.cluster.spans import one_span
from melmill.cluster.spec import ClusterSpec
from melmill.cluster.threads import limit_threads
from melmill.flows.errors import RunFailed
from melmill.flows.events import Failed, Finished, Listener, Note, Place, Ready, Retried, Running, Submitted, WorkerDied
from melmill.flows.executors import FATAL, Job, MakeJob
from melmill.flows.frontier import Frontier, Task
from melmill.flows.lookout import Flight, look_there
from melmill.flows.receipt import Receipt
from melmill.stages.at_work import working

if TYPE_CHECKING:
    from distributed import Client, Future

# Attempts of a task whose input or output failed.
MAX_ATTEMPTS = 3

# Dead workers after which a task may be what kills them: its utterances then get processes of their own.
ISOLATE_AFTER = 2

# Dead workers after which a task is given up. One that is isolated dies only by others on its worker, or from outside.
MAX_DEATHS = 8

# Tasks in flight per compute slot: one runs, one waits at the worker so that it never idles.
IN_FLIGHT = 2


@dataclass(frozen=True)
class _Attempt:
    task: Task
    number: int = 1
    deaths: int = 0
    submitted: float = field(default_factory=time.monotonic)

    def again(self, *, died: bool) -> _Attempt:
        return _Attempt(self.task, self.number + 1, self.deaths + died)


def run_dask(frontier: Frontier, make_job: MakeJob, announce: Listener, spec: ClusterSpec) -> None:
    """Run all tasks on the cluster of `spec`.

    The first interrupt stops handing out tasks and waits for those in flight; a second one leaves at once.

    Raises
    ------
    RunFailed
        The store can't be written any more, or the scheduler is lost.
    KeyboardInterrupt
        After an interrupt, when everything in flight is done.
    """
    with connected(spec) as client:
        stream = _Stream(client, frontier, make_job, announce, spec)
        publish = _equip(client, announce)
        missing = missing_bokeh(spec)
        if missing:
            announce(Note(text=missing))
        dashboard, metrics = links(client, spec)
        announce(Ready(look=stream.look, dashboard=dashboard, metrics=metrics, publish=publish))
        with one_span():
            stream.run()


def _equip(client: Client, announce: Listener) -> Callable[[Mapping[str, Any]], None] | None:
    """Give the scheduler what it needs of melmill; return what publishes metrics, None where it can't import it."""
    from melmill.cluster.housekeeping import keep_tidy
    from melmill.cluster.metrics import publisher

    try:
        keep_tidy(client)
        return publisher(client)
    except ImportError as error:
        lost = "its metrics will lack this run, and its memory grows by some 3 KiB a task"
        announce(Note(text=f"the scheduler can't import melmill ({error}): {lost}"))
    return None


def execute(job: Job, label: str) -> Receipt:
    """Run a job on a worker; an error says in its `place` where it came up."""
    from distributed import get_worker

    limit_threads(1)
    worker = str(get_worker().name)
    try:
        with working(label):
            return replace(job.run(), worker=worker)
    except Exception as error:
        error.__dict__["place"] = Place(worker=worker, host=platform.node())
        raise


class _Stream:
    """Keeps a bounded number of tasks in flight per pool."""

    def __init__(
        self, client: Client, frontier: Frontier, make_job: MakeJob, announce: Listener, spec: ClusterSpec
    ) -> None:
        from distributed import as_completed

        self.client = client
        self.frontier = frontier
        self.make_job = make_job
        self.announce = announce
        self.limits = {name: IN_FLIGHT * pool.slots for name, pool in spec.pools.items()}
        self.resources = {name: pool_resources(name, pool, spec) for name, pool in spec.pools.items()}
        self.attempts: dict[Any, tuple[_Attempt, Future]] = {}
        self.in_flight = dict.fromkeys(spec.pools, 0)
        self.completed = as_completed(loop=client.loop)

    def run(self) -> None:
        """Submit and settle until the frontier is done."""
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

        text = f"stopping: waiting for {len(self.attempts)} tasks in flight (interrupt again to leave at once)"
        self.announce(Note(text=text))
        # The interrupt may have come just when `completed` handed out a future: count anew.
        in_flight = dict(self.attempts)
        for future in as_completed([future for _, future in in_flight.values()], loop=self.client.loop):
            answer = _answer(future)
            if isinstance(answer, Receipt):
                attempt, _ = in_flight[future.key]
                self.announce(Finished(task=attempt.task, attempt=attempt.number, receipt=answer))

    def _fill(self) -> None:
        for pool in self.frontier.pools:
            while self.in_flight[pool] < self.limits[pool]:
                task = self.frontier.take(pool)
                if task is None:
                    break
                self._submit(_Attempt(task))

    def _submit(self, attempt: _Attempt) -> None:
        task = attempt.task
        pool = self.frontier.nodes[task.node].pool
        # On a shared cluster a task of the same key is the same task, even if it writes to another store.
        key = f"{task.node}-{task.corpus}-{task.shard}-{attempt.number}-{self.client.id}"
        job = self.make_job(task, attempt.number, attempt.deaths >= ISOLATE_AFTER)
        future = self.client.submit(execute, job, key, key=key, resources=self.resources[pool], pure=False)
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

    def _settle_error(self, attempt: _Attempt, error: Exception) -> None:
        from distributed.scheduler import KilledWorker, NoValidWorkerError

        if isinstance(error, FATAL):
            raise RunFailed(str(error)) from error
        if isinstance(error, NoValidWorkerError):
            raise RunFailed("no worker is left and none can be started; run again to go on from what is stored")
        task, number = attempt.task, attempt.number
        died = isinstance(error, KilledWorker)
        place = _last_place(error)
        if died:
            deaths = attempt.deaths + 1
            again = deaths < MAX_DEATHS
            self.announce(WorkerDied(task=task, attempt=number, deaths=deaths, again=again, place=place))
        else:
            again = isinstance(error, OSError) and number < MAX_ATTEMPTS
            if again:
                self.announce(Retried(task=task, attempt=number, reason=str(error), place=place))
        if again:
            self._submit(attempt.again(died=died))
            return
        n_blocked = self.frontier.fail(task)
        self.announce(Failed(task=task, attempt=number, error=error, n_blocked=n_blocked, place=place))

    def look(self, tasks: Sequence[Task]) -> list[Running]:
        """Return what those of the tasks are at that run now; called by another thread."""
        now, wanted = time.monotonic(), set(tasks)
        flights = {
            key: Flight(task=attempt.task, attempt=attempt.number, age_s=now - attempt.submitted)
            for key, (attempt, _) in list(self.attempts.items())
            if attempt.task in wanted
        }
        return look_there(self.client, flights)


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
