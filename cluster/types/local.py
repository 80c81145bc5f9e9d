"""A scheduler and workers on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, Nanny, Scheduler, SpecCluster

from melmill.cluster.credentials import Credentials
from melmill.cluster.running import RunningCluster
from melmill.cluster.scheduler import scheduler_options
from melmill.cluster.spec import ClusterSpec, Pool
from melmill.cluster.workers import VISIBLE, gpu_environment, nanny_options

LOOPBACK = "127.0.0.1"


@contextmanager
def launch(spec: ClusterSpec, credentials: Credentials | None) -> Iterator[RunningCluster]:
    """Start the cluster, yield it, end it. It listens on loopback alone, encrypted where there are credentials."""
    security = credentials and credentials.security()
    common = {"protocol": "tls://" if security else "tcp://", "security": security, "host": LOOPBACK}
    workers = {
        f"{name}-{index}": {"cls": Nanny, "options": {**common, **_options(name, index, pool)}}
        for name, pool in spec.pools.items()
        for index in range(pool.workers)
    }
    scheduler = {"cls": Scheduler, "options": {**common, "port": 0, **scheduler_options(spec)}}
    with (
        SpecCluster(workers=workers, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster, set_as_default=False, security=security) as client,
    ):
        yield RunningCluster(client, spec)


def _options(name: str, index: int, pool: Pool) -> dict[str, Any]:
    options = nanny_options(name, index, pool)
    return {**options, "env": {**options["env"], **gpu_environment(name, index, os.environ.get(VISIBLE))}}
