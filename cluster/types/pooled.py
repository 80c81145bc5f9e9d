"""A cluster of many machines whose workers may be lost, and are started again.

- How many workers a pool should have, and which of them have nothing to do.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from distributed import Scheduler, SpecCluster

from melmill.cluster.blocks import Slurm, Ssh
from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.scheduler import scheduler_options
from melmill.cluster.spec import ClusterSpec, Pool

# How often lost workers are looked for.
TEND_EVERY_S = 10.0


class PooledCluster(SpecCluster):  # type: ignore[misc]
    """A scheduler in this process, encrypted, and workers that some launcher's `members` start elsewhere.

    Parameters
    ----------
    members : mapping of str to dict
        Class and options of what to start, by name, as `SpecCluster` takes them.
    credentials : Credentials
    spec : ClusterSpec
        Says where the scheduler shows its pages.
    block : Ssh or Slurm
        Says where the scheduler listens.

    Attributes
    ----------
    news : deque of str
        What a person should know.
    """

    def __init__(
        self,
        members: Mapping[str, dict[str, Any]],
        credentials: Credentials,
        spec: ClusterSpec,
        block: Ssh | Slurm,
    ) -> None:
        self.news: deque[str] = deque()
        self._tending: asyncio.Task[None] | None = None
        security = credentials.security()
        listening = {"host": block.host, "interface": block.interface, "port": block.scheduler_port}
        encrypted = {"protocol": "tls://", "security": security}
        try:
            super().__init__(
                workers=dict(members),
                scheduler={"cls": Scheduler, "options": {**listening, **encrypted, **scheduler_options(spec)}},
                security=security,
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            raise ClusterError(
                f"cluster: no scheduler can listen at {block.host or block.interface or 'this host'}, port "
                f"{block.scheduler_port}: {error}"
            ) from error
        self.loop.add_callback(self._begin)

    async def lost(self) -> set[str]:
        """Return the names of members that have ended by themselves and are to be started again."""
        return set()

    def adjust(self) -> None:
        """Change `worker_spec` to what there should be; launchers that grow and shrink do."""

    async def _begin(self) -> None:
        self._tending = asyncio.create_task(self._tend())

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_EVERY_S)
            try:
                for name in await self.lost():
                    member = self.workers.pop(name, None)
                    if member is not None:
                        await member.close()
                self.adjust()
                # Cut short, it would leave members half started that nobody ends.
                await asyncio.shield(self._correct_state())
            except (ClusterError, OSError, RuntimeError) as error:
                self._tell(str(error))

    def _tell(self, text: str) -> None:
        if text not in self.news:
            self.news.append(text)

    async def _close(self) -> None:
        if self._tending is not None:
            self._tending.cancel()
        await super()._close()


# For how long a worker without work is kept.
IDLE_S = 60.0


def wanted_workers(pool: Pool, tasks: int) -> int:
    """Return how many workers a pool should have for so many unfinished tasks."""
    return max(pool.fewest, min(pool.workers, math.ceil(tasks / pool.threads)))


class Idle:
    """Remember since when workers have had nothing to do."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def long(self, names: Collection[str], busy: Collection[str]) -> list[str]:
        """Return those of `names` that were not busy for a while, whenever asked; the last of them first."""
        now = time.monotonic()
        self._since = {name: self._since.get(name, now) for name in names if name not in busy}
        return [name for name in reversed(list(self._since)) if now - self._since[name] >= IDLE_S]
