"""A cluster that runs already, by its scheduler's address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client

from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.running import RunningCluster, join
from melmill.cluster.settings import ALLOWED_FAILURES, as_environment
from melmill.cluster.spec import ClusterSpec

CONNECT_TIMEOUT_S = 10


@contextmanager
def launch(spec: ClusterSpec, credentials: Credentials | None) -> Iterator[RunningCluster]:
    """Find the cluster, check that its workers fit the pools, yield it, leave it as it was.

    Raises
    ------
    ClusterError
        The scheduler can't be reached, or no worker of a pool is there.
    """
    try:
        client = join(str(spec.address), credentials, CONNECT_TIMEOUT_S)
    except ConnectionError as error:
        raise ClusterError(_unreachable(spec, credentials, error)) from error
    with client:
        _check_resources(client.scheduler_info(n_workers=-1)["workers"], spec)
        yield RunningCluster(client, spec, _advice(client))


def _unreachable(spec: ClusterSpec, credentials: Credentials | None, error: Exception) -> str:
    encrypted = str(spec.address).startswith("tls://")
    if encrypted and credentials is None:
        return (
            f"cluster: {spec.address!r} lets nobody in without a certificate: add security: DIR, "
            "the folder that `melmill cluster certs` made"
        )
    if credentials is not None and not encrypted:
        return f"cluster: with security the address is encrypted, got {spec.address!r}: write tls://host:port"
    fix = (
        "see that it is up and that its certificate is of the same authority"
        if encrypted
        else "start one with `dask scheduler`, or use type: local"
    )
    return f"cluster: no scheduler answers at {spec.address!r} within {CONNECT_TIMEOUT_S} s ({error}): {fix}"


def _check_resources(workers: Mapping[str, Mapping[str, Any]], spec: ClusterSpec) -> None:
    if not workers:
        raise ClusterError(
            f"cluster: the scheduler at {spec.address!r} has no workers: start some with `dask worker {spec.address}`"
        )
    for name, pool in spec.pools.items():
        wanted = sorted(pool.resources)
        if not any(set(wanted) <= set(worker["resources"]) for worker in workers.values()):
            raise ClusterError(
                f"cluster: pool {name!r} asks for {', '.join(wanted)}, but no worker at {spec.address!r} has it: "
                f'start one with `dask worker {spec.address} --resources "{wanted[0]}=1"`'
            )


def _advice(client: Client) -> list[str]:
    """Say what of a scheduler that others started does not fit: Dask blames bystanders for the deaths of workers."""
    allowed = client.run_on_scheduler(dask.config.get, ALLOWED_FAILURES)
    if not allowed:
        return []
    (variable,) = as_environment({ALLOWED_FAILURES: 0})
    return [
        f"warning: the scheduler tries a task on {allowed + 1} workers before it says that they died (allowed-failures "
        f"{allowed}), so an utterance that kills its worker kills {allowed + 1} each time: start it with {variable}=0"
    ]
