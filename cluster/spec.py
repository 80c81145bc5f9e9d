"""The `cluster:` block: which cluster, and which named worker pools."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Literal

_ADDRESS = re.compile(r"[^\s:/]+:\d{1,5}")


class ClusterError(ValueError):
    """A cluster can't be had as declared."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A named group of equal workers.

    Parameters
    ----------
    workers : int
        Worker processes to start; for ``type: address``, how many to expect.
    threads : int
        Compute threads of one worker, each with one task at a time.
    memory : str or None
        Memory limit of one worker (``4GiB``); None shares the machine's evenly.
    resources : dict of str to float
        Dask resources of one worker. Tasks of the pool ask for one of each.
    """

    workers: int = 1
    threads: int = 1
    memory: str | None = None
    resources: dict[str, float] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        """Tasks that run at the same time."""
        return self.workers * self.threads


def _default_pools() -> dict[str, Pool]:
    return {"cpu": Pool(workers=len(os.sched_getaffinity(0)))}


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """Where the tasks of a pipeline run.

    Parameters
    ----------
    type : {"local", "address"}
        ``local`` starts a scheduler and workers on this machine; ``address`` uses a running cluster.
    address : str or None
        Scheduler's address for ``type: address`` (``tcp://host:8786``).
    pools : dict of str to Pool
        Worker pools by name; nodes run in ``cpu`` unless they say otherwise.
    dashboard : bool or str
        Whether a scheduler that melmill starts shows Dask's pages: true, at port 8787 of this machine's loopback device
        or another where that is taken; or where, such as ``127.0.0.1:8800``. Whoever reaches them sees the run.
    """

    type: Literal["local", "address"] = "local"
    address: str | None = None
    pools: dict[str, Pool] = field(default_factory=_default_pools)
    dashboard: bool | str = False

    def __post_init__(self) -> None:
        """Check that the fields fit together."""
        if self.type == "address" and not self.address:
            raise ClusterError("cluster: type 'address' needs the field 'address', such as tcp://127.0.0.1:8786")
        if self.type == "local" and self.address:
            raise ClusterError(f"cluster: address {self.address!r} is for type 'address', got type 'local'")
        if self.type == "address" and self.dashboard:
            raise ClusterError(
                "cluster: dashboard is for clusters that melmill starts; give yours to `dask scheduler` instead, "
                "as --dashboard-address 127.0.0.1:8787"
            )
        if isinstance(self.dashboard, str) and not _ADDRESS.fullmatch(self.dashboard):
            raise ClusterError(
                f"cluster: dashboard must be true, false or an address such as 127.0.0.1:8787, got {self.dashboard!r}"
            )
        if not self.pools:
            raise ClusterError("cluster: at least one pool is needed, such as pools: {cpu: {workers: 2}}")
        for name, pool in self.pools.items():
            if pool.workers < 1 or pool.threads < 1:
                raise ClusterError(
                    f"cluster: pool {name!r} needs at least one worker and thread, "
                    f"got workers={pool.workers!r}, threads={pool.threads!r}"
                )
