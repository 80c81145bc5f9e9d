"""The blocks of `cluster:` that only one type of cluster, or one pool of it, has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from melmill.cluster.errors import ClusterError

_WORD = re.compile(r"[A-Za-z0-9][\w.,@+:/-]*")
_WALLTIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<numbers>\d+(?::\d+){0,2})")
_DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(?:\.\d+)?(?:m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_MAX_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Certificates for mutual TLS, as files in PEM form; `melmill cluster certs` makes them.

    Parameters
    ----------
    ca : str
        Certificate of the authority that signs all others.
    cert, key : str
        This party's certificate and its private key.
    """

    ca: str
    cert: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Ssh:
    """Hosts whose workers are started over SSH.

    Parameters
    ----------
    hosts : tuple of str
        Names or addresses; pools are spread over them unless a pool names its own.
    python : str or None
        Interpreter on the hosts that has melmill; None for the path of this one.
    port : int or None
        Of the hosts' SSH servers; None for what ``~/.ssh/config`` says, or 22.
    user, key, known_hosts : str or None
        Who logs in, with which private key, and the file of host keys that are trusted; None for SSH's own defaults.
    host, interface : str or None
        Address of this machine, or its network interface, at which the hosts reach the scheduler.
    scheduler_port : int
        Port of the scheduler; 0 for any that is free.
    """

    hosts: tuple[str, ...]
    python: str | None = None
    port: int | None = None
    user: str | None = None
    key: str | None = None
    known_hosts: str | None = None
    host: str | None = None
    interface: str | None = None
    scheduler_port: int = 0

    def __post_init__(self) -> None:
        """Check that hosts are named, once each, and ports are ports."""
        _check_hosts(self.hosts, "ssh: hosts", "hosts")
        _check_listening(self.host, self.interface, "ssh")
        _check_port(self.port, "port", "ssh", least=1)
        _check_port(self.scheduler_port, "scheduler_port", "ssh", least=0)


@dataclass(frozen=True, kw_only=True)
class SshPool:
    """Where a pool's workers are started over SSH.

    Parameters
    ----------
    hosts : tuple of str
        The cluster's hosts that the pool is spread over.
    """

    hosts: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that hosts are named, once each."""
        _check_hosts(self.hosts, "ssh: hosts of a pool", "hosts")


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """How workers run as Slurm jobs.

    Parameters
    ----------
    log_folder : str
        Folder that all nodes see, for the jobs' output.
    python : str or None
        Interpreter on the nodes that has melmill; None for the path of this one.
    prologue : tuple of str
        Lines of shell before a worker starts (``module load cuda``).
    host, interface : str or None
        Address of this machine, or its network interface, at which the nodes reach the scheduler.
    scheduler_port : int
        Port of the scheduler; 0 for any that is free.
    """

    log_folder: str = "slurm-logs"
    python: str | None = None
    prologue: tuple[str, ...] = ()
    host: str | None = None
    interface: str | None = None
    scheduler_port: int = 0

    def __post_init__(self) -> None:
        """Check that the fields fit together."""
        _check_listening(self.host, self.interface, "slurm")
        _check_port(self.scheduler_port, "scheduler_port", "slurm", least=0)


@dataclass(frozen=True, kw_only=True)
class SlurmPool:
    """What Slurm is asked for by the jobs of a pool, one worker each.

    Parameters
    ----------
    walltime : str
        Time limit of a job as Slurm writes it (``08:00:00``, ``2-00:00:00``, ``90`` minutes). A worker lets go shortly
        before it ends, and another job takes its place.
    partition, account : str or None
        None for Slurm's own default.
    directives : tuple of str
        Further options of ``sbatch`` (``--gres=gpu:1``).
    """

    walltime: str
    partition: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that Slurm can read the fields and that none of them adds lines to a job script."""
        if not _WALLTIME.fullmatch(self.walltime) or not self.walltime_s:
            raise ClusterError(
                f"slurm: walltime must be a time such as '08:00:00' or '2-00:00:00', got {self.walltime!r} "
                "(in quotes, or YAML reads it as a number)",
                "walltime",
            )
        for name in ("partition", "account"):
            value = getattr(self, name)
            if value is not None and not _WORD.fullmatch(value):
                raise ClusterError(f"slurm: {name} must be a name that Slurm knows, got {value!r}", name)
        for directive in self.directives:
            if not directive.startswith("-") or "\n" in directive:
                raise ClusterError(
                    f"slurm: a directive is an option of sbatch such as '--gres=gpu:1', got {directive!r}", "directives"
                )

    @property
    def walltime_s(self) -> int:
        """Return the time limit in seconds, by Slurm's rules: m, m:s, h:m:s, d-h, d-h:m or d-h:m:s."""
        match = _WALLTIME.fullmatch(self.walltime)
        if match is None:
            return 0
        numbers = [int(number) for number in match["numbers"].split(":")]
        if match["days"] is not None:
            hours, minutes, seconds = (*numbers, 0, 0)[:3]
            return int(match["days"]) * 86400 + hours * 3600 + minutes * 60 + seconds
        if len(numbers) == 3:
            return numbers[0] * 3600 + numbers[1] * 60 + numbers[2]
        return numbers[0] * 60 + (numbers[1] if len(numbers) > 1 else 0)


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """How the cluster runs in Kubernetes, by the Dask operator.

    Parameters
    ----------
    image : str
        Container image that has melmill (see ``cluster/deploy/Dockerfile``).
    namespace : str
        Where everything is made.
    claims : dict of str to str
        Persistent volume claims and where pods see them (``corpora: /data``); corpus and store must be among them,
        unless they lie in an object store.
    secrets : tuple of str
        Secrets whose entries become environment variables of the workers (keys of an object store).
    service_account : str or None
        Of the pods; None for the namespace's default.
    """

    image: str
    namespace: str = "default"
    claims: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    service_account: str | None = None

    def __post_init__(self) -> None:
        """Check what Kubernetes would refuse."""
        if not self.image or any(c.isspace() for c in self.image):
            raise ClusterError(f"kubernetes: image must name a container image, got {self.image!r}", "image")
        names = {"namespace": (self.namespace,), "claims": tuple(self.claims), "secrets": self.secrets}
        for name, values in names.items():
            for value in values:
                if not _DNS_LABEL.fullmatch(value):
                    raise ClusterError(
                        f"kubernetes: {name} must be lower-case letters, digits and '-', got {value!r}", name
                    )
        for claim, path in self.claims.items():
            if not path.startswith("/"):
                raise ClusterError(f"kubernetes: claim {claim!r} needs an absolute path, got {path!r}", "claims")


