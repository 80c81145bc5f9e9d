"""Workers on many hosts, started over SSH."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from melmill.cluster.contract import (
    MAX_PORT,
    ClusterSpec,
    Listening,
    Pool,
    RunningCluster,
    one_worker_per_core,
)
from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.process import kernel_environment, thread_environment
from melmill.cluster.settings import settings
from melmill.cluster.workers import gpu_environment, nanny_options

_HOST = re.compile(r"[A-Za-z0-9][\w.,@+:/-]*")


@dataclass(frozen=True, kw_only=True)
class SshOptions(Listening):
    """Hosts whose workers are started over SSH.

    Parameters
    ----------
    hosts : tuple of str
        Names or addresses. Pools are spread over them unless a pool names its own.
    python : str or None
        Interpreter on the hosts that has melmill. None for the path of this one.
    port : int or None
        Of the hosts' SSH servers. None for what ``~/.ssh/config`` says, or 22.
    user, key, known_hosts : str or None
        Who logs in, with which private key, and the file of trusted host keys. None for SSH's own
        defaults.
    """

    hosts: tuple[str, ...]
    python: str | None = None
    port: int | None = None
    user: str | None = None
    key: str | None = None
    known_hosts: str | None = None

    def __post_init__(self) -> None:
        """Check that hosts are named, once each, and that ports are in range."""
        super().__post_init__()
        _check_hosts(self.hosts)
        if self.port is not None and not 1 <= self.port <= MAX_PORT:
            raise ClusterError(f"ssh: port must be in [1, {MAX_PORT}], got {self.port!r}", "port")


@dataclass(frozen=True, kw_only=True)
class SshPoolOptions:
    """Where a pool's workers are started over SSH.

    Parameters
    ----------
    hosts : tuple of str
        The cluster's hosts that the pool is spread over.
    """

    hosts: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that hosts are named, once each."""
        _check_hosts(self.hosts)


@dataclass(frozen=True, kw_only=True)
class SshPool(Pool):
    """A pool whose workers may be bound to some of the hosts.

    Parameters
    ----------
    ssh : SshPoolOptions or None
        None spreads the pool over all hosts.
    """

    ssh: SshPoolOptions | None = None


@dataclass(frozen=True, kw_only=True)
class Ssh(ClusterSpec):
    """A scheduler on this machine, and workers on many hosts that are started over SSH.

    Parameters
    ----------
    ssh : SshOptions
    """

    type: ClassVar[str] = "ssh"
    encrypted: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("asyncssh", "cryptography")
    requirement: ClassVar[str] = "melmill[ssh]"

    ssh: SshOptions = field(metadata={"example": "{hosts: [node1, node2]}"})
    pools: Mapping[str, SshPool] = field(default_factory=lambda: one_worker_per_core(SshPool))

    def __post_init__(self) -> None:
        """Check that pools name only hosts of the cluster."""
        super().__post_init__()
        known = self.ssh.hosts
        for name, pool in self.pools.items():
            unknown = sorted(set(pool.ssh.hosts) - set(known)) if pool.ssh else []
            if unknown:
                raise ClusterError(
                    f"cluster: pool {name!r} names the host {unknown[0]!r}, which is not among ssh: hosts: "
                    f"{', '.join(known)}",
                    "pools",
                )

    @contextmanager
    def launch(self, credentials: Credentials | None) -> Iterator[RunningCluster]:
        """Start a scheduler here and the pools' workers on their hosts; yield the cluster, end it.

        Raises
        ------
        ClusterError
            A host can't be reached or logged in to, has no melmill, or can't reach the scheduler.
        """
        from melmill.cluster.launchers.ssh import launch  # needs asyncssh

        assert credentials is not None
        ssh = self.ssh
        # asyncssh has defaults of its own for what is not given.
        given = {
            "port": ssh.port,
            "username": ssh.user,
            "client_keys": ssh.key and [ssh.key],
            "known_hosts": ssh.known_hosts,
        }
        orders = {
            "settings": settings(adaptive=self.adaptive),
            "environment": {**thread_environment(1), **kernel_environment()},
            "credentials": asdict(credentials),
        }
        with launch(
            self,
            ssh,
            credentials,
            login={name: value for name, value in given.items() if value is not None},
            python=ssh.python or sys.executable,
            orders={host: {**orders, "workers": workers} for host, workers in self.workers_by_host().items()},
        ) as cluster:
            yield cluster

    def workers_by_host(self) -> dict[str, list[dict[str, Any]]]:
        """Return the options of each host's workers, spreading each pool over its hosts in turn."""
        hosts: dict[str, list[dict[str, Any]]] = {}
        for name, pool in self.pools.items():
            places = pool.ssh.hosts if pool.ssh is not None else self.ssh.hosts
            for index in range(pool.workers):
                options = nanny_options(name, index, pool)
                options["env"] = {**options["env"], **gpu_environment(name, index // len(places))}
                hosts.setdefault(places[index % len(places)], []).append(options)
        return hosts


def _check_hosts(hosts: Iterable[str]) -> None:
    hosts = list(hosts)
    bad = [host for host in hosts if not _HOST.fullmatch(host)]
    twice = sorted({host for host in hosts if hosts.count(host) > 1})
    if not hosts or bad or twice:
        got = f"{bad[0]!r}" if bad else f"{twice[0]!r} twice" if twice else "none"
        raise ClusterError(f"ssh: hosts must be names or addresses of hosts, each once, got {got}", "hosts")
