"""What a type of cluster is: the fields of its `cluster:` block, and the cluster that it starts."""

from __future__ import annotations

import os
import re
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from melmill.cluster.credentials import Credentials, Tls
from melmill.cluster.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

# How often the scheduler is asked for its workers.
REFRESH_S = 2.0
# No cluster has more. What is larger has a typing error.
MAX_WORKERS, MAX_THREADS, MAX_RESOURCE = 100_000, 4_096, 1e9
MAX_PORT = 65535

_DASHBOARD = re.compile(r"[^\s:/]+:\d{1,5}")
_POOL_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?")
_MEMORY = re.compile(r"\d+(?:\.\d+)? ?(?:[kKMGT]i?)?B")


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A named group of equal workers.

    Parameters
    ----------
    workers : int
        Worker processes to start. On a cluster that is running already: workers to expect.
    min_workers : int or None
        Fewest workers to keep when there is less to do, on a cluster that grows and shrinks. None
        keeps all.
    threads : int
        Compute threads of one worker. Each runs one task at a time.
    memory : str or None
        Memory limit of one worker (``4GiB``). None shares the machine's memory evenly.
    resources : dict of str to float
        Dask resources of one worker. Tasks of the pool ask for one of each.
    """

    workers: int = 1
    min_workers: int | None = None
    threads: int = 1
    memory: str | None = None
    resources: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the fields fit together."""
        if self.workers < 1 or self.threads < 1:
            raise ClusterError(
                f"a pool needs at least one worker and thread, got workers={self.workers!r}, threads={self.threads!r}",
                "workers" if self.workers < 1 else "threads",
            )
        for name, most in (("workers", MAX_WORKERS), ("threads", MAX_THREADS)):
            if getattr(self, name) > most:
                raise ClusterError(f"{name} must be at most {most} a pool, got {getattr(self, name)!r}", name)
        if self.min_workers is not None and not 0 <= self.min_workers <= self.workers:
            raise ClusterError(
                f"min_workers must be in [0, {self.workers}], the number of workers, got {self.min_workers!r}",
                "min_workers",
            )
        for name, amount in self.resources.items():
            if not 0 < amount <= MAX_RESOURCE:
                raise ClusterError(
                    f"resources must be positive and at most {MAX_RESOURCE:g}, got {name}: {amount!r}", "resources"
                )
        if self.memory is not None and not _MEMORY.fullmatch(self.memory):
            raise ClusterError(f"memory must be a size such as 4GiB, got {self.memory!r}", "memory")

    @property
    def slots(self) -> int:
        """Tasks that run at the same time when all workers are up."""
        return self.workers * self.threads

    @property
    def fewest(self) -> int:
        """Workers that are kept when there is nothing to do."""
        return self.workers if self.min_workers is None else self.min_workers


PoolT = TypeVar("PoolT", bound=Pool)


def one_worker_per_core(pool: type[PoolT]) -> dict[str, PoolT]:
    """Return the pools of a cluster that declares none: a worker per core of this machine."""
    return {"cpu": pool(workers=len(os.sched_getaffinity(0)))}


