"""The span that Dask counts a run's tasks in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

SPAN = "melmill"


@contextmanager
def one_span() -> Iterator[None]:
    """Count the tasks that are submitted in the block in one span.

    Outside of any, a scheduler makes a new one whenever it has run dry, and keeps them all.
    """
    from distributed import span

    with span(SPAN):
        yield
