"""From a `cluster:` block to a running cluster, and from an address to its client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from melmill.cluster.contract import ClusterSpec, RunningCluster
from melmill.cluster.credentials import Credentials, load_credentials
from melmill.cluster.errors import require_packages
from melmill.cluster.settings import settings

if TYPE_CHECKING:
    from distributed import Client, Security

# Dask's own error for a silent address comes when its time is over; this waits a little longer.
_GRACE_S = 1.0


def check_available(spec: ClusterSpec) -> None:
    """Check a cluster's packages and certificates before anything is started.

    Raises
    ------
    ClusterError
        A package is missing, or a certificate can't be used.
    """
    require_packages(spec.packages, spec.requirement, f"cluster: type {spec.type!r}")
    if spec.security is not None:
        load_credentials(spec.security)


@contextmanager
def connected(spec: ClusterSpec) -> Iterator[RunningCluster]:
    """Start or find the cluster and yield it. What was started ends with the block.

    Raises
    ------
    ClusterError
        A package or a certificate is missing, or a host, queue or scheduler does not answer.
    """
    import dask
    import distributed  # noqa: F401 - it sets up its loggers when imported

    check_available(spec)
    # The caller reports errors in one line.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    credentials = None
    if spec.security is not None:
        credentials = load_credentials(spec.security)
    elif spec.encrypted:
        from melmill.cluster.authority import temporary  # needs cryptography

        credentials = temporary()
    with dask.config.set(settings(adaptive=spec.adaptive)), spec.launch(credentials) as cluster:
        yield cluster


def join(address: str, credentials: Credentials | None, timeout_s: float) -> Client:
    """Return a client of the scheduler at an address.

    Raises
    ------
    ConnectionError
        No scheduler answers there in time, or it refuses the client. The message says why in one
        line.
    """
    from distributed import Client, Security
    from distributed.utils import LoopRunner

    security = credentials.security() if credentials else Security()
    try:
        # In a loop of its own: a caller, such as a notebook, may be in one already.
        kind = str(LoopRunner().run_sync(_identify, address, security, timeout_s))
        if kind == "Scheduler":
            return Client(address, timeout=timeout_s, set_as_default=False, security=security)
    except TimeoutError as error:
        raise ConnectionError(str(error) or f"the server there said nothing in {timeout_s:g} s") from error
    # A server that is no scheduler may answer anything.
    except Exception as error:
        raise ConnectionError(" ".join(str(error).split())) from error
    raise ConnectionError(f"it is the address of a {kind.lower()}")


async def _identify(address: str, security: Security, timeout_s: float) -> str:
    """Return the kind of Dask server at an address.

    A client waits without limit for a greeting. One that failed halfway blocks the next client when
    it is garbage collected. So a client is made only after a scheduler has answered here.
    """
    from distributed import rpc

    connection_args = security.get_connection_args("client")
    limit = asyncio.timeout(timeout_s + _GRACE_S)
    async with limit, rpc(address, timeout=timeout_s, connection_args=connection_args) as peer:
        answer = await peer.identity()
    return str(answer["type"])
