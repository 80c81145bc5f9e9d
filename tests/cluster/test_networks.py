"""A cluster of several hosts, each a network namespace of its own with an SSH server."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest
from distributed import Client

from melmill.cluster.connect import connected
from melmill.cluster.settings import SCHEDULER
from melmill.cluster.types.ssh import Ssh, SshOptions, SshPool
from tests.cluster.conftest import on
from tests.cluster.networks import Host, hosts
from tests.cluster.processes import free_port, needs, wait_until
from tests.cluster.sshd import make_keys, sshd
from tests.flows.conftest import Project

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SshOptions, Sequence[Host]]]:
    needs("sshd", "ssh-keygen", "ip", root=True)
    keys = make_keys(tmp_path_factory.mktemp("ssh"))
    port = free_port()
    with hosts(2) as (here, made), ExitStack() as stack:
        for host in made:
            stack.enter_context(sshd(keys, host.address, port, host.inside))
        names = tuple(host.address for host in made)
        yield (
            SshOptions(hosts=names, port=port, user=keys.user, key=keys.key, known_hosts=keys.known_hosts, host=here),
            made,
        )


def by_host(client: Client) -> dict[str, str]:
    """Return where each worker listens, by its name."""
    workers = client.scheduler_info(n_workers=-1)["workers"].items()
    return {worker["name"]: address.removeprefix("tls://").rpartition(":")[0] for address, worker in workers}


@pytest.mark.slow
def test_a_pipeline_on_two_hosts_makes_the_bytes_of_a_serial_run(
    project: Project, undisturbed: dict[str, str], network: tuple[SshOptions, Sequence[Host]]
) -> None:
    ssh, _ = network
    project.write(
        on(
            f"{{type: ssh, ssh: {{hosts: [{', '.join(ssh.hosts)}], port: {ssh.port}, user: {ssh.user}, "
            f"key: {ssh.key}, known_hosts: {ssh.known_hosts}, host: {ssh.host}}}, pools: {{cpu: {{workers: 2}}}}}}"
        )
    )
    assert project.run()["tasks"]["failed"] == 0
    assert project.bytes() == undisturbed


@pytest.mark.slow
def test_a_host_that_is_cut_off_costs_no_task_and_comes_back(
    network: tuple[SshOptions, Sequence[Host]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh, (first, second) = network
    # As in real runs, only sooner.
    monkeypatch.setattr("melmill.cluster.launchers.pooled.CHECK_EVERY_S", 0.5)
    monkeypatch.setattr("melmill.cluster.launchers.ssh._KEEPALIVE", {"keepalive_interval": 1, "keepalive_count_max": 3})
    monkeypatch.setattr("melmill.cluster.launchers.ssh.CLOSE_TIMEOUT_S", 1)
    monkeypatch.setitem(SCHEDULER, "distributed.scheduler.worker-ttl", "5s")
    with connected(Ssh(ssh=ssh, pools={"cpu": SshPool(workers=2)})) as cluster:
        client = cluster.client
        assert by_host(client) == {"cpu-0": first.address, "cpu-1": second.address}
        for address in client.scheduler_info(n_workers=-1)["workers"]:
            assert_asks_for_a_certificate(address)
        long = [client.submit(time.sleep, 4, resources={"pool-cpu": 1}, key=f"long-{i}", pure=False) for i in range(2)]
        wait_until(
            lambda: len(client.processing()) == 2 and all(client.processing().values()), "both hosts are at work"
        )
        second.unplug()
        try:
            wait_until(lambda: list(by_host(client).values()) == [first.address], "the host is missed")
            wait_until(lambda: all(future.done() for future in long), "its task is told of")
            # One task's worker is reported dead, and the task is tried again. The other host's task
            # goes on.
            assert sorted(future.status for future in long) == ["error", "finished"]
            wait_until(
                lambda: any(f"host {second.address!r}" in text for text in cluster.take_notes()), "it is told of"
            )
        finally:
            second.plug_in()
        wait_until(lambda: second.address in by_host(client).values(), "the host is back")
        assert client.submit(sum, [1, 2], workers=["cpu-1"]).result(30) == 3


def assert_asks_for_a_certificate(address: str) -> None:
    """Connect to a worker's port across the network as a stranger would."""
    host, _, port = address.removeprefix("tls://").rpartition(":")
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((host, int(port)), 5) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
        stranger.wrap_socket(plain) as encrypted,
    ):
        encrypted.recv(1)
