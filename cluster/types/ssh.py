"""Workers on many hosts, started over SSH."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import asyncssh
from distributed import Client
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from melmill.cluster.blocks import Ssh
from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.running import RunningCluster
from melmill.cluster.settings import settings
from melmill.cluster.spec import ClusterSpec
from melmill.cluster.threads import kernel_environment, thread_environment
from melmill.cluster.types.host import READY
from melmill.cluster.types.pooled import PooledCluster
from melmill.cluster.workers import gpu_environment, nanny_options

CONNECT_TIMEOUT_S = 15
START_TIMEOUT_S = 120
CLOSE_TIMEOUT_S = 15

# A host that says nothing for so long is lost.
_KEEPALIVE = {"keepalive_interval": 15, "keepalive_count_max": 3}


@contextmanager
def launch(spec: ClusterSpec, credentials: Credentials | None) -> Iterator[RunningCluster]:
    """Start a scheduler here and the pools' workers on their hosts; yield the cluster, end it.

    Raises
    ------
    ClusterError
        A host can't be reached or logged in to, has no melmill, or can't reach the scheduler.
    """
    ssh = spec.ssh
    if ssh is None or credentials is None:
        raise ClusterError("cluster: type 'ssh' needs the block ssh: {hosts: [node1, node2]} and certificates")
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    with (
        _SshCluster(spec, ssh, credentials) as cluster,
        Client(cluster, set_as_default=False, security=cluster.security) as client,
    ):
        yield RunningCluster(client, spec, cluster.news)


def workers_by_host(spec: ClusterSpec, ssh: Ssh) -> dict[str, list[dict[str, Any]]]:
    """Spread each pool over its hosts, one worker at a time; return the options of each host's workers."""
    hosts: dict[str, list[dict[str, Any]]] = {}
    for name, pool in spec.pools.items():
        places = pool.ssh.hosts if pool.ssh is not None else ssh.hosts
        for index in range(pool.workers):
            options = nanny_options(name, index, pool)
            options["env"] = {**options["env"], **gpu_environment(name, index // len(places))}
            hosts.setdefault(places[index % len(places)], []).append(options)
    return hosts


class _SshCluster(PooledCluster):
    def __init__(self, spec: ClusterSpec, ssh: Ssh, credentials: Credentials) -> None:
        common = {
            "settings": settings(spec),
            "environment": {**thread_environment(1), **kernel_environment()},
            "credentials": asdict(credentials),
        }
        members = {
            host: {"cls": _Host, "options": {"host": host, "ssh": ssh, "orders": {**common, "workers": workers}}}
            for host, workers in workers_by_host(spec, ssh).items()
        }
        super().__init__(members, credentials, spec, ssh)

    async def lost(self) -> set[str]:
        gone = {name for name, host in self.workers.items() if host.ended}
        for name in gone:
            self._tell(f"host {name!r} is lost ({self.workers[name].last_words}): trying to start its workers again")
        return gone


class _Host(ProcessInterface):  # type: ignore[misc]
    """A process on a host that holds its workers; it lives as long as the connection."""

    def __init__(self, scheduler: str, *, name: str, host: str, ssh: Ssh, orders: dict[str, Any]) -> None:
        super().__init__(scheduler=scheduler, name=name)
        self.host = host
        self.ssh = ssh
        self.orders = {**orders, "scheduler": scheduler}
        self._connection: asyncssh.SSHClientConnection | None = None
        self._process: asyncssh.SSHClientProcess[str] | None = None
        self._errors: deque[str] = deque(maxlen=20)
        self._reading: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the process is gone, or never was."""
        return self._process is None or self._process.exit_status is not None or self._process.is_closing()

    @property
    def last_words(self) -> str:
        """The last line that the host printed."""
        return next((line for line in reversed(self._errors) if line.strip()), "it said nothing").strip()

    async def start(self) -> None:
        try:
            await self._connect()
            await asyncio.wait_for(self._start_workers(), START_TIMEOUT_S)
        except BaseException as error:
            await self._disconnect()
            self.status = Status.failed
            if isinstance(error, (OSError, asyncssh.Error, TimeoutError)):
                raise ClusterError(self._explained(error)) from error
            raise
        await super().start()

    async def close(self) -> None:
        if self._process is not None and not self.ended:
            with suppress(OSError, asyncssh.Error, TimeoutError):
                self._process.stdin.write_eof()
                await asyncio.wait_for(self._process.wait_closed(), CLOSE_TIMEOUT_S)
        await self._disconnect()
        await super().close()

    async def _connect(self) -> None:
        given = {
            "port": self.ssh.port,
            "username": self.ssh.user,
            "client_keys": self.ssh.key and [self.ssh.key],
            "known_hosts": self.ssh.known_hosts,
        }
        options = {name: value for name, value in given.items() if value is not None}
        self._connection = await asyncssh.connect(
            self.host, connect_timeout=CONNECT_TIMEOUT_S, login_timeout=CONNECT_TIMEOUT_S, **_KEEPALIVE, **options
        )

    async def _start_workers(self) -> None:
        assert self._connection is not None
        command = shlex.join([self.ssh.python or sys.executable, "-m", "melmill.cluster.types.host"])
        self._process = process = await self._connection.create_process(command)
        process.stdin.write(json.dumps(self.orders) + "\n")
        self._reading = asyncio.create_task(self._listen(process))
        if (await process.stdout.readline()).strip() != READY:
            await process.wait_closed()
            await self._reading
            raise ClusterError(
                f"cluster: host {self.host!r} could not start its workers with {command!r}: {self.last_words}"
            )

    async def _listen(self, process: asyncssh.SSHClientProcess[str]) -> None:
        """Keep the last lines of what the host prints; unread, they would stop it."""
        with suppress(OSError, asyncssh.Error):
            async for line in process.stderr:
                self._errors.append(line)

    async def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            with suppress(OSError, asyncssh.Error):
                await self._connection.wait_closed()

    def _explained(self, error: Exception) -> str:
        user = f"{self.ssh.user}@" if self.ssh.user else ""
        port = f" -p {self.ssh.port}" if self.ssh.port else ""
        reason = str(error) or type(error).__name__
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            reason = "its key is not among the known hosts"
        elif isinstance(error, asyncssh.PermissionDenied):
            reason = "it does not let this user in"
        elif isinstance(error, ConnectionRefusedError):
            reason = "no SSH server listens there"
        elif isinstance(error, TimeoutError):
            reason = f"no answer in {CONNECT_TIMEOUT_S if self._process is None else START_TIMEOUT_S} s"
        return (
            f"cluster: host {self.host!r} can't be had over SSH: {' '.join(reason.split())}; "
            f"see that `ssh{port} {user}{self.host}` works without a password"
        )
