"""Dask's settings wherever melmill runs it.

- The span that Dask counts a run's tasks in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from melmill.cluster.spec import ADAPTIVE, ClusterSpec

_MIB = 2**20

ALLOWED_FAILURES = "distributed.scheduler.allowed-failures"

# Dask's own trim threshold of 64 KiB makes every freed array go back to the system, to be faulted in again for the
# next.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": 256 * _MIB, "MALLOC_MMAP_THRESHOLD_": 32 * _MIB}

# Dask's small HTTP servers, of metrics and health, know nothing of certificates: they listen on loopback alone.
HTTP: dict[str, Any] = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}

# A killed worker is replaced, and each death is told at once: the executor has its own count of attempts.
SCHEDULER = {
    ALLOWED_FAILURES: 0,
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.scheduler.work-stealing": False,
}
# Dask would look at the stacks of all its processes a hundred times a second, and busy workers feel it.
WORKER = {
    "distributed.comm.timeouts.tcp": "30s",
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,
    "distributed.admin.log-length": 100,
}


def settings(spec: ClusterSpec) -> dict[str, Any]:
    """Return Dask's settings for the process that runs the scheduler of a cluster, or its workers."""
    # Dask would close a nanny for good that has no worker 15 s after one died, though another may have died just then;
    # launchers look for what is lost themselves.
    patient = {"distributed.deploy.lost-worker-timeout": "1000 days"}
    allocator = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in ALLOCATOR.items()}
    # Where a worker can't be started again, tasks must not wait for ever; a queue of jobs may be long, though.
    patience = None if spec.type in ADAPTIVE else "120s"
    return {**SCHEDULER, **WORKER, **patient, **allocator, "distributed.scheduler.no-workers-timeout": patience}


def as_environment(values: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as the environment variables that Dask reads.

    >>> as_environment({"distributed.scheduler.worker-ttl": "60s"})
    {'DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL': '60s'}
    """
    return {f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": str(value) for name, value in values.items()}


SPAN = "melmill"


@contextmanager
def one_span() -> Iterator[None]:
    """Count the tasks that are submitted in the block in one span.

    Outside of any, a scheduler makes a new one whenever it has run dry, and keeps them all.
    """
    from distributed import span

    with span(SPAN):
        yield
