"""Workers as jobs of a Slurm cluster, a job each."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.core import Status

from melmill.cluster.blocks import Slurm, SlurmPool, Tls
from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.running import RunningCluster
from melmill.cluster.spec import ClusterSpec, Pool
from melmill.cluster.types.pooled import Idle, PooledCluster, wanted_workers
from melmill.cluster.workers import worker_arguments, worker_environment

_signals = signal.getsignal(signal.SIGINT)
from dask_jobqueue.slurm import SLURMJob  # noqa: E402

# It takes ctrl-C for itself when imported.
signal.signal(signal.SIGINT, _signals)

# Jobs of a pool that may end in a row before any of their workers was seen.
MAX_BARREN = 3

# A worker that never sees the scheduler gives its job back.
DEATH_TIMEOUT_S = 120


@contextmanager
def launch(spec: ClusterSpec, credentials: Credentials | None) -> Iterator[RunningCluster]:
    """Start a scheduler here and submit the pools' jobs; yield the cluster, cancel its jobs.

    Raises
    ------
    ClusterError
        ``sbatch`` is not here, or refuses a job; the log folder can't be written.
    """
    slurm = spec.slurm or Slurm()
    if credentials is None:
        raise ClusterError("cluster: type 'slurm' needs certificates")
    with (
        credentials.files(_log_folder(slurm)) as tls,
        _SlurmCluster(spec, slurm, tls, credentials) as cluster,
        Client(cluster, set_as_default=False, security=cluster.security) as client,
    ):
        yield _Adaptive(client, spec, cluster)


def _log_folder(slurm: Slurm) -> Path:
    folder = Path(slurm.log_folder).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(f"cluster: slurm: log_folder {str(folder)!r} can't be made: {error.strerror}") from error
    return folder


class _Adaptive(RunningCluster):
    def __init__(self, client: Client, spec: ClusterSpec, cluster: _SlurmCluster) -> None:
        super().__init__(client, spec, cluster.news)
        self.cluster = cluster

    def demand(self, tasks: Mapping[str, int]) -> None:
        self.cluster.tasks = dict(tasks)


class _SlurmCluster(PooledCluster):
    def __init__(self, spec: ClusterSpec, slurm: Slurm, tls: Tls, credentials: Credentials) -> None:
        self.spec = spec
        self.tasks: dict[str, int] = {}
        self._options = {name: job_options(name, pool, slurm, tls) for name, pool in spec.pools.items()}
        self._barren: Counter[str] = Counter()
        self._seen: set[str] = set()
        self._idle: dict[str, Idle] = {name: Idle() for name in spec.pools}
        members = {
            f"{name}-{index}": self._member(name) for name, pool in spec.pools.items() for index in range(pool.fewest)
        }
        super().__init__(members, credentials, spec, slurm)

    def _member(self, pool: str) -> dict[str, Any]:
        return {"cls": _Job, "options": self._options[pool]}

    async def lost(self) -> set[str]:
        queued = await _queued()
        observed = self._workers_by_name()
        up = {name for name in self.workers if name in observed}
        gone = {name for name, job in self.workers.items() if name not in up and job.job_id not in queued}
        self._seen |= {self.workers[name].job_id for name in up}
        for pool in map(_pool, up):
            self._barren[pool] = 0
        for name in gone:
            job_id = self.workers[name].job_id
            self._barren[_pool(name)] += job_id not in self._seen
            self._tell(f"Slurm job {job_id} of pool {_pool(name)!r} has ended: submitting another")
        for pool, barren in self._barren.items():
            if barren >= MAX_BARREN:
                self._give_up(pool)
        return gone

    def _give_up(self, pool: str) -> None:
        """Let the tasks that wait for the pool fail: its jobs end before a worker is up, and others would too."""
        folder = self._options[pool]["log_directory"]
        self.news.clear()
        self._tell(
            f"{self._barren[pool]} Slurm jobs of pool {pool!r} in a row ended before their worker was up: see the "
            f"newest melmill-{pool}-*.err in {folder}"
        )
        self.scheduler.no_workers_timeout = 1.0

    def adjust(self) -> None:
        busy = {name for name, worker in self._workers_by_name().items() if worker.processing}
        for name, pool in self.spec.pools.items():
            if self._barren[name] >= MAX_BARREN:
                continue
            jobs = [f"{name}-{index}" for index in range(pool.workers)]
            there = [job for job in jobs if job in self.worker_spec]
            missing = wanted_workers(pool, self.tasks.get(name, 0)) - len(there)
            for job in [job for job in jobs if job not in self.worker_spec][: max(0, missing)]:
                self.worker_spec[job] = self._member(name)
            # Those that still wait in the queue have nothing to do either.
            for job in self._idle[name].long(there, busy)[: max(0, -missing)]:
                del self.worker_spec[job]

    def _workers_by_name(self) -> dict[str, Any]:
        return {worker.name: worker for worker in self.scheduler.workers.values()}


class _Job(SLURMJob):
    async def start(self) -> None:
        try:
            await super().start()  # type: ignore[no-untyped-call]
        except FileNotFoundError as error:
            self.status = Status.failed
            raise ClusterError("cluster: type 'slurm' needs the program 'sbatch', which is not on the PATH") from error
        except RuntimeError as error:
            self.status = Status.failed
            raise ClusterError(f"cluster: Slurm refused a job of {self.job_name}: {_complaint(error)}") from error

    async def close(self) -> None:
        await super().close()  # type: ignore[no-untyped-call]
        self.status = Status.closed


def job_options(name: str, pool: Pool, slurm: Slurm, tls: Tls) -> dict[str, Any]:
    """Return what dask-jobqueue makes a pool's job scripts of."""
    asked = pool.slurm or SlurmPool(walltime="1")
    # Before the time is over a worker hands back what it has not begun; not all at the same moment.
    margin_s = min(300, asked.walltime_s // 10)
    arguments = [
        *worker_arguments(name, pool),
        *("--tls-ca-file", tls.ca, "--tls-cert", tls.cert, "--tls-key", tls.key),
        *("--lifetime", f"{asked.walltime_s - 2 * margin_s}s", "--lifetime-stagger", f"{margin_s}s"),
    ]
    exports = [f"export {variable}={shlex.quote(value)}" for variable, value in worker_environment().items()]
    return {
        "job_name": f"melmill-{name}",
        "cores": pool.threads,
        "processes": 1,
        "memory": pool.memory,
        "python": shlex.quote(slurm.python or sys.executable),
        "queue": asked.partition,
        "account": asked.account,
        "walltime": asked.walltime,
        "job_extra_directives": list(asked.directives),
        "job_script_prologue": [*exports, *slurm.prologue],
        "worker_extra_args": [shlex.quote(argument) for argument in arguments],
        "log_directory": str(_log_folder(slurm)),
        "death_timeout": DEATH_TIMEOUT_S,
    }


def _pool(job: str) -> str:
    return job.rpartition("-")[0]


async def _queued() -> set[str]:
    """Return the numbers of this user's jobs that wait or run."""
    process = await asyncio.create_subprocess_exec(
        "squeue", "--me", "--noheader", "--format=%A", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    answer, complaint = await process.communicate()
    if process.returncode != 0:
        raise OSError(f"squeue does not answer: {complaint.decode().strip()}")
    return set(answer.decode().split())


def _complaint(error: Exception) -> str:
    """Return what sbatch said, of all that dask-jobqueue says."""
    _, _, said = str(error).partition("stderr:")
    return " ".join((said or str(error)).split())
