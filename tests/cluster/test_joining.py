"""Addresses at which something other than a scheduler listens."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from benchmarks.faults.processes import Process
from melmill.cluster.connect import connected, join
from melmill.cluster.contract import Pool
from melmill.cluster.errors import ClusterError
from melmill.cluster.types.address import Address
from tests.cluster.processes import environment, free_port, python, server


@contextmanager
def stranger(says: bytes) -> Iterator[str]:
    """Yield the address of a server that sends something to whoever connects, and then nothing."""
    door = socket.create_server(("127.0.0.1", 0))
    guests: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                guests.append(door.accept()[0])
                guests[-1].sendall(says)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{door.getsockname()[1]}"
    finally:
        door.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in [door, *guests]:
            one.close()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melmill.cluster.types.address.CONNECT_TIMEOUT_S", 1)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b"", "the server there said nothing in 1 s"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "Unable to allocate"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "said nothing in 1 s"),
        ((1 << 20).to_bytes(8, "little") + bytes(10), "said nothing in 1 s"),
        ((16).to_bytes(8, "little") + bytes(range(16)), ""),
    ],
)
def test_a_stranger_is_no_scheduler(says: bytes, reason: str) -> None:
    with stranger(says) as address:
        spec = Address(address=address, pools={"cpu": Pool()})
        with pytest.raises(ClusterError) as caught, connected(spec):
            pass
    told = str(caught.value)
    assert told.startswith(f"cluster: no scheduler answers at '{address}' within 1 s (")
    assert reason in told
    assert told.endswith("start one with `dask scheduler`, or use type: local")
    assert "\n" not in told


def test_nobody_is_no_stranger() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionError, match=f"^Timed out trying to connect to {address} after 1 s$"):
        join(address, None, 1)


def test_waiting_for_a_stranger_is_left_by_ctrl_c(tmp_path: Path) -> None:
    program = "import sys; from melmill.cluster.connect import join; print('begins'); join(sys.argv[1], None, 60)"
    with stranger(b"") as address:
        log = tmp_path / "log"
        caller = Process([sys.executable, "-uc", program, address], tmp_path, log, environment())
        try:
            caller.until(lambda: "begins" in caller.said)
            time.sleep(0.5)
            caller.signal(signal.SIGINT)
            assert caller.exit_code(timeout_s=30) == -signal.SIGINT
        finally:
            caller.end()
    assert "KeyboardInterrupt" in caller.said


def test_a_worker_is_no_scheduler(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    address = f"tcp://127.0.0.1:{port}"
    scheduler = python("-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard")
    place = free_port()
    options = ["--no-nanny", "--no-dashboard", "--worker-port", str(place)]
    worker = python("-m", "distributed.cli.dask_worker", address, *options)
    with (
        server(scheduler, log, lambda: b"Scheduler at" in log.read_bytes()),
        server(worker, tmp_path / "worker", lambda: b"Registered to" in (tmp_path / "worker").read_bytes()),
    ):
        with pytest.raises(ConnectionError, match=r"^it is the address of a worker$"):
            join(f"tcp://127.0.0.1:{place}", None, 5)

        async def in_a_loop() -> None:
            join(address, None, 5).close()

        asyncio.run(in_a_loop())


LEFT = """\
import gc
from distributed import Client
from melmill.cluster.connect import join
for address in ("tls://127.0.0.1:1", "http://127.0.0.1:1", "tcp://127.0.0.1:1"):
    try:
        join(address, None, 0.5)
    except ConnectionError as error:
        print(error)
print("clients:", sum(type(one) is Client for one in gc.get_objects()))
"""


def test_who_is_refused_leaves_no_client_behind() -> None:
    done = subprocess.run(python("-c", LEFT), env=environment(), capture_output=True, text=True, check=True)
    *refusals, last = done.stdout.splitlines()
    assert len(refusals) == 3, done.stdout
    assert last == "clients: 0"
