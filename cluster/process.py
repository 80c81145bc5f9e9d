"""The threads and the memory of this process."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from melmill.cluster.settings import ALLOCATOR

_NUMBA = "NUMBA_NUM_THREADS"
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    _NUMBA,
)
# They choose the kernels of linear algebra, which decide the last bits of results.
_KERNELS = ("OPENBLAS_CORETYPE", "MKL_CBWR", "BLIS_ARCH_TYPE")


def thread_environment(threads: int) -> dict[str, str]:
    """Return the environment of a process whose numerical libraries use `threads` threads each."""
    return dict.fromkeys(_VARIABLES, str(threads))


def kernel_environment() -> dict[str, str]:
    """Return the variables that choose kernels, so that workers choose the same ones."""
    return {name: os.environ[name] for name in _KERNELS if name in os.environ}


@cache
def limit_threads(threads: int) -> None:
    """Limit the numerical libraries of this process to `threads` threads each, for good.

    Libraries that are loaded later read the limit from the environment.
    """
    _limit(threads, _VARIABLES)


@contextmanager
def threads_limited(threads: int) -> Iterator[None]:
    """Let the numerical libraries use `threads` threads each in the block, then as before.

    Libraries that are loaded in the block get what the environment outside of it says. Numba is
    left alone: it reads its number when it is loaded, and fails to compile if that changes later.
    Our kernels use one thread anyway.
    """
    from threadpoolctl import ThreadpoolController

    environment = {name: os.environ.get(name) for name in _VARIABLES if name != _NUMBA}
    pools = {library.filepath: library.num_threads for library in ThreadpoolController().lib_controllers}
    torch_threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    _limit(threads, environment)
    try:
        yield
    finally:
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        usual = _usual_threads()
        for library in ThreadpoolController().lib_controllers:
            library.set_num_threads(pools.get(library.filepath, usual))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(torch_threads or usual)


def _usual_threads() -> int:
    """Return how many threads a library that is loaded now would use."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    if value.isdecimal() and int(value) > 0:
        return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limit(threads: int, variables: Iterable[str]) -> None:
    from threadpoolctl import threadpool_limits

    os.environ.update(dict.fromkeys(variables, str(threads)))
    threadpool_limits(limits=threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


# Parameters of glibc's mallopt(3), by the variable that sets them in a process that begins.
_PARAMETERS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}


def keep_freed_memory() -> None:
    """Let the allocator keep what arrays free, for the next ones, as workers do; for good.

    Only glibc can. What the environment says of it holds.
    """
    if sys.platform == "linux" and not ALLOCATOR.keys() & os.environ.keys():
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for name, value in ALLOCATOR.items():
                mallopt(_PARAMETERS[name], value)


_PROC = Path("/proc/self")
# "Reset the peak resident set size" (proc(5), clear_refs).
_RESET_PEAK = "5"


def reset_peak() -> None:
    """Start a new measurement of the peak.

    Only Linux can; elsewhere the peak is the whole process's.
    """
    try:
        (_PROC / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return


def peak_bytes() -> int:
    """Return the largest resident size of this process since `reset_peak`, in bytes."""
    try:
        lines = (_PROC / "status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
