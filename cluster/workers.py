"""What a worker of a pool is given, by whichever launcher starts it."""

from __future__ import annotations

import logging
from typing import Any

from melmill.cluster.settings import ALLOCATOR, HTTP, WORKER, as_environment
from melmill.cluster.spec import ClusterSpec, Pool
from melmill.cluster.threads import kernel_environment, thread_environment

PRELOAD = "melmill.cluster.worker_setup"


def pool_resources(name: str, pool: Pool, spec: ClusterSpec) -> dict[str, float]:
    """Return the Dask resources that a task of the pool asks for.

    On a cluster that melmill starts, each worker carries a resource named after its pool; on a running one
    only what the pool declares is asked for.
    """
    if spec.type == "address":
        return dict.fromkeys(pool.resources, 1)
    return {f"pool-{name}": 1}


def nanny_options(name: str, index: int, pool: Pool) -> dict[str, Any]:
    """Return the options of the nanny of a pool's worker, plain values all."""
    return {
        "nthreads": pool.threads,
        "memory_limit": pool.memory or "auto",
        "resources": _resources(name, pool),
        "env": thread_environment(1),
        "name": f"{name}-{index}",
        "preload": [PRELOAD],
        **HTTP,
        "silence_logs": logging.CRITICAL,
    }


def worker_arguments(name: str, pool: Pool) -> list[str]:
    """Return what follows ``dask worker ADDRESS`` for a pool's worker, besides its name, threads and memory."""
    resources = ",".join(f"{resource}={amount:g}" for resource, amount in _resources(name, pool).items())
    return [
        "--resources",
        resources,
        "--preload",
        PRELOAD,
        "--no-dashboard",
        "--dashboard-address",
        HTTP["dashboard_address"],
    ]


def worker_environment() -> dict[str, str]:
    """Return the environment of a worker that is started by ``dask worker``."""
    return {
        **thread_environment(1),
        **kernel_environment(),
        **{name: str(value) for name, value in ALLOCATOR.items()},
        **as_environment(WORKER),
    }


def _resources(name: str, pool: Pool) -> dict[str, float]:
    return {f"pool-{name}": pool.threads, **pool.resources}
