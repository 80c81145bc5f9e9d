"""One compute thread a task: every library that starts threads of its own is told so."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_KERNELS = ("OPENBLAS_CORETYPE", "MKL_CBWR", "BLIS_ARCH_TYPE")


def thread_environment(threads: int) -> dict[str, str]:
    """Return the environment of a process whose numerical libraries use `threads` threads each."""
    return dict.fromkeys(_VARIABLES, str(threads))


def kernel_environment() -> dict[str, str]:
    """Return what of this environment chooses the kernels of linear algebra, which decide the last bits of results."""
    return {name: os.environ[name] for name in _KERNELS if name in os.environ}


@cache
def limit_threads(threads: int) -> None:
    """Limit the numerical libraries of this process to `threads` threads each, for good.

    Libraries that are loaded already are told; those loaded later read the environment.
    """
    _limit(threads)


@contextmanager
def threads_raised(threads: int) -> Iterator[None]:
    """Let the numerical libraries of this process use `threads` threads each within the block, and one after it."""
    _limit(threads)
    try:
        yield
    finally:
        _limit(1)


def _limit(threads: int) -> None:
    from threadpoolctl import threadpool_limits

    os.environ.update(thread_environment(threads))
    threadpool_limits(limits=threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
