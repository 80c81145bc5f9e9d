"""Dask's settings wherever melmill runs it."""

from __future__ import annotations

from collections.abc import Mapping

_MIB = 2**20

ALLOWED_FAILURES = "distributed.scheduler.allowed-failures"

# Dask's own trim threshold of 64 KiB gives every freed array back to the system, which must then
# provide its pages anew for the next array.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": 256 * _MIB, "MALLOC_MMAP_THRESHOLD_": 32 * _MIB}

# Dask's HTTP servers of metrics and health use no certificates, so they listen on loopback alone.
LOOPBACK_HTTP_ADDRESS = "127.0.0.1:0"
LOOPBACK_HTTP: Mapping[str, bool | str] = {"dashboard": False, "dashboard_address": LOOPBACK_HTTP_ADDRESS}

# A killed worker is replaced. Dask reports each death at once: the executor counts attempts itself.
SCHEDULER = {
    ALLOWED_FAILURES: 0,
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.scheduler.work-stealing": False,
}
# Dask's profiler reads the stacks of all its processes a hundred times a second, which slows
# workers. All its servers, among them a nanny for each worker, also measure fifty times a second
# how fast they answer.
WORKER = {
    "distributed.comm.timeouts.tcp": "30s",
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.log-length": 100,
}


def settings(*, adaptive: bool) -> dict[str, object]:
    """Return Dask's settings for a process that runs a scheduler or workers.

    Parameters
    ----------
    adaptive : bool
        Whether the cluster's workers come and go. Tasks then wait for workers without limit.
    """
    # Dask closes a nanny for good that has no worker 15 s after one died, even if another died just
    # then. Launchers replace lost workers themselves.
    patient = {"distributed.deploy.lost-worker-timeout": "1000 days"}
    allocator = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in ALLOCATOR.items()}
    # Where no worker can be started again, tasks fail after a while. A queue of jobs may be long.
    patience = None if adaptive else "120s"
    return {**SCHEDULER, **WORKER, **patient, **allocator, "distributed.scheduler.no-workers-timeout": patience}


def as_environment(values: Mapping[str, object]) -> dict[str, str]:
    """Return settings as environment variables that Dask reads.

    >>> as_environment({"distributed.scheduler.worker-ttl": "60s"})
    {'DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL': '60s'}
    """
    return {f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": str(value) for name, value in values.items()}
