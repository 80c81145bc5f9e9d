"""Hosts whose workers are started over SSH, by asyncssh."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import asyncssh
from distributed import Client
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from melmill.cluster.contract import ClusterSpec, Listening, RunningCluster
from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.launchers.pooled import PooledCluster
from melmill.cluster.launchers.ssh_host import READY

CONNECT_TIMEOUT_S = 15
START_TIMEOUT_S = 120
CLOSE_TIMEOUT_S = 15

# A host that is silent for so long is lost.
_KEEPALIVE = {"keepalive_interval": 15, "keepalive_count_max": 3}


@contextmanager
def launch(
    spec: ClusterSpec,
    listening: Listening,
    credentials: Credentials,
    *,
    login: Mapping[str, Any],
    python: str,
    orders: Mapping[str, Mapping[str, object]],
) -> Iterator[RunningCluster]:
    """Start a scheduler here and workers on hosts; yield the cluster, end it.

    Parameters
    ----------
    login : mapping
        Options of ``asyncssh.connect``.
    python : str
        Interpreter on the hosts.
    orders : mapping of str to mapping
        By host, what `melmill.cluster.launchers.ssh_host` reads there: ``settings``,
        ``environment``, ``credentials`` and ``workers``.
    """
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    members = {
        host: {"cls": _Host, "options": {"host": host, "login": login, "python": python, "orders": theirs}}
        for host, theirs in orders.items()
    }
    with (
        _SshCluster(members, credentials, spec, listening) as cluster,
        Client(cluster, set_as_default=False, security=cluster.security) as client,
    ):
        yield RunningCluster(client, spec, cluster.notes)


class _SshCluster(PooledCluster):
    async def lost(self) -> set[str]:
        gone = {name for name, host in self.workers.items() if host.ended}
        for name in gone:
            self.note(f"host {name!r} is lost ({self.workers[name].last_line}): trying to start its workers again")
        return gone


class _Host(ProcessInterface):  # type: ignore[misc]
    """A process on a host that holds its workers. It ends with the connection."""

    def __init__(
        self,
        scheduler: str,
        *,
        name: str,
        host: str,
        login: Mapping[str, Any],
        python: str,
        orders: Mapping[str, object],
    ) -> None:
        super().__init__(scheduler=scheduler, name=name)
        self.host = host
        self.login = login
        self.python = python
        self.orders = {**orders, "scheduler": scheduler}
        self._connection: asyncssh.SSHClientConnection | None = None
        self._process: asyncssh.SSHClientProcess[str] | None = None
        self._errors: deque[str] = deque(maxlen=20)
        self._reading: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the process has ended or never started."""
        return self._process is None or self._process.exit_status is not None or self._process.is_closing()

    @property
    def last_line(self) -> str:
        """The last line that the host printed to standard error."""
        return next((line for line in reversed(self._errors) if line.strip()), "it said nothing").strip()

    async def start(self) -> None:
        try:
            self._connection = await asyncssh.connect(
                self.host,
                connect_timeout=CONNECT_TIMEOUT_S,
                login_timeout=CONNECT_TIMEOUT_S,
                **_KEEPALIVE,
                **self.login,
            )
            await asyncio.wait_for(self._start_workers(self._connection), START_TIMEOUT_S)
        except BaseException as error:
            await self._disconnect()
            self.status = Status.failed
            if isinstance(error, (OSError, asyncssh.Error, TimeoutError)):
                raise ClusterError(self._message(error)) from error
            raise
        await super().start()

    async def close(self) -> None:
        if self._process is not None and not self.ended:
            with suppress(OSError, asyncssh.Error, TimeoutError):
                self._process.stdin.write_eof()
                await asyncio.wait_for(self._process.wait_closed(), CLOSE_TIMEOUT_S)
        await self._disconnect()
        await super().close()

    async def _start_workers(self, connection: asyncssh.SSHClientConnection) -> None:
        command = shlex.join([self.python, "-m", "melmill.cluster.launchers.ssh_host"])
        self._process = process = await connection.create_process(command)
        process.stdin.write(json.dumps(self.orders) + "\n")
        self._reading = asyncio.create_task(self._read_errors(process))
        if (await process.stdout.readline()).strip() != READY:
            await process.wait_closed()
            await self._reading
            raise ClusterError(
                f"cluster: host {self.host!r} could not start its workers with {command!r}: {self.last_line}"
            )

    async def _read_errors(self, process: asyncssh.SSHClientProcess[str]) -> None:
        """Keep the last lines that the host prints. Unread, they would block it."""
        with suppress(OSError, asyncssh.Error):
            async for line in process.stderr:
                self._errors.append(line)

    async def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            with suppress(OSError, asyncssh.Error):
                await self._connection.wait_closed()

    def _message(self, error: Exception) -> str:
        user = f"{self.login['username']}@" if "username" in self.login else ""
        port = f" -p {self.login['port']}" if "port" in self.login else ""
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
            f"cluster: host {self.host!r} can't be reached over SSH: {' '.join(reason.split())}; "
            f"check that `ssh{port} {user}{self.host}` works without a password"
        )
