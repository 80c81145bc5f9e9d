"""A cluster that runs already, by its scheduler's address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from melmill.cluster.connect import join
from melmill.cluster.contract import ClusterSpec, RunningCluster
from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.settings import ALLOWED_FAILURES, as_environment

if TYPE_CHECKING:
    from distributed import Client

CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True, kw_only=True)
class Address(ClusterSpec):
    """A cluster that somebody else started. It is left as it was.

    Parameters
    ----------
    address : str
        Scheduler's address (``tcp://host:8786``, ``tls://host:8786``).
    """

    type: ClassVar[str] = "address"
    owns_workers: ClassVar[bool] = False
    scheduler_here: ClassVar[bool] = False

    address: str = field(metadata={"example": "tcp://127.0.0.1:8786"})

    def __post_init__(self) -> None:
        """Check that there is an address."""
        super().__post_init__()
        if not self.address:
            raise ClusterError(
                "cluster: address must be a scheduler's, such as tcp://127.0.0.1:8786, got ''", "address"
            )

    def task_resources(self, pool: str) -> dict[str, float]:
        """Return one of each resource that the pool declares: workers of others carry no others."""
        return dict.fromkeys(self.pools[pool].resources, 1)

    @contextmanager
    def launch(self, credentials: Credentials | None) -> Iterator[RunningCluster]:
        """Join the cluster, check that its workers fit the pools, yield it, leave it.

        Raises
        ------
        ClusterError
            The scheduler can't be reached, or a pool has no worker there.
        """
        try:
            client = join(self.address, credentials, CONNECT_TIMEOUT_S)
        except ConnectionError as error:
            raise ClusterError(self._unreachable(credentials, error)) from error
        with client:
            self._check_workers(client.scheduler_info(n_workers=-1)["workers"])
            yield RunningCluster(client, self, _advice(client))

    def _unreachable(self, credentials: Credentials | None, error: Exception) -> str:
        encrypted = self.address.startswith("tls://")
        if encrypted and credentials is None:
            return (
                f"cluster: {self.address!r} lets nobody in without a certificate: add security: DIR, "
                "the folder that `melmill cluster certs` made"
            )
        if credentials is not None and not encrypted:
            return f"cluster: with security the address is encrypted, got {self.address!r}: write tls://host:port"
        fix = (
            "check that it is up and that its certificate is of the same authority"
            if encrypted
            else "start one with `dask scheduler`, or use type: local"
        )
        return f"cluster: no scheduler answers at {self.address!r} within {CONNECT_TIMEOUT_S} s ({error}): {fix}"

    def _check_workers(self, workers: Mapping[str, Mapping[str, Any]]) -> None:
        if not workers:
            raise ClusterError(
                f"cluster: the scheduler at {self.address!r} has no workers: start some with "
                f"`dask worker {self.address}`"
            )
        for name, pool in self.pools.items():
            wanted = sorted(pool.resources)
            if not any(set(wanted) <= set(worker["resources"]) for worker in workers.values()):
                raise ClusterError(
                    f"cluster: pool {name!r} asks for {', '.join(wanted)}, but no worker at {self.address!r} has it: "
                    f'start one with `dask worker {self.address} --resources "{wanted[0]}=1"`'
                )


def _advice(client: Client) -> list[str]:
    """Return a warning if the scheduler's settings blame bystanders for deaths of workers."""
    import dask

    allowed = client.run_on_scheduler(dask.config.get, ALLOWED_FAILURES)
    if not allowed:
        return []
    (variable,) = as_environment({ALLOWED_FAILURES: 0})
    return [
        f"warning: the scheduler tries a task on {allowed + 1} workers before it says that they died (allowed-failures "
        f"{allowed}), so an utterance that kills its worker kills {allowed + 1} each time: start it with {variable}=0"
    ]
