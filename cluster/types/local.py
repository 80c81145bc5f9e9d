"""A scheduler and workers on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from melmill.cluster.contract import ClusterSpec, RunningCluster
from melmill.cluster.credentials import Credentials
from melmill.cluster.workers import VISIBLE, gpu_environment, nanny_options

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Local(ClusterSpec):
    """A scheduler and workers on this machine.

    They listen on loopback alone. Their traffic is encrypted where `security` is given.
    """

    type: ClassVar[str] = "local"

    @contextmanager
    def launch(self, credentials: Credentials | None) -> Iterator[RunningCluster]:
        """Start the cluster, yield it, end it."""
        from distributed import Client, Nanny, Scheduler, SpecCluster

        from melmill.cluster.scheduler import scheduler_options  # imports Dask

        security = credentials and credentials.security()
        common = {"protocol": "tls://" if security else "tcp://", "security": security, "host": LOOPBACK}
        visible = os.environ.get(VISIBLE)
        workers = {}
        for name, pool in self.pools.items():
            for index in range(pool.workers):
                options = {**common, **nanny_options(name, index, pool)}
                options["env"] = {**options["env"], **gpu_environment(name, index, visible)}
                workers[f"{name}-{index}"] = {"cls": Nanny, "options": options}
        scheduler = {"cls": Scheduler, "options": {**common, "port": 0, **scheduler_options(self)}}
        with (
            SpecCluster(
                workers=workers, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL
            ) as cluster,
            Client(cluster, set_as_default=False, security=security) as client,
        ):
            yield _RunningLocal(client, self)


class _RunningLocal(RunningCluster):
    def slots(self, pool: str) -> int:
        """Return the slots of all workers: nannies on this machine restart a lost one at once."""
        return self.spec.pools[pool].slots
