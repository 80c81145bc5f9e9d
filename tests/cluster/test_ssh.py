"""Clusters over SSH, with a real server on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from distributed import Client

from melmill.cluster.connect import connected
from melmill.cluster.errors import ClusterError
from melmill.cluster.types.ssh import Ssh, SshOptions, SshPool, SshPoolOptions
from tests.cluster.processes import environment, needs, python, wait_until
from tests.cluster.sshd import Keys, make_keys, sshd

HOSTS = "127.0.0.1"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    needs("sshd", "ssh-keygen", root=True)
    return make_keys(tmp_path_factory.mktemp("ssh"))


@pytest.fixture(scope="module")
def ssh(keys: Keys) -> Iterator[SshOptions]:
    with sshd(keys) as port:
        yield SshOptions(
            hosts=(HOSTS,), port=port, user=keys.user, key=keys.key, known_hosts=keys.known_hosts, host="127.0.0.1"
        )


def supervisors() -> set[int]:
    """Return the processes that hold a host's workers, started by SSH servers of this test."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "melmill.cluster.launchers.ssh_host" in process.cmdline():
                found.add(process.pid)
    return found


def workers_there(client: Client) -> set[str]:
    """Return the addresses of the workers that the scheduler knows."""
    return set(client.scheduler_info(n_workers=-1)["workers"])


def test_pools_are_spread_over_their_hosts() -> None:
    ssh = SshOptions(hosts=("a", "b", "g"))
    pools = {
        "cpu": SshPool(workers=5),
        "gpu": SshPool(workers=2, resources={"GPU": 1}, ssh=SshPoolOptions(hosts=("g",))),
    }
    hosts = Ssh(ssh=ssh, pools=pools).workers_by_host()
    assert {host: [worker["name"] for worker in workers] for host, workers in hosts.items()} == {
        "a": ["cpu-0", "cpu-3"],
        "b": ["cpu-1", "cpu-4"],
        "g": ["cpu-2", "gpu-0", "gpu-1"],
    }
    assert [worker["env"].get("CUDA_VISIBLE_DEVICES") for worker in hosts["g"]] == [None, "0", "1"]


@pytest.mark.cluster
def test_workers_are_as_declared_and_come_back(ssh: SshOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melmill.cluster.launchers.pooled.CHECK_EVERY_S", 0.5)
    spec = Ssh(ssh=ssh, pools={"cpu": SshPool(), "gpu": SshPool(threads=2, memory="1GiB", resources={"GPU": 1})})
    with connected(spec) as cluster:
        client = cluster.client
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        assert {worker["name"]: worker["resources"] for worker in workers} == {
            "cpu-0": {"pool-cpu": 1},
            "gpu-0": {"pool-gpu": 2, "GPU": 1},
        }
        assert {worker["memory_limit"] for worker in workers if worker["name"] == "gpu-0"} == {2**30}
        assert (cluster.slots("cpu"), cluster.slots("gpu")) == (1, 2)
        threads = client.submit(os.getenv, "NUMBA_NUM_THREADS", resources={"pool-gpu": 1}, pure=False)
        assert threads.result() == "1"
        # Only a worker: its nanny starts another.
        before = workers_there(client)
        killed = client.submit(os.getpid, resources={"pool-gpu": 1}, pure=False).result()
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(before & workers_there(client)) == 1, "the killed worker is noticed")
        wait_until(lambda: len(workers_there(client)) == 2, "another takes its place")
        # The whole host.
        (supervisor,) = supervisors()
        gone = workers_there(client)
        for process in [psutil.Process(supervisor), *psutil.Process(supervisor).children(recursive=True)]:
            process.kill()
        wait_until(lambda: not gone & workers_there(client), "the lost host is noticed")
        wait_until(lambda: len(workers_there(client)) == 2, "its workers are started again")
        assert client.submit(os.getpid, resources={"pool-cpu": 1}, pure=False, key="later").result() > 0
        assert any("host '127.0.0.1' is lost" in text for text in cluster.take_notes())
    assert not supervisors()


@pytest.mark.slow
@pytest.mark.cluster
def test_nothing_stays_on_a_host_when_the_client_is_killed(ssh: SshOptions, tmp_path: Path) -> None:
    program = tmp_path / "client.py"
    program.write_text(
        "import time\n"
        "from melmill.cluster.connect import connected\n"
        "from melmill.cluster.types.ssh import Ssh, SshOptions, SshPool\n"
        f"with connected(Ssh(ssh={ssh!r}, pools={{'cpu': SshPool()}})):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(python(str(program)), env=environment(), stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
        left = [
            process for pid in supervisors() for process in [psutil.Process(pid), *psutil.Process(pid).children(True)]
        ]
        assert len(left) > 2
        client.kill()
    wait_until(lambda: not any(process.is_running() for process in left), "the host's processes end")


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("port", 1, "can't be reached over SSH: no SSH server listens there"),
        ("user", "nobody-of-that-name", "it does not let this user in; check that `ssh -p .* nobody-of-that-name@127"),
        ("known_hosts", "/dev/null", "its key is not among the known hosts"),
        (
            "python",
            "/no/such/python",
            "could not start its workers with '/no/such/python -m melmill.cluster.+ssh_host'",
        ),
        ("hosts", ("no.such.host.invalid",), "host 'no.such.host.invalid' can't be reached over SSH"),
    ],
)
def test_a_host_that_can_not_be_had_is_named(ssh: SshOptions, field: str, value: object, message: str) -> None:
    spec = Ssh(ssh=replace(ssh, **{field: value}), pools={"cpu": SshPool()})  # type: ignore[arg-type]
    started = time.monotonic()
    with pytest.raises(ClusterError, match=message) as caught, connected(spec):
        pass
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 60
