"""Run tasks on a Dask cluster: a few per slot at a time, each attempt under a key of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from melmill.cluster.connect import connected
from melmill.cluster.contract import ClusterSpec, RunningCluster
from melmill.cluster.scheduler import (
    ProcessorTimes,
    bound_memory,
    links,
    missing_bokeh,
    one_span,
    publisher,
    topic_of,
)
from melmill.flows.execution.attempts import ISOLATE_AFTER, MAX_ATTEMPTS, Attempt, Chain, chain_name, owner_of
from melmill.flows.execution.errors import MachineFailed, RunFailed
from melmill.flows.execution.machines import Again, Machines
from melmill.flows.execution.probe import InFlight, probe_workers
from melmill.flows.execution.serial import MakeJob
from melmill.flows.execution.window import ShardWindow
from melmill.flows.tasks.chain import Told, run_chain, stop_chains
from melmill.flows.tasks.judging import FATAL, machine_failure
from melmill.flows.tasks.task import Receipt, Task
from melmill.flows.watching.events import (
    DIED,
    Driven,
    Failed,
    Finished,
    Listener,
    Note,
    Place,
    Ready,
    Retried,
    Submitted,
    TaskStatus,
    Withdrawn,
    WorkerDied,
)

if TYPE_CHECKING:
    from distributed import Future

# Chains in flight per compute slot: one runs, one waits so that the worker is never idle.
IN_FLIGHT = 2

# Longest time that workers have to hear of an interrupt, s.
STOP_TIMEOUT_S = 5.0

# Longest time that the first failure of a task waits for a second worker, s.
START_S = 30.0

# Pause between looks at the workers that attempts are restricted to, s.
LOOK_AGAIN_S = 0.05


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
        before = ProcessorTimes.of(cluster.client, spec)
        with one_span():
            stream.run()
        taken = ProcessorTimes.of(cluster.client, spec).since(before)
        announce(Driven(n_tasks=stream.n_done, driver_cpu_s=taken.driver_s, scheduler_cpu_s=taken.scheduler_s))


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
        self.scheduler_address = client.scheduler.address
        self.window = window
        self.make_job = make_job
        self.announce = announce
        self.time_limit_s = time_limit_s
        pools = cluster.spec.pools
        self.resources = {name: cluster.spec.task_resources(name) for name in pools}
        # By Dask key.
        self.chains: dict[str, Chain] = {}
        # By task, the chain in flight that it is in.
        self.chain_of: dict[Task, Chain] = {}
        # By label, for what workers tell.
        self.told_of: dict[str, tuple[Chain, Attempt]] = {}
        # Chains by pool: those that can run, and those that wait for others.
        self.n_in_flight = dict.fromkeys(pools, 0)
        self.n_waiting = dict.fromkeys(pools, 0)
        self.n_submitted = 0
        self.n_done = 0
        self.completed = as_completed(loop=client.loop)
        self.topic = topic_of(client.id)
        self.scheduler_answers = True
        self.machines = Machines(announce)
        self.wait_for_others_s = START_S
        # The number of the last attempt of each task that was put aside.
        self.aside: dict[Task, int] = {}

    def run(self) -> None:
        """Submit tasks and settle their results until none is left; raise RunFailed."""
        self.client.subscribe_topic(self.topic, self._hear)
        try:
            self._fill()
            while self.chains:
                self._settle(self._next_done())
                # Many workers answer while one answer is settled.
                while self.completed.has_ready():
                    self._settle(next(self.completed))
                self._fill()
                if not self.chains:
                    self._take_up(self.machines.at_end())
            self.window.check_done()
        except KeyboardInterrupt:
            self._drain()
            raise

    def _hear(self, event: tuple[float, object]) -> None:
        """Pass on what a worker tells; Dask calls this in a thread of its own."""
        message = event[1]
        if not isinstance(message, bytes):
            self.announce(Note(text=str(message)))
            return
        told = Told.of(message)
        for label, receipt in told.receipts.items():
            # What is settled by now was announced then.
            if (done := self.told_of.get(label)) is not None:
                self._tell(*done, receipt)
        if (begun := self.told_of.get(told.label)) is not None:
            begun[0].since_s = time.monotonic()

    def _tell(self, chain: Chain, attempt: Attempt, receipt: Receipt) -> None:
        event = Finished(task=attempt.task, attempt=attempt.number, receipt=receipt)
        chain.tell(attempt.label, receipt, lambda: self.announce(event))

    def _drain(self) -> None:
        """Wait for the jobs in flight, and start nothing more."""
        from distributed import as_completed

        # The interrupt may have come just when `completed` handed out a future: count anew.
        in_flight = {}
        for key, chain in self.chains.items():
            if chain.attempts[0].job.resumes:
                self.announce(Note(text=f"stopping: {chain.attempts[0].task.node} will go on from what it saved last"))
                chain.future.release()
            else:
                in_flight[key] = chain
        n_tasks = sum(len(chain.left) for chain in in_flight.values())
        text = f"stopping: waiting for what workers compute, of {n_tasks} tasks in flight"
        self.announce(Note(text=f"{text} (interrupt again to leave at once)"))
        with suppress(OSError):  # a silent worker ends its chains as if nothing had been said
            self.client.run(stop_chains, self.topic, on_error="ignore", callback_timeout=STOP_TIMEOUT_S)
        for future in as_completed([chain.future for chain in in_flight.values()], loop=self.client.loop):
            chain = in_flight[future.key]
            for attempt, receipt in zip(chain.attempts, chain.receipts(_answer(chain)), strict=False):
                self._tell(chain, attempt, receipt)

    def _fill(self) -> None:
        """Submit as many chains as the cluster has room for."""
        room = True
        while room:
            room = any(self._fill_pool(pool) for pool in self.window.pools)
        self.cluster.adapt({pool: self.window.n_left(pool) for pool in self.window.pools})
        for text in self.cluster.take_notes():
            self.announce(Note(text=text))

    def _fill_pool(self, pool: str) -> bool:
        """Submit the chains that a pool has room for; return whether there was one."""
        # A pool whose workers are still to come gets the chains of one slot: some clusters start
        # workers for them.
        limit, n_before = IN_FLIGHT * max(1, self.cluster.slots(pool)), self.n_submitted
        n_slots = self.cluster.spec.pools[pool].slots
        while self.n_in_flight[pool] < limit and (chain := self.window.take_chain(pool, n_slots)):
            self._submit([Again(task=task) for task in chain])
        # Others wait at the scheduler, so that a worker goes on without asking here. They may run any
        # moment, so they are counted too: a worker that dies takes all that may run along.
        while self.n_in_flight[pool] + self.n_waiting[pool] < limit and (chain := self.window.take_next(pool, n_slots)):
            self._submit([Again(task=task) for task in chain])
        return self.n_submitted > n_before

    def _submit(self, hows: Sequence[Again], number: int = 1, deaths: int = 0) -> None:
        """Submit attempts at tasks as one chain, after so many dead workers."""
        tasks = [how.task for how in hows]
        self.n_submitted += 1
        # On a shared cluster two tasks of one key are the same task, even if they write to different
        # stores.
        unique = f"{self.n_submitted}-{self.client.id}"
        attempts = []
        for how in hows:
            job = self.make_job(how.task, number, how.isolated or deaths >= ISOLATE_AFTER)
            job = job.suspecting(how.suspects, trusted=how.trusted)
            label = f"{chain_name([how.task])}-attempt-{number}-{unique}"
            attempts.append(Attempt(label, how.task, job, how, number, deaths, job.saved()))
        pool = self.window.nodes[tasks[0].node].pool
        before = {self.chain_of[task].key: self.chain_of[task] for task in self.window.waits_for(tasks)}
        allowed = self._allowed(hows[0], pool)
        key = f"{chain_name(tasks)}-{unique}"
        chain = Chain(key=key, pool=pool, attempts=attempts, allowed=allowed, waits_for=before)
        after = next((other.attempts[-1].task for other in before.values()), None)
        # Before it is submitted: its worker may tell that a task is done at any moment after.
        for attempt in attempts:
            self.announce(Submitted(task=attempt.task, attempt=number, after=after))
            self.told_of[attempt.label] = chain, attempt
            after = attempt.task
        chain.future = self.client.submit(
            run_chain,
            [attempt.link(self.time_limit_s) for attempt in attempts],
            self.topic,
            [other.future for other in before.values()],
            key=key,
            resources=self.resources[pool],
            workers=allowed,
            pure=False,
        )
        for other in before.values():
            other.followers.append(chain)
        self.chains[key] = chain
        self.chain_of.update((attempt.task, chain) for attempt in attempts)
        self._count(chain, 1)
        self.completed.add(chain.future)

    def _count(self, chain: Chain, n: int) -> None:
        (self.n_waiting if chain.waits_for else self.n_in_flight)[chain.pool] += n

    def _remove(self, chain: Chain) -> None:
        """Forget a chain that is not at the cluster any more."""
        chain.end()
        del self.chains[chain.key]
        self._count(chain, -1)
        for attempt in chain.attempts:
            del self.chain_of[attempt.task], self.told_of[attempt.label]
        for other in chain.followers:
            if other.key in self.chains and chain.key in other.waits_for:
                self._count(other, -1)
                del other.waits_for[chain.key]
                self._count(other, 1)

    def _withdraw(self, chains: Sequence[Chain]) -> None:
        """Take back chains that can't begin, and those that wait for them."""
        for chain in chains:
            if chain.key in self.chains:
                self._withdraw(chain.followers)
                self._remove(chain)
                chain.future.release()
                self._put_back(chain.left)
                self._finish_told(chain)

    def _finish_told(self, chain: Chain) -> None:
        """Settle the attempts of a chain that was given up which are known to be done."""
        for attempt in chain.attempts:
            if attempt.label in chain.told:
                self._finish(attempt, chain.told[attempt.label])

    def _finish(self, attempt: Attempt, receipt: Receipt) -> None:
        """Settle an attempt that is done."""
        self.n_done += 1
        self.window.finish(attempt.task)
        place = Place(worker=receipt.worker, host=receipt.host, address=receipt.address)
        self._take_up(self.machines.succeeded(attempt.task, place))

    def _put_back(self, attempts: Sequence[Attempt]) -> None:
        """Let the window hand out again what did not begin."""
        for attempt in attempts:
            self.announce(Withdrawn(task=attempt.task))
        for attempt in attempts:
            self.window.put_back(attempt.task)

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
        """Return the next future that is done. Meanwhile free chains whose workers are all gone."""
        while not self.completed.has_ready() and any(chain.allowed for chain in self.chains.values()):
            for chain in list(self.chains.values()):
                up = self.cluster.addresses(chain.pool)
                if chain.key in self.chains and chain.allowed and up and not set(chain.allowed) & set(up):
                    self._withdraw(chain.followers)
                    self._remove(chain)
                    chain.future.cancel()
                    self._finish_told(chain)
                    for attempt in chain.left:
                        self.announce(Withdrawn(task=attempt.task))
                    hows = [replace(attempt.how, on=frozenset()) for attempt in chain.left]
                    if hows:
                        self._submit(hows, chain.attempts[0].number + 1, chain.attempts[0].deaths)
            time.sleep(LOOK_AGAIN_S)
        return next(self.completed)

    def _take_up(self, tasks: Sequence[Again]) -> None:
        """Submit tasks that were put aside."""
        for how in tasks:
            self._submit([how], self.aside.pop(how.task) + 1)
            self.window.take_up(how.task)

    def _settle(self, future: Future) -> None:
        if future.key not in self.chains:
            return  # it was cancelled or withdrawn
        # In this order: after an interrupt while the answer is fetched, the chain is still among
        # those to wait for.
        answer, chain = _answer(self.chains[future.key]), self.chains[future.key]
        failed = isinstance(answer, Exception)
        if isinstance(answer, Exception) and self._is_of_another(chain, answer):
            return
        if failed:
            self._withdraw(chain.followers)
        self._remove(chain)
        receipts = chain.receipts(answer)
        left = chain.attempts[len(receipts) :]
        self._put_back(left[1:] if failed else left)
        for attempt, receipt in zip(chain.attempts, receipts, strict=False):
            if attempt.label not in chain.told:
                self.announce(Finished(task=attempt.task, attempt=attempt.number, receipt=receipt))
            self._finish(attempt, receipt)
        if isinstance(answer, Exception) and left:
            self._settle_error(left[0], answer, time.monotonic() - chain.since_s)

    def _is_of_another(self, chain: Chain, error: Exception) -> bool:
        """Settle the chain whose error kept this one from its begin; return whether there is one."""
        failed = next((other for other in chain.waits_for.values() if other.future.status == "error"), None)
        if failed is not None:
            self._settle(failed.future)  # which withdraws this one
            return True
        if (owner_of(error) or chain.key) != chain.key:
            # It was done before, and failed when Dask ran it again for a lost worker.
            self._withdraw([chain])
            return True
        return False

    def _settle_error(self, attempt: Attempt, error: Exception, in_flight_s: float) -> None:
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
            self._submit([replace(attempt.how, on=frozenset())], number + 1, deaths)
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
            self._submit([how], number + 1, attempt.deaths)
        else:
            self.aside[task] = number
            self.window.put_aside(task)

    def probe(self, tasks: Sequence[Task]) -> list[TaskStatus]:
        """Return the status of what the chains of these tasks work on; another thread calls this."""
        now, wanted = time.monotonic(), set(tasks)
        in_flight = {
            key: {
                attempt.label: InFlight(task=attempt.task, attempt=attempt.number, age_s=now - chain.since_s)
                for attempt in chain.left
            }
            for key, chain in list(self.chains.items())
            if any(attempt.task in wanted for attempt in chain.attempts)
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
            self.announce(Note(text=f"the Dask scheduler at {self.scheduler_address} {what}"))


def _last_place(error: Exception) -> Place:
    """Return where an attempt ran when it failed, or when its worker died."""
    worker = getattr(error, "last_worker", None)
    if worker is not None:
        return Place(worker=str(worker.name), host=worker.host)
    place = getattr(error, "place", None)
    return place if isinstance(place, Place) else Place()


def _answer(chain: Chain) -> tuple[Receipt, ...] | Exception:
    """Return the receipts of a chain, or its error; raise RunFailed if the scheduler is lost."""
    from distributed import CancelledError
    from distributed.comm import CommClosedError

    if chain.future.status == "finished" and len(chain.told) == len(chain.attempts):
        return tuple(chain.told[attempt.label] for attempt in chain.attempts)
    try:
        # A chain that was stopped did fewer jobs. Its worker has the answer.
        receipts: tuple[Receipt, ...] = chain.future.result()
    except (CancelledError, CommClosedError) as error:
        raise RunFailed("the Dask scheduler is lost; run again to go on from what is stored") from error
    except Exception as error:
        return error
    return receipts
