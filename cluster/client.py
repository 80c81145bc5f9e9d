"""A running Dask cluster from a `cluster:` block."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from melmill.cluster.credentials import Credentials, load_credentials
from melmill.cluster.errors import require_extra
from melmill.cluster.running import RunningCluster
from melmill.cluster.settings import settings
from melmill.cluster.spec import ClusterSpec

# Types whose traffic leaves this machine: whoever reaches their scheduler could run code as this user.
_ALWAYS_ENCRYPTED = ("ssh", "slurm", "kubernetes")


def check_available(spec: ClusterSpec) -> None:
    """Check what can be checked before a cluster is started: its packages and its certificates.

    Raises
    ------
    ClusterError
        In one line, with what to do.
    """
    require_extra(spec.type, f"cluster: type {spec.type!r}")
    if spec.security is not None:
        load_credentials(spec.security)


@contextmanager
def connected(spec: ClusterSpec) -> Iterator[RunningCluster]:
    """Start or find the cluster and yield it; whatever was started ends with the block.

    Raises
    ------
    ClusterError
        The cluster can't be had: a package or a certificate is missing, or a host, queue or scheduler does not answer.
    """
    import dask
    import distributed  # noqa: F401 - it sets up its loggers when imported

    check_available(spec)
    # What goes wrong is told in one line by whoever uses the client.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    launcher = import_module(f"melmill.cluster.types.{spec.type}")
    with dask.config.set(settings(spec)), launcher.launch(spec, _credentials(spec)) as cluster:
        yield cluster


def _credentials(spec: ClusterSpec) -> Credentials | None:
    if spec.security is not None:
        return load_credentials(spec.security)
    if spec.type not in _ALWAYS_ENCRYPTED:
        return None
    from melmill.cluster.credentials import temporary

    return temporary()
