"""What a worker of a pool is given, by whichever launcher starts it.

- One GPU a worker, where a machine has several.
- How much memory this process has needed.
"""

from __future__ import annotations

import logging
import resource
import sys
from pathlib import Path
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


GPU_POOL = "gpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpu_environment(pool: str, index: int, visible: str | None = None) -> dict[str, str]:
    """Return the environment by which a worker of the pool `gpu` sees one GPU of its machine; others see all.

    Parameters
    ----------
    pool : str
    index : int
        Of the worker among those of the pool on that machine. Where there are fewer GPUs, the last see none, and
        what needs one there says so.
    visible : str or None
        GPUs that may be seen there at all, as the variable itself names them; None: every one.
    """
    if pool != GPU_POOL:
        return {}
    if visible is None:
        return {VISIBLE: str(index)}
    names = [name for name in visible.split(",") if name]
    return {VISIBLE: names[index] if index < len(names) else ""}


_PROCESS = Path("/proc/self")
# "Reset the peak resident set size" (proc(5), clear_refs).
_RESET_PEAK = "5"


def reset_peak() -> None:
    """Let the peak count anew from here, where the system can (Linux); elsewhere it is that of the whole process."""
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return


def peak_bytes() -> int:
    """Return the largest resident size of this process since `reset_peak`, or since it began where that can't be."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
