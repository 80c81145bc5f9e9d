"""What a worker of a pool gets from its launcher: options, environment, a GPU, and its set-up."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from melmill.cluster.contract import Pool
from melmill.cluster.process import kernel_environment, thread_environment
from melmill.cluster.settings import ALLOCATOR, LOOPBACK_HTTP, LOOPBACK_HTTP_ADDRESS, WORKER, as_environment

if TYPE_CHECKING:
    from distributed import Worker

# Dask runs `dask_setup` of this module in each worker, also in one that is restarted.
PRELOAD = __name__

GPU_POOL = "gpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def nanny_options(name: str, index: int, pool: Pool) -> dict[str, Any]:
    """Return the options of the nanny of a pool's worker. JSON can hold them all."""
    return {
        "nthreads": pool.threads,
        "memory_limit": pool.memory or "auto",
        "resources": _resources(name, pool),
        "env": thread_environment(1),
        "name": f"{name}-{index}",
        "preload": [PRELOAD],
        **LOOPBACK_HTTP,
        "silence_logs": logging.CRITICAL,
    }


def worker_arguments(name: str, pool: Pool) -> list[str]:
    """Return options of ``dask worker`` for a pool's worker, besides name, threads and memory."""
    resources = ",".join(f"{resource}={amount:g}" for resource, amount in _resources(name, pool).items())
    return [
        "--resources",
        resources,
        "--preload",
        PRELOAD,
        "--no-dashboard",
        "--dashboard-address",
        LOOPBACK_HTTP_ADDRESS,
    ]


def worker_environment() -> dict[str, str]:
    """Return the environment of a worker that ``dask worker`` starts."""
    return {
        **thread_environment(1),
        **kernel_environment(),
        **{name: str(value) for name, value in ALLOCATOR.items()},
        **as_environment(WORKER),
    }


def _resources(name: str, pool: Pool) -> dict[str, float]:
    return {f"pool-{name}": pool.threads, **pool.resources}


def gpu_environment(pool: str, index: int, visible: str | None = None) -> dict[str, str]:
    """Return the environment in which a worker of the pool `gpu` sees one GPU of its machine.

    Workers of other pools see all GPUs.

    Parameters
    ----------
    pool : str
    index : int
        Of the worker among those of the pool on that machine. Where there are fewer GPUs than
        workers, the last workers see none, and stages that need one say so.
    visible : str or None
        GPUs that may be seen there at all, as the variable itself names them. None for every one.
    """
    if pool != GPU_POOL:
        return {}
    if visible is None:
        return {VISIBLE: str(index)}
    names = [name for name in visible.split(",") if name]
    return {VISIBLE: names[index] if index < len(names) else ""}


def dask_setup(worker: Worker) -> None:
    """Ignore ctrl-C, which a terminal sends to workers too: they finish their tasks first."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit.register(_leave)


def _leave() -> None:
    """End the process as soon as the other exit functions are done.

    Python would then take every module apart, which takes long with torch loaded and serves
    nothing.
    """
    atexit.unregister(_leave)
    atexit._run_exitfuncs()  # there is no other way to run the others first
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)
