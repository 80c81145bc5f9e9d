"""Run tasks on a Dask cluster: small windows, a new key an attempt, our own count of attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from melmill.cluster.client import connected, pool_resources
from melmill.cluster.spec import ClusterSpec
from melmill.flows.errors import RunFailed
from melmill.flows.executors import FATAL, Job, MakeJob, Observer
from melmill.flows.frontier import Frontier, Task
from melmill.flows.receipt import Receipt

if TYPE_CHECKING:
    from distributed import Client, Future

# Attempts of a task whose worker died or whose input or output failed; the last one isolates its utterances.
MAX_ATTEMPTS = 3

# Tasks in flight per compute slot: one runs, one waits at the worker so that it never idles.
IN_FLIGHT = 2


@dataclass(frozen=True)
class _Attempt:
    task: Task
    number: int


def run_dask(frontier: Frontier, make_job: MakeJob, observer: Observer, spec: ClusterSpec) -> None:
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
        _Stream(client, frontier, make_job, observer, spec).run()


def execute(job: Job) -> Receipt:
    """Run a job on a worker."""
    from melmill.cluster.threads import limited_threads

    with limited_threads(1):
        return job.run()


class _Stream:
    """Keeps a bounded number of tasks in flight per pool."""

    def __init__(
        self, client: Client, frontier: Frontier, make_job: MakeJob, observer: Observer, spec: ClusterSpec
    ) -> None:
        from distributed import as_completed

        self.client = client
        self.frontier = frontier
        self.make_job = make_job
        self.observer = observer
        self.limits = {name: IN_FLIGHT * pool.slots for name, pool in spec.pools.items()}
        self.resources = {name: pool_resources(name, pool, spec) for name, pool in spec.pools.items()}
        self.attempts: dict[Any, _Attempt] = {}
        self.in_flight = dict.fromkeys(spec.pools, 0)
        self.completed = as_completed(loop=client.loop)

    def run(self) -> None:
        """Submit and settle until the frontier is done."""
        self._fill()
        interrupted = False
        while self.attempts:
            try:
                future = next(self.completed)
                self._settle(future)
                if not interrupted:
                    self._fill()
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                self.observer.note(
                    f"stopping: waiting for {len(self.attempts)} tasks in flight (interrupt again to leave at once)"
                )
        if interrupted:
            raise KeyboardInterrupt

    def _fill(self) -> None:
        for pool in self.frontier.pools:
            while self.in_flight[pool] < self.limits[pool]:
                task = self.frontier.take(pool)
                if task is None:
                    break
                self._submit(_Attempt(task, 1))

    def _submit(self, attempt: _Attempt) -> None:
        task, isolated = attempt.task, attempt.number == MAX_ATTEMPTS
        pool = self.frontier.nodes[task.node].pool
        future = self.client.submit(
            execute,
            self.make_job(task, attempt.number, isolated),
            key=f"{task.node}-{self.frontier.nodes[task.node].key}-{task.corpus}-{task.shard}-{attempt.number}",
            resources=self.resources[pool],
            pure=False,
        )
        self.attempts[future.key] = attempt
        self.in_flight[pool] += 1
        self.completed.add(future)

    def _settle(self, future: Future) -> None:
        attempt = self.attempts.pop(future.key)
        self.in_flight[self.frontier.nodes[attempt.task.node].pool] -= 1
        if future.status == "finished":
            self.frontier.finish(attempt.task)
            self.observer.finished(attempt.task, future.result())
            return
        if future.status in ("cancelled", "lost"):
            raise RunFailed("the Dask scheduler is lost; run again to go on from what is stored")
        self._settle_error(attempt, future.exception())

    def _settle_error(self, attempt: _Attempt, error: BaseException) -> None:
        from distributed.scheduler import KilledWorker

        if isinstance(error, FATAL):
            raise RunFailed(str(error)) from error
        if isinstance(error, (KilledWorker, OSError)) and attempt.number < MAX_ATTEMPTS:
            why = "its worker died" if isinstance(error, KilledWorker) else str(error)
            self.observer.note(f"{attempt.task.node}, shard {attempt.task.shard}: {why}; trying again")
            self._submit(_Attempt(attempt.task, attempt.number + 1))
            return
        self.frontier.fail(attempt.task)
        self.observer.failed(attempt.task, error)
