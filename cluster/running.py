"""A cluster that is up: where tasks are sent, how many it has room for, and what it has to tell."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

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
