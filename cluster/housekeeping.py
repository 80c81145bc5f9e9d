"""Keep a scheduler's memory from growing with the number of tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask.utils import key_split
from distributed.diagnostics.plugin import SchedulerPlugin

from melmill.cluster.spans import SPAN

if TYPE_CHECKING:
    from distributed import Client, Scheduler

# Tasks forgotten between two looks.
EVERY = 64


class SpanPruner(SchedulerPlugin):  # type: ignore[misc]
    """Let go of what is over.

    Dask makes a group for all tasks of one name and forgets it with the last of them, but the span that it belongs to
    keeps it for its statistics, and a word on every graph that was submitted. Streamed in a small window, the tasks of
    a node come and go, each time as a new group of a new graph: some 3 KiB a task. Only spans of melmill's own are
    looked at. Names of the last 100,000 tasks stay in a cache as well.
    """

    name = "melmill-housekeeping"
    idempotent = True

    def start(self, scheduler: Scheduler) -> None:
        """Begin to count."""
        self.scheduler = scheduler
        self.n_forgotten = 0

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Dask's
        """Look every so often."""
        if finish == "forgotten":
            self.n_forgotten += 1
            if self.n_forgotten % EVERY == 0:
                self.prune()

    def prune(self) -> None:
        """Do so now."""
        extension = self.scheduler.extensions.get("spans")
        groups = self.scheduler.task_groups
        for span in extension.spans_search_by_name[(SPAN,)] if extension else ():
            span.groups.intersection_update([group for group in span.groups if groups.get(group.name) is group])
            if span.metadata:
                span.metadata["collections"].clear()
        key_split.cache_clear()


def keep_tidy(client: Client) -> None:
    """Let the client's scheduler forget what is over of spans called `SPAN`.

    Raises
    ------
    ImportError
        The scheduler is a process that can't import melmill.
    """
    client.register_plugin(SpanPruner())
