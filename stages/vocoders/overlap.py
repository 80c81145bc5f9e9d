"""Batches in three steps, so that the host works on some while the device works on another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

Batch = TypeVar("Batch")
Prepared = TypeVar("Prepared")
Computed = TypeVar("Computed")
Finished = TypeVar("Finished")


def overlapped(
    batches: Sequence[Batch],
    prepare: Callable[[Batch], Prepared],
    compute: Callable[[Prepared], Computed],
    finish: Callable[[Computed], Finished],
    turn: AbstractContextManager[None],
) -> list[Finished]:
    """Return what becomes of batches, computed one after the other in this thread.

    While one is computed, a thread prepares the next and another finishes the one before; the first is prepared before
    the turn comes, and the last finished after it. What any of the steps raises is raised here.

    Parameters
    ----------
    batches : sequence
    prepare, compute, finish : callable
        Steps of a batch. `compute` may return before a device is done: at most two batches are with it then.
    turn : context manager
        Held while batches are computed.
    """
    finished: list[Future[Finished]] = []
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(1) as behind:
        prepared = [ahead.submit(prepare, batch) for batch in batches[:1]]
        with turn:
            for index in range(len(batches)):
                ready = prepared.pop().result()
                prepared += [ahead.submit(prepare, batch) for batch in batches[index + 1 : index + 2]]
                if index > 1:
                    finished[index - 2].result()
                finished.append(behind.submit(finish, compute(ready)))
    return [one.result() for one in finished]
