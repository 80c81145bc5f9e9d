"""A cluster that is up: where tasks are sent, how many it has room for, and what it has to tell.

- A client of a scheduler that somebody else started.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from distributed import Client, Security, rpc
from distributed.utils import LoopRunner

from melmill.cluster.credentials import Credentials
from melmill.cluster.spec import ClusterSpec
from melmill.cluster.workers import pool_resources

if TYPE_CHECKING:
    from distributed import Client

# How often the scheduler is asked for its workers.
LOOK_EVERY_S = 2.0


class RunningCluster:
    """Send tasks through `client`; ask `slots` how many of a pool may be under way.

    Parameters
    ----------
    client : Client
    spec : ClusterSpec
    news : deque of str
        What a person should know; launchers add to it.
    """

    def __init__(self, client: Client, spec: ClusterSpec, news: Iterable[str] = ()) -> None:
        self.client = client
        self.spec = spec
        self.news = news if isinstance(news, deque) else deque(news)
        self._workers: list[Mapping[str, Any]] = []
        self._looked_s = float("-inf")

    def slots(self, pool: str) -> int:
        """Return how many tasks of a pool can run now, on the workers that are there.

        Dask hands tasks that are bound to a pool to its workers at once, however few: handing out more than these can
        run would keep workers that come later idle, and a worker that dies would take many tasks with it.
        """
        declared = self.spec.pools[pool]
        if self.spec.type == "local":
            return declared.slots
        wanted = pool_resources(pool, declared, self.spec)
        return min(declared.slots, sum(_room(worker, wanted) for worker in self._look()))

    def demand(self, tasks: Mapping[str, int]) -> None:
        """Hear how many tasks of each pool are unfinished; clusters that grow and shrink act on it."""

    def told(self) -> Iterator[str]:
        """Yield what has happened since the last call."""
        while self.news:
            yield self.news.popleft()

    def _look(self) -> list[Mapping[str, Any]]:
        now = time.monotonic()
        if now - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now
            try:
                self._workers = list(self.client.scheduler_info(n_workers=-1)["workers"].values())
            except OSError:
                # A lost scheduler shows at the tasks in flight.
                self._workers = []
        return self._workers


def _room(worker: Mapping[str, Any], wanted: Mapping[str, float]) -> int:
    if not wanted:
        return int(worker["nthreads"])
    return int(min(worker["resources"].get(name, 0) / amount for name, amount in wanted.items()))


# Where nobody listens at all, Dask says so when the time is over.
_GRACE_S = 1.0


def join(address: str, credentials: Credentials | None, timeout_s: float) -> Client:
    """Return a client of the scheduler at an address.

    Raises
    ------
    ConnectionError
        No scheduler answers there in time, or it does not let us in; says in one line why.
    """
    security = credentials.security() if credentials else Security()
    try:
        # In a loop of its own: a caller, such as a notebook, may be in one already.
        who = str(LoopRunner().run_sync(_asked, address, security, timeout_s))
        if who == "Scheduler":
            return Client(address, timeout=timeout_s, set_as_default=False, security=security)
    except TimeoutError as error:
        raise ConnectionError(str(error) or f"who listens there said nothing in {timeout_s:g} s") from error
    # What is no scheduler may answer anything.
    except Exception as error:
        raise ConnectionError(" ".join(str(error).split())) from error
    raise ConnectionError(f"it is the address of a {who.lower()}")


async def _asked(address: str, security: Security, timeout_s: float) -> str:
    """Ask who listens at an address.

    A client waits without limit for a greeting, and one that failed halfway locks up the next when it is collected as
    that begins: so none is made before it is sure to succeed.
    """
    connection_args = security.get_connection_args("client")
    limit = asyncio.timeout(timeout_s + _GRACE_S)
    async with limit, rpc(address, timeout=timeout_s, connection_args=connection_args) as peer:
        answer = await peer.identity()
    return str(answer["type"])
