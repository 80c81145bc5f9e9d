"""A scheduler and workers, each a process that can be killed, frozen or cut off alone."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import psutil

from benchmarks.faults.orders import Orders
from benchmarks.faults.processes import Process, wait_for
from benchmarks.faults.proxy import Cable, free_port

N_WORKERS = 3
# The least that a scheduler takes for death: ten times the pause between two heartbeats.
SILENCE_S = 5.0
_SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "2s",
    "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "60s",
    "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s",
    "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "spawn",
}


class Worker:
    """A nanny with its worker, reached through a cable of its own."""

    def __init__(self, name: str, scheduler_port: int, folder: Path, orders: Orders, env: Mapping[str, str]) -> None:
        self.name = name
        self.folder = folder
        self.orders = orders
        self.cable = Cable(scheduler_port)
        self.environment = {**env, **orders.environment, "MELMILL_FAULTS_WORKER": name}
        (folder / f"{name}-scratch").mkdir()
        self.nanny = self._started(name, {})

    def _started(self, log: str, environment: Mapping[str, str]) -> Process:
        where = ["--memory-limit", "0", "--local-directory", str(self.folder / f"{self.name}-scratch")]
        options = f"--name {self.name} --nworkers 1 --nthreads 1 --no-dashboard --host 127.0.0.1 --death-timeout 60"
        return Process(
            [sys.executable, "-m", "dask", "worker", f"tcp://127.0.0.1:{self.cable.port}", *options.split(), *where],
            self.folder,
            self.folder / f"{log}.log",
            {**self.environment, **environment},
        )

    def replace(self, environment: Mapping[str, str]) -> None:
        """Kill it, and start another in its place with more in its environment."""
        self.nanny.end()
        self.nanny = self._started(f"{self.name}-replaced-{time.monotonic_ns()}", environment)

    @property
    def process(self) -> psutil.Process | None:
        """The worker process, or None while there is none."""
        if self.nanny.returncode is not None:
            return None
        return next(iter(self.nanny.workers()), None)

    def end(self) -> None:
        """Kill it, even if it is frozen."""
        self.cable.close()
        self.nanny.end()


class Cluster:
    """A running cluster.

    Parameters
    ----------
    folder : Path
        For logs and scratch files.
    library : Path or None
        The library of `Orders`.
    environment : mapping of str
        Environment of all processes.
    """

    _count = count()

    def __init__(self, folder: Path, library: Path | None, environment: Mapping[str, str]) -> None:
        self.folder = folder / f"cluster-{next(self._count):03d}"
        self.folder.mkdir()
        port = free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        env = {**os.environ, **environment, **_SETTINGS}
        self.scheduler = Process(
            [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
            self.folder,
            self.folder / "scheduler.log",
            env,
        )
        self.workers = [
            Worker(f"w{i}", port, self.folder, Orders(library, self.folder / f"w{i}.orders"), env)
            for i in range(N_WORKERS)
        ]

    @property
    def override(self) -> str:
        """The override that makes a pipeline use this cluster."""
        return f"cluster={{type: address, address: '{self.address}', pools: {{cpu: {{workers: {N_WORKERS}}}}}}}"

    @property
    def alive(self) -> bool:
        """Whether the scheduler and a nanny are running."""
        nannies = any(worker.nanny.returncode is None for worker in self.workers)
        return self.scheduler.returncode is None and nannies

    def wait(self) -> None:
        """Wait for the first worker."""
        wait_for(lambda: any("Registered to" in worker.nanny.said for worker in self.workers), self._said)

    def end(self) -> None:
        """Kill it, even if it is frozen."""
        self.scheduler.end()
        for worker in self.workers:
            worker.end()

    def _said(self) -> str:
        return "\n".join(process.said for process in [self.scheduler, *(w.nanny for w in self.workers)])
