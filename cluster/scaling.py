"""How many workers a pool should have, and which of them have nothing to do."""

from __future__ import annotations

import math
import time
from collections.abc import Collection

from melmill.cluster.spec import Pool

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
