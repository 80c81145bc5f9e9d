"""Workers as Slurm jobs, by dask-jobqueue."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from distributed import Client
from distributed.core import Status
from distributed.scheduler import WorkerState

from melmill.cluster.contract import ClusterSpec, Listening, RunningCluster
from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.launchers.pooled import IdleTimes, PooledCluster, wanted_workers

_handler = signal.getsignal(signal.SIGINT)
from dask_jobqueue.slurm import SLURMJob  # noqa: E402

# dask-jobqueue takes ctrl-C for itself when it is imported.
signal.signal(signal.SIGINT, _handler)

# Jobs of a pool in a row that may end before their worker was up.
MAX_FAILED_STARTS = 3


@contextmanager
def launch(
    spec: ClusterSpec, listening: Listening, credentials: Credentials, options: Mapping[str, Mapping[str, object]]
) -> Iterator[RunningCluster]:
    """Start a scheduler here and submit the pools' jobs; yield the cluster, cancel its jobs.

    Parameters
    ----------
    options : mapping of str to mapping
        Options of ``SLURMJob`` by pool.
    """
    with (
        _SlurmCluster(spec, listening, credentials, options) as cluster,
        Client(cluster, set_as_default=False, security=cluster.security) as client,
    ):
        yield _RunningSlurm(client, spec, cluster)


class _RunningSlurm(RunningCluster):
    def __init__(self, client: Client, spec: ClusterSpec, cluster: _SlurmCluster) -> None:
        super().__init__(client, spec, cluster.notes)
        self.cluster = cluster

    def adapt(self, tasks: Mapping[str, int]) -> None:
        self.cluster.tasks = dict(tasks)


class _SlurmCluster(PooledCluster):
    def __init__(
        self,
        spec: ClusterSpec,
        listening: Listening,
        credentials: Credentials,
        options: Mapping[str, Mapping[str, object]],
    ) -> None:
        self.spec = spec
        self.tasks: dict[str, int] = {}
        self._options = options
        # By pool: jobs in a row that ended before their worker was up.
        self._failed_starts: Counter[str] = Counter()
        # Numbers of the jobs whose worker was up.
        self._seen: set[str] = set()
        self._idle = {name: IdleTimes() for name in spec.pools}
        members = {
            f"{name}-{index}": self._member(name) for name, pool in spec.pools.items() for index in range(pool.fewest)
        }
        super().__init__(members, credentials, spec, listening)

    def _member(self, pool: str) -> dict[str, object]:
        return {"cls": _Job, "options": self._options[pool]}

    async def lost(self) -> set[str]:
        queued = await _queued()
        observed = self._workers_by_name()
        up = {name for name in self.workers if name in observed}
        gone = {name for name, job in self.workers.items() if name not in up and job.job_id not in queued}
        self._seen |= {self.workers[name].job_id for name in up}
        for pool in map(_pool, up):
            self._failed_starts[pool] = 0
        for name in gone:
            job_id = self.workers[name].job_id
            self._failed_starts[_pool(name)] += job_id not in self._seen
            self.note(f"Slurm job {job_id} of pool {_pool(name)!r} has ended: submitting another")
        for pool, n_failed in self._failed_starts.items():
            if n_failed >= MAX_FAILED_STARTS:
                self.notes.clear()
                self.note(
                    f"{n_failed} Slurm jobs of pool {pool!r} in a row ended before their worker was up: "
                    f"see the newest melmill-{pool}-*.err in {self._options[pool]['log_directory']}"
                )
                # No worker will come, so the tasks that wait for one fail.
                self.scheduler.no_workers_timeout = 1.0
        return gone

    def adjust(self) -> None:
        busy = {name for name, worker in self._workers_by_name().items() if worker.processing}
        for name, pool in self.spec.pools.items():
            if self._failed_starts[name] >= MAX_FAILED_STARTS:
                continue
            jobs = [f"{name}-{index}" for index in range(pool.workers)]
            submitted = [job for job in jobs if job in self.worker_spec]
            missing = wanted_workers(pool, self.tasks.get(name, 0)) - len(submitted)
            for job in [job for job in jobs if job not in self.worker_spec][: max(0, missing)]:
                self.worker_spec[job] = self._member(name)
            # Jobs that still wait in the queue are idle as well.
            for job in self._idle[name].expired(submitted, busy)[: max(0, -missing)]:
                del self.worker_spec[job]

    def _workers_by_name(self) -> dict[str, WorkerState]:
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
            # The message of sbatch is within that of dask-jobqueue.
            reason = str(error).partition("stderr:")[2] or str(error)
            raise ClusterError(
                f"cluster: Slurm refused a job of {self.job_name}: {' '.join(reason.split())}"
            ) from error

    async def close(self) -> None:
        await super().close()  # type: ignore[no-untyped-call]
        self.status = Status.closed


def _pool(job: str) -> str:
    return job.rpartition("-")[0]


async def _queued() -> set[str]:
    """Return the numbers of this user's jobs that wait or run."""
    process = await asyncio.create_subprocess_exec(
        "squeue", "--me", "--noheader", "--format=%A", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise OSError(f"squeue does not answer: {errors.decode().strip()}")
    return set(output.decode().split())
