"""A cluster of many machines whose workers may be lost, and are started again."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

from distributed import Scheduler, SpecCluster

from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError

# How often lost workers are looked for.
TEND_EVERY_S = 10.0


class PooledCluster(SpecCluster):  # type: ignore[misc]
    """A scheduler in this process, encrypted, and workers that some launcher's `members` start elsewhere.

    Parameters
    ----------
    members : mapping of str to dict
        Class and options of what to start, by name, as `SpecCluster` takes them.
    credentials : Credentials
    host, interface : str or None
        Where the scheduler listens; None for where this machine's traffic leaves it.
    port : int
        Of the scheduler; 0 for any that is free.
    http : mapping of str to str or bool
        Where it shows pages and metrics: options of a Dask scheduler.

    Attributes
    ----------
    news : deque of str
        What a person should know.
    """

    def __init__(
        self,
        members: Mapping[str, dict[str, Any]],
        credentials: Credentials,
        *,
        host: str | None,
        interface: str | None,
        port: int,
        http: Mapping[str, Any],
    ) -> None:
        self.news: deque[str] = deque()
        self._tending: asyncio.Task[None] | None = None
        security = credentials.security()
        listening = {"host": host, "interface": interface, "port": port, "protocol": "tls://", "security": security}
        try:
            super().__init__(
                workers=dict(members),
                scheduler={"cls": Scheduler, "options": {**listening, **http}},
                security=security,
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            raise ClusterError(
                f"cluster: no scheduler can listen at {host or interface or 'this host'}, port {port}: {error}"
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
