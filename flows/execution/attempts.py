"""Attempts at tasks, and the chains of them that are at a Dask cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from melmill.flows.execution.machines import Again
from melmill.flows.tasks.chain import Link
from melmill.flows.tasks.job import Job
from melmill.flows.tasks.task import Receipt, Task
from melmill.storage.errors import StoreError

if TYPE_CHECKING:
    from distributed import Future

# Attempts of a task that fails to read or write.
MAX_ATTEMPTS = 3

# Dead workers after which a task may be the cause. A child process then takes its utterances one by
# one.
ISOLATE_AFTER = 2

# Dead workers after which a task is given up. An isolated task dies only of other tasks on its
# worker, or from outside.
MAX_DEATHS = 8

# Dead workers in a row, without progress in between, after which a task that resumes is given up.
MAX_DEATHS_WITHOUT_PROGRESS = 3


@dataclass(frozen=True)
class Attempt:
    """An attempt at a task, as it was submitted to the cluster.

    Parameters
    ----------
    label : str
        Its name, which no other attempt has.
    task : Task
    job : Job
    how : Again
        What is known from earlier attempts.
    number : int
        From 1.
    deaths : int
        Workers that died at the task before this attempt. A job that resumes counts from its last
        progress.
    saved : str or None
        Stamp of what the job had saved before this attempt.
    """

    label: str
    task: Task
    job: Job
    how: Again
    number: int = 1
    deaths: int = 0
    saved: str | None = None

    @property
    def is_isolated(self) -> bool:
        """Whether a child process takes its utterances one by one."""
        return self.how.isolated or self.deaths >= ISOLATE_AFTER

    def link(self, limit_s: float | None) -> Link:
        """Return what travels to the worker, for a run in which a task may take `limit_s`."""
        # Isolated utterances have a limit each. A job that resumes may take days.
        return Link.of(self.label, self.job, None if self.is_isolated or self.job.resumes else limit_s)

    def deaths_with_this(self) -> int:
        """Return how many dead workers count after the worker of this attempt died too."""
        progressed = self.job.saved() != self.saved
        return 1 if progressed else self.deaths + 1

    def may_go_on(self, deaths: int) -> bool:
        """Return whether the task gets another attempt after so many dead workers."""
        return deaths < (MAX_DEATHS_WITHOUT_PROGRESS if self.job.resumes else MAX_DEATHS)


@dataclass(eq=False, kw_only=True)
class Chain:
    """Attempts that were submitted as one Dask task, each after those that it reads.

    Parameters
    ----------
    key : str
        Of the Dask task.
    pool : str
    attempts : sequence of Attempt
    allowed : list of str or None
        Addresses of the workers that may take it. None for any of its pool.
    future : Future
        Set when it is submitted.
    waits_for : dict of str to Chain
        By key, the chains that it waits for and that have not been settled.
    followers : list of Chain
        Those that waited for this one when they were submitted.
    told : dict of str to Receipt
        Of the attempts that its worker said were done, by label.
    since_s : float
        When it was submitted, or last told what it does, on the monotonic clock, s.
    """

    key: str
    pool: str
    attempts: Sequence[Attempt]
    allowed: list[str] | None
    future: Future = field(init=False)
    waits_for: dict[str, Chain]
    followers: list[Chain] = field(default_factory=list)
    told: dict[str, Receipt] = field(default_factory=dict)
    since_s: float = field(default_factory=time.monotonic)
    _is_over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def left(self) -> list[Attempt]:
        """The attempts that are not known to be done, in order."""
        return [attempt for attempt in self.attempts if attempt.label not in self.told]

    def tell(self, label: str, receipt: Receipt, announce: Callable[[], None]) -> None:
        """Announce that an attempt is done, unless that is known or the chain is over.

        A worker's message and the chain's answer come in two threads.
        """
        with self._lock:
            if self._is_over or label in self.told:
                return
            self.told[label] = receipt
            announce()

    def end(self) -> None:
        """Let nothing be told any more: what is not done by now is submitted anew."""
        with self._lock:
            self._is_over = True

    def receipts(self, answer: tuple[Receipt, ...] | Exception) -> tuple[Receipt, ...]:
        """Return the receipts of the attempts that are done, in order.

        What was told counts, whatever the answer is: it was announced. If the worker could not say
        more, the store does: an attempt with a whole record is done.
        """
        is_lost = isinstance(answer, Exception) and getattr(answer, "chain", None) != self.key
        said: tuple[Receipt, ...] = ()
        if not is_lost:
            said = answer if isinstance(answer, tuple) else answer.__dict__["receipts"]
        known = {attempt.label: receipt for attempt, receipt in zip(self.attempts, said, strict=False)} | self.told
        receipts = []
        for attempt in self.attempts:
            receipt = known.get(attempt.label)
            if receipt is None and is_lost and len(self.attempts) > 1:
                receipt = _stored(attempt)
            if receipt is None:
                break
            receipts.append(receipt)
        return tuple(receipts)


def _stored(attempt: Attempt) -> Receipt | None:
    """Return the receipt of an attempt with a whole record."""
    try:
        return attempt.job.done()
    except (OSError, StoreError):
        return None  # it is not known, so it is done again


def owner_of(error: Exception) -> str:
    """Return the key of the chain that an error is of; empty if it does not say.

    Dask gives the error of a chain to those that waited for it, too.
    """
    return str(getattr(error, "chain", "") or getattr(error, "task", ""))


def chain_name(tasks: Sequence[Task]) -> str:
    """Return what a chain is called on Dask's pages: its first and its last node, shard and corpus.

    Dask groups by what stands before the first number.

    >>> chain_name([Task("mel", "speech", 3), Task("gla", "speech", 3)])
    'mel..gla-3-speech'
    >>> chain_name([Task.whole("report")])
    'report'
    """
    first, last = tasks[0], tasks[-1]
    name = first.node if len(tasks) == 1 else f"{first.node}..{last.node}"
    return name if first.is_whole else f"{name}-{first.shard}-{first.corpus}"
