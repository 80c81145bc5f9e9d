"""The `cluster:` block: which cluster, and which named worker pools."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Literal

from melmill.cluster.blocks import Kubernetes, KubernetesPool, Slurm, SlurmPool, Ssh, SshPool, Tls
from melmill.cluster.errors import ClusterError

# Types that start and stop workers with the work that there is.
ADAPTIVE = ("slurm", "kubernetes")

_DASHBOARD = re.compile(r"[^\s:/]+:\d{1,5}")
_POOL_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?")
_MEMORY = re.compile(r"\d+(?:\.\d+)? ?(?:[kKMGT]i?)?B")


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A named group of equal workers.

    Parameters
    ----------
    workers : int
        Worker processes to start; for ``type: address``, how many to expect.
    min_workers : int or None
        Fewest to keep when there is less to do (``slurm`` and ``kubernetes``); None keeps all.
    threads : int
        Compute threads of one worker, each with one task at a time.
    memory : str or None
        Memory limit of one worker (``4GiB``); None shares the machine's evenly.
    resources : dict of str to float
        Dask resources of one worker. Tasks of the pool ask for one of each.
    ssh, slurm, kubernetes : block or None
        What only that type of cluster needs to know of the pool.
    """

    workers: int = 1
    min_workers: int | None = None
    threads: int = 1
    memory: str | None = None
    resources: dict[str, float] = field(default_factory=dict)
    ssh: SshPool | None = None
    slurm: SlurmPool | None = None
    kubernetes: KubernetesPool | None = None

    def __post_init__(self) -> None:
        """Check that the fields fit together."""
        if self.workers < 1 or self.threads < 1:
            raise ClusterError(
                f"a pool needs at least one worker and thread, got workers={self.workers!r}, threads={self.threads!r}",
                "workers" if self.workers < 1 else "threads",
            )
        if self.min_workers is not None and not 0 <= self.min_workers <= self.workers:
            raise ClusterError(
                f"min_workers must be in [0, {self.workers}], the number of workers, got {self.min_workers!r}",
                "min_workers",
            )
        if self.memory is not None and not _MEMORY.fullmatch(self.memory):
            raise ClusterError(f"memory must be a size such as 4GiB, got {self.memory!r}", "memory")

    @property
    def slots(self) -> int:
        """Tasks that run at the same time when all workers are there."""
        return self.workers * self.threads

    @property
    def fewest(self) -> int:
        """Workers that are kept when there is nothing to do."""
        return self.workers if self.min_workers is None else self.min_workers


def _default_pools() -> dict[str, Pool]:
    return {"cpu": Pool(workers=len(os.sched_getaffinity(0)))}


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """Where the tasks of a pipeline run.

    Parameters
    ----------
    type : {"local", "address", "ssh", "slurm", "kubernetes"}
        ``local`` starts a scheduler and workers on this machine; ``address`` uses a running cluster; the others start
        a cluster's workers on many machines.
    address : str or None
        Scheduler's address for ``type: address`` (``tcp://host:8786``, ``tls://host:8786``).
    security : Tls or str or None
        Certificates for mutual TLS, or the folder that ``melmill cluster certs`` made. Without them ``ssh``, ``slurm``
        and ``kubernetes`` make certificates for one run; ``local`` stays on this machine's loopback.
    ssh, slurm, kubernetes : block or None
        What only that type needs.
    pools : dict of str to Pool
        Worker pools by name; nodes run in ``cpu`` unless they say otherwise.
    dashboard : bool or str
        Whether a scheduler on this machine shows Dask's pages: true, at port 8787 of its loopback device or another
        where that is taken; or where, such as ``127.0.0.1:8800``. Whoever reaches them sees the run.
    """

    type: Literal["local", "address", "ssh", "slurm", "kubernetes"] = "local"
    address: str | None = None
    security: Tls | str | None = None
    ssh: Ssh | None = None
    slurm: Slurm | None = None
    kubernetes: Kubernetes | None = None
    pools: dict[str, Pool] = field(default_factory=_default_pools)
    dashboard: bool | str = False

    def __post_init__(self) -> None:
        """Check that the fields fit together."""
        if self.type == "address" and not self.address:
            raise ClusterError("cluster: type 'address' needs the field 'address', such as tcp://127.0.0.1:8786")
        if self.type != "address" and self.address:
            raise ClusterError(
                f"cluster: address {self.address!r} is for type 'address', got type {self.type!r}", "address"
            )
        if not self.pools:
            raise ClusterError("cluster: at least one pool is needed, such as pools: {cpu: {workers: 2}}", "pools")
        self._check_blocks()
        self._check_dashboard()
        for name, pool in self.pools.items():
            self._check_pool(name, pool)

    def _check_blocks(self) -> None:
        for name in ("ssh", "slurm", "kubernetes"):
            if getattr(self, name) is not None and self.type != name:
                raise ClusterError(f"cluster: the block {name!r} is for type {name!r}, got type {self.type!r}", name)
        if self.type in ("ssh", "kubernetes") and getattr(self, self.type) is None:
            example = "{hosts: [node1, node2]}" if self.type == "ssh" else "{image: registry/melmill:0.1.0}"
            raise ClusterError(f"cluster: type {self.type!r} needs the block {self.type}: {example}", "type")

    def _check_dashboard(self) -> None:
        if self.dashboard and self.type in ("address", "kubernetes"):
            raise ClusterError(
                f"cluster: dashboard is for schedulers that run on this machine, got type {self.type!r}: give it to "
                "where yours is started, such as `dask scheduler --dashboard-address 127.0.0.1:8787`",
                "dashboard",
            )
        if isinstance(self.dashboard, str) and not _DASHBOARD.fullmatch(self.dashboard):
            raise ClusterError(
                f"cluster: dashboard must be true, false or an address such as 127.0.0.1:8787, got {self.dashboard!r}",
                "dashboard",
            )

    def _check_pool(self, name: str, pool: Pool) -> None:
        where = f"cluster: pool {name!r}"
        if not _POOL_NAME.fullmatch(name):
            raise ClusterError(
                f"{where} must be called by at most 20 lower-case letters, digits and '-', none of them at an end",
                "pools",
            )
        for block in ("ssh", "slurm", "kubernetes"):
            if getattr(pool, block) is not None and self.type != block:
                raise ClusterError(f"{where} has a block {block!r}, but the type is {self.type!r}", "pools")
        if pool.min_workers is not None and self.type not in ADAPTIVE:
            raise ClusterError(
                f"{where} has min_workers, which is for {' and '.join(ADAPTIVE)}; type {self.type!r} keeps all workers",
                "pools",
            )
        if self.type in ADAPTIVE and pool.memory is None:
            raise ClusterError(f"{where} needs memory, such as 4GiB: {self.type} reserves it for each worker", "pools")
        if self.type == "slurm" and pool.slurm is None:
            raise ClusterError(f"{where} needs the block slurm: {{walltime: '08:00:00'}}", "pools")
        if self.ssh is not None and pool.ssh is not None:
            strangers = sorted(set(pool.ssh.hosts) - set(self.ssh.hosts))
            if strangers:
                raise ClusterError(
                    f"{where} names the host {strangers[0]!r}, which is not among ssh: hosts: "
                    f"{', '.join(self.ssh.hosts)}",
                    "pools",
                )
