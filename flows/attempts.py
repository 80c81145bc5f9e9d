"""How often a task is tried, and what is done after each death of a worker."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from melmill.flows.executors import Job, ResumableJob
from melmill.flows.frontier import Task

# Attempts of a task whose input or output failed.
MAX_ATTEMPTS = 3

# Dead workers after which a task may be what kills them: a child process then takes its utterances one by one.
ISOLATE_AFTER = 2

# Dead workers after which a task is given up. One that is isolated dies only by others on its worker, or from outside.
MAX_DEATHS = 8

# Dead workers in a row after which a task is given up that goes on from what it saved, if it saved nothing in between.
MAX_DEATHS_WITHOUT_PROGRESS = 3


@dataclass(frozen=True)
class Attempt:
    """A task as it was handed to the cluster, with how many workers died of it so far."""

    task: Task
    number: int = 1
    deaths: int = 0
    job: Job | None = None
    saved: str | None = None
    submitted: float = field(default_factory=time.monotonic)

    def of(self, job: Job) -> Attempt:
        """Return the attempt with its job, and how far that has come already."""
        return replace(self, job=job, saved=job.saved() if isinstance(job, ResumableJob) else None)

    def died(self) -> Attempt:
        """Return the attempt with another death: its first, where it came further since it began."""
        progressed = isinstance(self.job, ResumableJob) and self.job.saved() != self.saved
        return replace(self, deaths=1 if progressed else self.deaths + 1)

    def hung(self) -> Attempt:
        """Return the attempt with as many deaths as a task has that may be what kills."""
        return replace(self, deaths=max(self.deaths, ISOLATE_AFTER))

    @property
    def may_die(self) -> bool:
        """Whether it has another attempt after its worker died."""
        return self.deaths < (MAX_DEATHS_WITHOUT_PROGRESS if isinstance(self.job, ResumableJob) else MAX_DEATHS)

    def again(self) -> Attempt:
        """Return the next attempt."""
        return replace(self, number=self.number + 1, submitted=time.monotonic())
