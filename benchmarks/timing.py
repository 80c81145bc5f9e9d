"""Times of contenders that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median


def in_turns(
    contenders: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the median time of each contender by a clock, s.

    A first round, which compiles and fills caches, does not count.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, contender in contenders.items():
            started = clock()
            contender()
            if turn:
                taken[name].append(clock() - started)
    return {name: median(times) for name, times in taken.items()}