@dataclass(frozen=True, kw_only=True)
class ClusterSpec(ABC):
    """Where the tasks of a pipeline run.

    Parameters
    ----------
    security : Tls or str or None
        Certificates for mutual TLS, or the folder that ``melmill cluster certs`` made. Without
        them, a type that is `encrypted` makes certificates for one run.
    pools : mapping of str to Pool
        Worker pools by name. Nodes run in ``cpu`` unless they say otherwise.
    dashboard : bool or str
        Whether a scheduler on this machine shows Dask's pages. True shows them at port 8787 of its
        loopback device, or at another port where that is taken. An address such as
        ``127.0.0.1:8800`` says where. Whoever reaches the pages sees the run.

    Attributes
    ----------
    type : str
        The name in ``cluster: {type: ...}``.
    encrypted : bool
        Whether traffic is encrypted even without `security`. Set it where traffic leaves this
        machine: whoever reaches an open scheduler can run code as this user.
    adaptive : bool
        Whether workers come and go with the work. Then a pool without workers waits for them, and
        each pool must say how much memory a worker needs.
    owns_workers : bool
        Whether melmill starts the workers, and so may close one that fails.
    scheduler_here : bool
        Whether the scheduler runs on this machine, where it can show its pages.
    packages : tuple of str
        Modules that the type imports and that melmill does not depend on.
    requirement : str
        What to ``pip install`` where one of them is missing.

    Notes
    -----
    A type of cluster is a subclass. It adds the fields of its own and says how it launches. Where
    its pools have fields of their own, they are of a subclass of `Pool`. A required field may have
    an ``example`` in its metadata, for the error where it is missing.
    """

    type: ClassVar[str]
    encrypted: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False
    owns_workers: ClassVar[bool] = True
    scheduler_here: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ()
    requirement: ClassVar[str] = ""

    security: Tls | str | None = None
    pools: Mapping[str, Pool] = field(default_factory=lambda: one_worker_per_core(Pool))
    dashboard: bool | str = False

    @abstractmethod
    def launch(self, credentials: Credentials | None) -> AbstractContextManager[RunningCluster]:
        """Start or find the cluster; end what was started when the context is left.

        Parameters
        ----------
        credentials : Credentials or None
            Those of `security`, or new ones where the type is `encrypted`.

        Raises
        ------
        ClusterError
            The cluster can't be started or reached.
        """

    def task_resources(self, pool: str) -> dict[str, float]:
        """Return the Dask resources that a task of a pool asks for.

        They keep the workers of the pools apart. A worker that melmill starts carries a resource
        named after its pool.
        """
        return {f"pool-{pool}": 1}

    def __post_init__(self) -> None:
        """Check that the fields fit together."""
        if not self.pools:
            raise ClusterError("cluster: at least one pool is needed, such as pools: {cpu: {workers: 2}}", "pools")
        if self.dashboard and not self.scheduler_here:
            raise ClusterError(
                f"cluster: dashboard is for schedulers that run on this machine, got type {self.type!r}: give it to "
                "where yours is started, such as `dask scheduler --dashboard-address 127.0.0.1:8787`",
                "dashboard",
            )
        if isinstance(self.dashboard, str) and not _DASHBOARD.fullmatch(self.dashboard):
            raise ClusterError(
                f"cluster: dashboard must be true, false or an address such as 127.0.0.1:8787, got {self.dashboard!r}",
                "dashboard",
            )
        for name, pool in self.pools.items():
            where = f"cluster: pool {name!r}"
            if not _POOL_NAME.fullmatch(name):
                raise ClusterError(
                    f"{where} must be called by at most 20 lower-case letters, digits and '-', none of them at an end",
                    "pools",
                )
            if pool.min_workers is not None and not self.adaptive:
                raise ClusterError(
                    f"{where} has min_workers, but a cluster of type {self.type!r} keeps all workers: remove it",
                    "pools",
                )
            if self.adaptive and pool.memory is None:
                raise ClusterError(
                    f"{where} needs memory, such as 4GiB: {self.type} reserves it for each worker", "pools"
                )


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where a scheduler on this machine listens for workers on other machines.

    Parameters
    ----------
    host, interface : str or None
        Address of this machine, or its network interface, at which workers reach the scheduler.
    scheduler_port : int
        Port of the scheduler. 0 takes any that is free.
    """

    host: str | None = None
    interface: str | None = None
    scheduler_port: int = 0

    def __post_init__(self) -> None:
        """Check that the fields fit together."""
        if self.host is not None and self.interface is not None:
            raise ClusterError(
                f"host and interface both say where the scheduler listens, got {self.host!r} and {self.interface!r}: "
                "give one of them",
                "interface",
            )
        if not 0 <= self.scheduler_port <= MAX_PORT:
            raise ClusterError(
                f"scheduler_port must be in [0, {MAX_PORT}], got {self.scheduler_port!r}", "scheduler_port"
            )


class RunningCluster:
    """A cluster that is up: send tasks through its `client`.

    Parameters
    ----------
    client : Client
    spec : ClusterSpec
    notes : deque of str, or iterable of str
        What a person should know. A launcher that keeps the deque adds to it.
    """

    def __init__(self, client: Client, spec: ClusterSpec, notes: Iterable[str] = ()) -> None:
        self.client = client
        self.spec = spec
        self.notes = notes if isinstance(notes, deque) else deque(notes)
        self._workers: list[Mapping[str, Any]] = []
        self._refreshed_s = float("-inf")

    def slots(self, pool: str) -> int:
        """Return how many tasks of a pool can run now, on the workers that are up.

        Dask hands tasks of a pool to its workers at once, however few there are. More tasks than
        these can run would leave later workers idle, and each worker that dies would take many
        tasks with it.
        """
        n_free = sum(self._slots_of(worker, pool) for worker in self.workers())
        return min(self.spec.pools[pool].slots, n_free)

    def addresses(self, pool: str) -> list[str]:
        """Return the addresses of the workers that are up and can run tasks of a pool."""
        return [worker["address"] for worker in self.workers() if self._slots_of(worker, pool)]

    def _slots_of(self, worker: Mapping[str, Any], pool: str) -> int:
        wanted = self.spec.task_resources(pool)
        if wanted:
            return int(min(worker["resources"].get(name, 0) / amount for name, amount in wanted.items()))
        return int(worker["nthreads"])

    def retire(self, address: str) -> None:
        """Close a worker that fails. Its tasks go to others.

        Workers that somebody else started stay up. They get no more tasks of this run.
        """
        if self.spec.owns_workers:
            self.client.retire_workers([address], close_workers=True)

    def adapt(self, tasks: Mapping[str, int]) -> None:
        """Grow or shrink with the number of unfinished tasks of each pool, if adaptive."""

    def take_notes(self) -> Iterator[str]:
        """Yield the notes that have come since the last call."""
        while self.notes:
            yield self.notes.popleft()

    def workers(self) -> list[Mapping[str, Any]]:
        """Return what the scheduler says of its workers, at most `REFRESH_S` old."""
        now = time.monotonic()
        if now - self._refreshed_s >= REFRESH_S:
            self._refreshed_s = now
            try:
                workers = self.client.scheduler_info(n_workers=-1)["workers"]
                self._workers = [{**worker, "address": address} for address, worker in workers.items()]
            except OSError:
                # A lost scheduler shows at the tasks in flight.
                self._workers = []
        return self._workers
