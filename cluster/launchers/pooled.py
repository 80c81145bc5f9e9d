"""A scheduler here and workers on many machines, which are started again when they are lost."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Collection, Mapping

from distributed import Scheduler, SpecCluster

from melmill.cluster.contract import ClusterSpec, Listening, Pool
from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.scheduler import scheduler_options

# How often lost workers are replaced.
CHECK_EVERY_S = 10.0

# How long a worker without work is kept.
IDLE_S = 60.0


class PooledCluster(SpecCluster):  # type: ignore[misc]
    """An encrypted scheduler in this process, and members elsewhere that are workers or hold some.

    Parameters
    ----------
    members : mapping of str to dict
        Class and options of what to start, by name, as `SpecCluster` takes them.
    credentials : Credentials
    spec : ClusterSpec
        Where the scheduler shows its pages.
    listening : Listening
        Where the scheduler listens.

    Attributes
    ----------
    notes : deque of str
        What a person should know.
    """

    def __init__(
        self,
        members: Mapping[str, Mapping[str, object]],
        credentials: Credentials,
        spec: ClusterSpec,
        listening: Listening,
    ) -> None:
        self.notes: deque[str] = deque()
        self._supervision: asyncio.Task[None] | None = None
        security = credentials.security()
        place = {"host": listening.host, "interface": listening.interface, "port": listening.scheduler_port}
        encrypted = {"protocol": "tls://", "security": security}
        try:
            super().__init__(
                workers=dict(members),
                scheduler={"cls": Scheduler, "options": {**place, **encrypted, **scheduler_options(spec)}},
                security=security,
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            raise ClusterError(
                f"cluster: no scheduler can listen at {listening.host or listening.interface or 'this host'}, port "
                f"{listening.scheduler_port}: {error}"
            ) from error
        self.loop.add_callback(self._start_supervision)

    async def lost(self) -> set[str]:
        """Return the names of members that ended by themselves and must be started again."""
        return set()

    def adjust(self) -> None:
        """Change `worker_spec` to the wanted members, where a cluster grows and shrinks."""

    def note(self, text: str) -> None:
        """Add a note that nobody has taken yet."""
        if text not in self.notes:
            self.notes.append(text)

    async def _start_supervision(self) -> None:
        self._supervision = asyncio.create_task(self._supervise())

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            try:
                for name in await self.lost():
                    member = self.workers.pop(name, None)
                    if member is not None:
                        await member.close()
                self.adjust()
                # Cut short, it would leave members half started, which nothing ends.
                await asyncio.shield(self._correct_state())
            except (ClusterError, OSError, RuntimeError) as error:
                self.note(str(error))

    async def _close(self) -> None:
        if self._supervision is not None:
            self._supervision.cancel()
        await super()._close()


def wanted_workers(pool: Pool, tasks: int) -> int:
    """Return how many workers a pool should have for a number of unfinished tasks."""
    return max(pool.fewest, min(pool.workers, math.ceil(tasks / pool.threads)))


class IdleTimes:
    """Measure how long workers have had nothing to do."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def expired(self, names: Collection[str], busy: Collection[str]) -> list[str]:
        """Return those of `names` that no call within `IDLE_S` found busy, the last one first."""
        now = time.monotonic()
        self._since = {name: self._since.get(name, now) for name in names if name not in busy}
        return [name for name in reversed(list(self._since)) if now - self._since[name] >= IDLE_S]
