"""A Dask client from a `cluster:` block."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from melmill.cluster.dashboard import scheduler_options
from melmill.cluster.spec import ClusterError, ClusterSpec, Pool
from melmill.cluster.threads import thread_environment

if TYPE_CHECKING:
    from distributed import Client

CONNECT_TIMEOUT_S = 10

_MIB = 2**20

# A killed worker is replaced by its nanny, and each death is told at once: the executor has its own count of attempts.
# A worker that can't be started again must not leave tasks waiting for ever. Dask's own trim threshold of 64 KiB makes
# every freed array go back to the system, to be faulted in again for the next.
_SETTINGS = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 256 * _MIB,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * _MIB,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.no-workers-timeout": "120s",
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.scheduler.work-stealing": False,
    "distributed.comm.timeouts.tcp": "30s",
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.admin.log-length": 100,
}


def pool_resources(name: str, pool: Pool, spec: ClusterSpec) -> dict[str, float]:
    """Return the Dask resources that a task of the pool asks for.

    On a cluster that melmill starts, each worker carries a resource named after its pool; on a running one
    only what the pool declares is asked for.
    """
    if spec.type == "local":
        return {f"pool-{name}": 1}
    return dict.fromkeys(pool.resources, 1)


@contextmanager
def connected(spec: ClusterSpec) -> Iterator[Client]:
    """Start or find the cluster and yield a client; whatever was started ends with the block.

    Raises
    ------
    ClusterError
        The scheduler can't be reached, or no worker of a pool is there.
    """
    import dask
    import distributed  # noqa: F401 - it sets up its loggers when imported

    # What goes wrong is told in one line by whoever uses the client.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set(_SETTINGS):
        if spec.type == "address":
            with _running(spec) as client:
                yield client
        else:
            with _local(spec) as client:
                yield client


@contextmanager
def _running(spec: ClusterSpec) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(spec.address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except OSError as error:
        raise ClusterError(
            f"cluster: no scheduler answers at {spec.address!r} within {CONNECT_TIMEOUT_S} s ({error}): "
            "start one with `dask scheduler`, or use type: local"
        ) from error
    with client:
        _check_resources(client.scheduler_info(n_workers=-1)["workers"], spec)
        yield client


def _check_resources(workers: Mapping[str, Mapping[str, Any]], spec: ClusterSpec) -> None:
    if not workers:
        raise ClusterError(
            f"cluster: the scheduler at {spec.address!r} has no workers: start some with `dask worker {spec.address}`"
        )
    for name, pool in spec.pools.items():
        wanted = sorted(pool.resources)
        if not any(set(wanted) <= set(worker["resources"]) for worker in workers.values()):
            raise ClusterError(
                f"cluster: pool {name!r} asks for {', '.join(wanted)}, but no worker at {spec.address!r} has it: "
                f'start one with `dask worker {spec.address} --resources "{wanted[0]}=1"`'
            )


@contextmanager
def _local(spec: ClusterSpec) -> Iterator[Client]:
    from distributed import Client, Nanny, Scheduler, SpecCluster

    workers = {
        f"{name}-{index}": {
            "cls": Nanny,
            "options": {
                "nthreads": pool.threads,
                "memory_limit": pool.memory or "auto",
                "resources": {f"pool-{name}": pool.threads, **pool.resources},
                "env": thread_environment(1),
                "name": f"{name}-{index}",
                "preload": ["melmill.cluster.worker_setup"],
                "dashboard": False,
                "silence_logs": logging.CRITICAL,
            },
        }
        for name, pool in spec.pools.items()
        for index in range(pool.workers)
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, **scheduler_options(spec)}}
    with (
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
