"""Clusters from their declaration: what is refused, and what a started cluster is like."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest
from dask.utils import key_split

from melmill.cluster.connect import connected
from melmill.cluster.contract import Pool
from melmill.cluster.errors import ClusterError
from melmill.cluster.process import thread_environment
from melmill.cluster.scheduler import PRUNE_EVERY, SPAN, bound_memory, one_span
from melmill.cluster.types.address import Address
from melmill.cluster.types.local import Local
from melmill.cluster.workers import gpu_environment


def test_a_cluster_without_pools_is_refused() -> None:
    with pytest.raises(ClusterError, match="at least one pool is needed"):
        Local(pools={})


def test_a_running_cluster_is_asked_only_for_what_a_pool_declares() -> None:
    pool = Pool(resources={"GPU": 4})
    address = Address(address="tcp://127.0.0.1:1", pools={"gpu": pool, "cpu": Pool()})
    assert address.task_resources("gpu") == {"GPU": 1}
    assert address.task_resources("cpu") == {}
    assert Local(pools={"gpu": pool}).task_resources("gpu") == {"pool-gpu": 1}


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, ["0", "1", "2"]), ("4,GPU-7", ["4", "GPU-7", ""]), ("", ["", "", ""])],
)
def test_workers_of_a_gpu_pool_see_a_gpu_each(given: str | None, expected: list[str]) -> None:
    assert [gpu_environment("gpu", index, given)["CUDA_VISIBLE_DEVICES"] for index in range(3)] == expected
    assert gpu_environment("cpu", 0) == {}


def leave_a_mark(folder: Path) -> None:
    (folder / f"ended-{os.getpid()}").touch()


def listening() -> set[str]:
    """Return the addresses at which this process and those that it started listen."""
    here = psutil.Process()
    connections = [one for process in (here, *here.children(recursive=True)) for one in process.net_connections("inet")]
    return {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}


def test_a_local_cluster_has_its_pools_one_thread_a_library_and_leaves_nothing_behind(tmp_path: Path) -> None:
    spec = Local(pools={"cpu": Pool(workers=1), "gpu": Pool(workers=1, threads=2, resources={"GPU": 1})})
    with connected(spec) as cluster:
        client = cluster.client
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        assert {worker["name"]: worker["resources"] for worker in workers} == {
            "cpu-0": {"pool-cpu": 1},
            "gpu-0": {"pool-gpu": 2, "GPU": 1},
        }
        pids = {}
        for name in spec.pools:
            resources = spec.task_resources(name)
            threads = client.submit(os.getenv, "OMP_NUM_THREADS", resources=resources, pure=False)
            assert threads.result() == "1"
            pids[name] = client.submit(os.getpid, resources=resources, pure=False).result()
        assert len({os.getpid(), *pids.values()}) == 3
        gpus = client.submit(os.getenv, "CUDA_VISIBLE_DEVICES", resources={"pool-gpu": 1}, pure=False)
        assert gpus.result() == os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        assert listening() == {"127.0.0.1"}
        # Workers do what is registered for their end.
        client.run(atexit.register, partial(leave_a_mark, tmp_path))
        scratch = [Path(worker["local_directory"]) for worker in workers]
        assert all(folder.exists() for folder in scratch)
    assert not any(psutil.pid_exists(pid) for pid in pids.values())
    assert {path.name for path in tmp_path.iterdir()} == {f"ended-{pid}" for pid in pids.values()}
    assert not any(folder.exists() for folder in scratch)


def test_a_scheduler_forgets_tasks_that_come_and_go() -> None:
    with connected(Local(pools={"cpu": Pool(workers=1)})) as cluster, one_span():
        client = cluster.client
        bound_memory(client)
        for i in range(4 * PRUNE_EVERY):
            # One at a time. Each is a new group, as the last group of that name is over.
            assert client.submit(abs, -i, key=f"node{i % 4}-{i}").result() == i
        spans = client.cluster.scheduler.extensions["spans"]
        assert [span.name for span in spans.spans.values()] == [(SPAN,)]
        (span,) = spans.spans.values()
        assert len(span.groups) <= PRUNE_EVERY + 1
        assert len(span.metadata["collections"]) <= PRUNE_EVERY + 1
        assert key_split.cache_info().currsize <= 4 * PRUNE_EVERY


def test_libraries_loaded_later_are_limited_too() -> None:
    program = (
        "import sys; from melmill.cluster.process import limit_threads; limit_threads(1)\n"
        "import numpy, scipy.linalg, threadpoolctl\n"
        "numbers = [pool['num_threads'] for pool in threadpoolctl.threadpool_info()]\n"
        "sys.exit(not numbers or max(numbers) > 1)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in thread_environment(1)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
