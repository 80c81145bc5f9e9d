"""Progress on standard error: bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING

from melmill.flows.plan import REPORT, Plan

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from melmill.flows.frontier import Task
    from melmill.flows.receipt import Receipt

PLAIN_INTERVAL_S = 10.0


class Progress:
    """Shows how far a run is: tasks, utterances through the whole pipeline, times real time, time left.

    Parameters
    ----------
    plan : Plan
    slots : int
        Tasks that run at the same time, for the time left.
    """

    def __init__(self, plan: Plan, slots: int) -> None:
        from rich.console import Console

        self.plan = plan
        self.slots = slots
        self.console: Console = Console(stderr=True, highlight=False)
        self.started = time.monotonic()
        self.tasks_done = 0
        self.n_failed = 0
        self.utterances_done = 0
        self.audio_task_s = 0.0
        self._spent: dict[str, list[float]] = {name: [] for name in plan.nodes}
        self._left = Counter(
            (node_plan.node.corpora[0], shard)
            for node_plan in plan.nodes.values()
            for shard in node_plan.pending
            if shard != REPORT
        )
        self._todo = Counter({name: len(node_plan.pending) for name, node_plan in plan.nodes.items()})
        self._n_flows = max(1, sum(1 for node_plan in plan.nodes.values() if node_plan.pending - {REPORT}))
        self._bar: Bar | None = None
        self._bar_task: TaskID | None = None
        self._next_line = self.started

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._start_bar()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.tasks_done:
            self.console.print(self._line(), soft_wrap=True)

    def finished(self, task: Task, receipt: Receipt) -> None:
        """Count a finished task."""
        self.tasks_done += 1
        self._todo[task.node] -= 1
        self._spent[task.node].append(receipt.wall_s)
        if task.shard != REPORT:
            self.audio_task_s += receipt.audio_s
            self._left[task.corpus, task.shard] -= 1
            if not self._left[task.corpus, task.shard]:
                self.utterances_done += receipt.n_utterances
        self._show()

    def failed(self, task: Task, error: BaseException) -> None:
        """Show a task that was given up."""
        self.n_failed += 1
        self._todo[task.node] -= 1
        self.note(f"failed: {task}: {type(error).__name__}: {error}")
        self._show()

    def note(self, text: str) -> None:
        """Show one line above the bar."""
        self.console.print(text, markup=False, soft_wrap=True)

    @property
    def times_real_time(self) -> float:
        """Audio through the whole pipeline over wall time."""
        return self.audio_task_s / self._n_flows / max(time.monotonic() - self.started, 1e-9)

    @property
    def time_left_s(self) -> float | None:
        """Estimate from each node's own mean task time; None before the first task is done."""
        spent = [wall for walls in self._spent.values() for wall in walls]
        if not spent:
            return None
        overall = sum(spent) / len(spent)
        means = {name: sum(walls) / len(walls) if walls else overall for name, walls in self._spent.items()}
        return sum(left * means[name] for name, left in self._todo.items()) / self.slots

    def _line(self) -> str:
        left = self.time_left_s
        parts = [
            f"{self.tasks_done}/{self.plan.n_pending} tasks",
            f"{self.utterances_done}/{self.plan.n_utterances} utterances",
            f"{self.times_real_time:.0f} x real time",
            f"{duration(left)} left" if left is not None else "",
            f"{self.n_failed} failed" if self.n_failed else "",
        ]
        return ", ".join(part for part in parts if part)

    def _show(self) -> None:
        if self._bar is not None and self._bar_task is not None:
            self._bar.update(self._bar_task, completed=self.tasks_done, line=self._line())
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_INTERVAL_S
            self.console.print(self._line(), soft_wrap=True)

    def _start_bar(self) -> None:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            SpinnerColumn(), BarColumn(), TextColumn("{task.fields[line]}"), console=self.console, transient=False
        )
        self._bar_task = self._bar.add_task("run", total=self.plan.n_pending, line="starting workers")
        self._bar.start()


def duration(seconds: float) -> str:
    """Write a time as people do.

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
