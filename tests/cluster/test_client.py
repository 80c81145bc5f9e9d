"""Clusters from their declaration: what is refused, and what a started one is like."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from dask.utils import key_split

from melmill.cluster.client import connected
from melmill.cluster.errors import ClusterError
from melmill.cluster.scheduler import EVERY, keep_tidy
from melmill.cluster.settings import SPAN, one_span
from melmill.cluster.spec import ClusterSpec, Pool
from melmill.cluster.threads import thread_environment
from melmill.cluster.workers import gpu_environment, pool_resources


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "address"}, "type 'address' needs the field 'address'"),
        ({"address": "tcp://127.0.0.1:1"}, "address 'tcp://127.0.0.1:1' is for type 'address'"),
        ({"pools": {}}, "at least one pool is needed"),
    ],
)
def test_a_cluster_that_can_not_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        ClusterSpec(**fields)  # type: ignore[arg-type]


def test_a_running_cluster_is_asked_only_for_what_a_pool_declares() -> None:
    pool = Pool(resources={"GPU": 4})
    address = ClusterSpec(type="address", address="tcp://127.0.0.1:1", pools={"gpu": pool})
    assert pool_resources("gpu", pool, address) == {"GPU": 1}
    assert pool_resources("cpu", Pool(), address) == {}
    assert pool_resources("gpu", pool, ClusterSpec(pools={"gpu": pool})) == {"pool-gpu": 1}


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, ["0", "1", "2"]), ("4,GPU-7", ["4", "GPU-7", ""]), ("", ["", "", ""])],
)
def test_workers_of_a_gpu_pool_see_a_gpu_each(given: str | None, expected: list[str]) -> None:
    assert [gpu_environment("gpu", index, given)["CUDA_VISIBLE_DEVICES"] for index in range(3)] == expected
    assert gpu_environment("cpu", 0) == {}


def listening() -> set[str]:
    """Return the addresses at which this process and those that it started listen."""
    here = psutil.Process()
    connections = [one for process in (here, *here.children(recursive=True)) for one in process.net_connections("inet")]
    return {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}


def test_a_local_cluster_has_its_pools_one_thread_a_library_and_leaves_nothing_behind() -> None:
    spec = ClusterSpec(pools={"cpu": Pool(workers=1), "gpu": Pool(workers=1, threads=2, resources={"GPU": 1})})
    with connected(spec) as cluster:
        client = cluster.client
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        assert {worker["name"]: worker["resources"] for worker in workers} == {
            "cpu-0": {"pool-cpu": 1},
            "gpu-0": {"pool-gpu": 2, "GPU": 1},
        }
        pids = {}
        for name, pool in spec.pools.items():
            resources = pool_resources(name, pool, spec)
            threads = client.submit(os.getenv, "OMP_NUM_THREADS", resources=resources, pure=False)
            assert threads.result() == "1"
            pids[name] = client.submit(os.getpid, resources=resources, pure=False).result()
        assert len({os.getpid(), *pids.values()}) == 3
        gpus = client.submit(os.getenv, "CUDA_VISIBLE_DEVICES", resources={"pool-gpu": 1}, pure=False)
        assert gpus.result() == os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        assert listening() == {"127.0.0.1"}
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


def test_a_scheduler_forgets_tasks_that_come_and_go() -> None:
    with connected(ClusterSpec(pools={"cpu": Pool(workers=1)})) as cluster, one_span():
        client = cluster.client
        keep_tidy(client)
        for i in range(4 * EVERY):
            # One at a time: each is a new group of its name, as the last one of that name is over.
            assert client.submit(abs, -i, key=f"node{i % 4}-{i}").result() == i
        spans = client.cluster.scheduler.extensions["spans"]
        assert [span.name for span in spans.spans.values()] == [(SPAN,)]
        (span,) = spans.spans.values()
        assert len(span.groups) <= EVERY + 1
        assert len(span.metadata["collections"]) <= EVERY + 1
        assert key_split.cache_info().currsize <= 4 * EVERY


def test_workers_do_what_is_registered_for_their_end(tmp_path: Path) -> None:
    with connected(ClusterSpec(pools={"cpu": Pool(workers=1)})) as cluster:
        cluster.client.run(atexit.register, (tmp_path / "ended").touch)
        (worker,) = cluster.client.scheduler_info()["workers"].values()
        scratch = Path(worker["local_directory"])
        assert scratch.exists()
    assert (tmp_path / "ended").exists()
    assert not scratch.exists()


def test_libraries_loaded_later_are_limited_too() -> None:
    program = (
        "import sys; from melmill.cluster.threads import limit_threads; limit_threads(1)\n"
        "import numpy, scipy.linalg, threadpoolctl\n"
        "numbers = [pool['num_threads'] for pool in threadpoolctl.threadpool_info()]\n"
        "sys.exit(not numbers or max(numbers) > 1)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in thread_environment(1)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
