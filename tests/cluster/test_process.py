"""Limits on threads that last for a block."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from melmill.cluster.process import thread_environment, threads_limited


def _pools() -> dict[str, int]:
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}


def _interrupted() -> None:
    with threads_limited(1):
        assert set(_pools().values()) == {1}
        assert (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]) == ("1", "1")
        raise KeyboardInterrupt


def test_a_limit_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    np.zeros(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with threadpool_limits(limits=2):
        environment, pools = dict(os.environ), _pools()
        assert set(pools.values()) == {2}
        with pytest.raises(KeyboardInterrupt):
            _interrupted()
        assert dict(os.environ) == environment
        assert _pools() == pools


def test_libraries_loaded_in_the_block_are_as_if_loaded_after_it() -> None:
    program = (
        "import sys; from melmill.cluster.process import threads_limited\n"
        "with threads_limited(1):\n"
        "    import numpy, threadpoolctl\n"
        "    inside = [pool['num_threads'] for pool in threadpoolctl.threadpool_info()]\n"
        "after = [pool['num_threads'] for pool in threadpoolctl.threadpool_info()]\n"
        "sys.exit((set(inside), set(after)) != ({1}, {2}))"
    )
    environment = {**os.environ, **thread_environment(2)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


FAULTS = """
import resource, sys
from melmill.cluster.process import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [bytearray(20 << 20) for _ in range(3)]
    del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(pages(), pages())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone keeps memory")
def test_freed_memory_is_kept_for_the_next_arrays() -> None:
    def pages(how: str, **settings: str) -> list[int]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | settings
        command = [sys.executable, "-c", FAULTS, how]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return [int(count) for count in done.stdout.split()]

    first, again = pages("kept")
    assert again < 0.1 * first
    first, again = pages("as usual")
    assert again > 0.5 * first
    first, again = pages("kept", MALLOC_TRIM_THRESHOLD_="4096")
    assert again > 0.5 * first


@pytest.mark.slow
@pytest.mark.parametrize("first", ["before", "in"])
def test_numba_compiles_and_keeps_its_threads(first: str) -> None:
    program = (
        "import sys; from melmill.cluster.process import threads_limited\n"
        "def summed(n):\n"
        "    import numba\n"
        "    @numba.njit(parallel=True)\n"
        "    def function(n):\n"
        "        total = 0\n"
        "        for i in numba.prange(n):\n"
        "            total += i\n"
        "        return total\n"
        "    return function(n), numba.get_num_threads()\n"
        "got = [summed(10)] if sys.argv[1] == 'before' else []\n"
        "with threads_limited(1):\n"
        "    got += [summed(10)]\n"
        "got += [summed(10)]\n"
        "sys.exit({*got} != {(45, 2)})"
    )
    environment = {**os.environ, **thread_environment(2)}
    done = subprocess.run([sys.executable, "-c", program, first], env=environment, check=False)
    assert done.returncode == 0