@dataclass(frozen=True, kw_only=True)
class KubernetesPool:
    """What the pods of a pool ask Kubernetes for, one worker each.

    Parameters
    ----------
    requests, limits : dict of str to str
        Resources by name (``cpu: "1"``, ``memory: 4Gi``, ``nvidia.com/gpu: "1"``). Where neither names cpu and memory,
        they follow from the pool's threads and memory.
    node_selector : dict of str to str
        Labels of the nodes that will do.
    tolerations : tuple of str
        Taints to put up with: ``key`` or ``key=value``, whatever their effect.
    """

    requests: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that quantities are quantities."""
        for name in ("requests", "limits"):
            for resource, quantity in getattr(self, name).items():
                if not _QUANTITY.fullmatch(quantity):
                    raise ClusterError(
                        f"kubernetes: {name} of {resource!r} must be a quantity such as '2', '500m' or '4Gi', "
                        f"got {quantity!r}",
                        name,
                    )


def _check_hosts(hosts: Iterable[str], owner: str, name: str) -> None:
    hosts = list(hosts)
    bad = [host for host in hosts if not _WORD.fullmatch(host)]
    twice = sorted({host for host in hosts if hosts.count(host) > 1})
    if not hosts or bad or twice:
        got = f"{bad[0]!r}" if bad else f"{twice[0]!r} twice" if twice else "none"
        raise ClusterError(f"{owner} must be names or addresses of hosts, each once, got {got}", name)


def _check_listening(host: str | None, interface: str | None, owner: str) -> None:
    if host is not None and interface is not None:
        raise ClusterError(
            f"{owner}: host and interface both say where the scheduler listens, got {host!r} and {interface!r}: "
            "give one of them",
            "interface",
        )


def _check_port(port: int | None, name: str, owner: str, least: int) -> None:
    if port is not None and not least <= port <= _MAX_PORT:
        raise ClusterError(f"{owner}: {name} must be in [{least}, {_MAX_PORT}], got {port!r}", name)
