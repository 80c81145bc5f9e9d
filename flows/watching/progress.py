"""Show progress on standard error: a bar on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from melmill.flows.planning.plan import Plan
from melmill.flows.watching.events import Event, Failed, Finished, Note, Place, Ready, Retried, Stalled, WorkerDied
from melmill.flows.watching.tally import Tally
from melmill.storage.corpus.shard_set import ShardSet

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

PLAIN_INTERVAL_S = 10.0


class Progress:
    """Show how far a run is: tasks, finished utterances, times real time, and time left.

    Parameters
    ----------
    plan : Plan
    slots : int
        Tasks that run at the same time. The time left is based on it.
    tally : Tally
        Receives every event before this does.
    """

    def __init__(self, plan: Plan, slots: int, tally: Tally) -> None:
        from rich.console import Console

        self.plan = plan
        self.slots = slots
        self.tally = tally
        self.console: Console = Console(stderr=True, highlight=False)
        self.utterances_done = 0
        # By corpus, how many tasks of each shard are left.
        self._n_left: dict[str, NDArray[np.uint16]] = {}
        for node_plan in plan.nodes.values():
            if not node_plan.node.is_whole:
                n_shards = plan.catalogues[corpus := node_plan.node.corpora[0]].n_shards
                left = self._n_left.setdefault(corpus, np.zeros(n_shards, np.uint16))
                left += ShardSet.of(node_plan.pending).sized(n_shards)
        self._bar: Bar | None = None
        self._bar_task: TaskID | None = None
        self._next_line = time.monotonic()

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            from rich.progress import BarColumn, SpinnerColumn, TextColumn
            from rich.progress import Progress as RichProgress

            columns = SpinnerColumn(), BarColumn(), TextColumn("{task.fields[line]}")
            self._bar = RichProgress(*columns, console=self.console, transient=False)
            self._bar_task = self._bar.add_task("run", total=self.plan.n_pending, line="starting workers")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.tally.total("done"):
            self.console.print(self._line(), soft_wrap=True)

    def __call__(self, event: Event) -> None:
        """Show what a person wants to know of an event."""
        match event:
            case Finished(task=task, receipt=receipt):
                if not task.is_whole:
                    self._n_left[task.corpus][task.shard] -= 1
                    if not self._n_left[task.corpus][task.shard]:
                        self.utterances_done += receipt.n_utterances
                self._show()
            case Failed(task=task, error=error, place=place):
                self.note(f"failed: {task}{_on(place)}: {type(error).__name__}: {error}")
                self._show()
            case Retried(task=task, reason=reason, place=place):
                self.note(f"{task}{_on(place)}: {reason}; trying again")
            case WorkerDied(task=task, again=again, reason=reason, place=place):
                then = "; trying again" if again else ""
                self.note(f"{task}{_on(place)}: {reason}{then}")
            case Stalled():
                self.note(stall_line(event))
            case Ready(dashboard=dashboard, metrics=metrics) if dashboard:
                self.note(f"dashboard: {dashboard}" + (f", metrics: {metrics}" if metrics else ""))
            case Note(text=text):
                self.note(text)

    def note(self, text: str) -> None:
        """Show one line above the bar."""
        self.console.print(text, markup=False, soft_wrap=True)

    def _line(self) -> str:
        left, failed = self.tally.work_left_s, self.tally.total("failed")
        parts = [
            f"{self.tally.total('done')}/{self.plan.n_pending} tasks",
            f"{self.utterances_done}/{self.plan.n_utterances} utterances",
            f"{self.tally.times_real_time:.0f} x real time",
            f"{duration(left / self.slots)} left" if left is not None else "",
            f"{failed} failed" if failed else "",
        ]
        return ", ".join(part for part in parts if part)

    def _show(self) -> None:
        if self._bar is not None and self._bar_task is not None:
            self._bar.update(self._bar_task, completed=self.tally.total("done"), line=self._line())
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_INTERVAL_S
            self.console.print(self._line(), soft_wrap=True)


def stall_line(event: Stalled) -> str:
    """Return the line that says which task stalls, where, and at which utterance."""
    status = event.status
    expected = "" if event.expected_s is None else f", expected {duration(event.expected_s)}"
    head = f"stalled: {status.task}{_on(status.place)}: {duration(status.running_s)}{expected}"
    if status.utterance_id:
        return f"{head}; {status.phase} utterance {status.utterance_id} for {duration(status.phase_s)}"
    if status.phase == "unknown":
        return f"{head}; its worker does not answer"
    return f"{head}; {status.phase} for {duration(status.phase_s)}"


def _on(place: Place) -> str:
    # Without workers everything runs on this machine.
    return f" ({place})" if place.worker else ""


def duration(seconds: float) -> str:
    """Return a time as people write it.

    >>> duration(59.6), duration(61), duration(7322)
    ('1 min 00 s', '1 min 01 s', '2 h 02 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
