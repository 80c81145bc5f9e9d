"""Write the log of a run for machines: a JSON object per line, and a line per event."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.tasks.task import Task
from melmill.flows.watching.events import (
    Driven,
    Event,
    Failed,
    Finished,
    Note,
    Place,
    Ready,
    Retried,
    RunFinished,
    RunStarted,
    Stalled,
    WorkerDied,
)

# Utterances that one line names.
MAX_NAMED = 10


class EventLog:
    """Append events to a file as JSON lines; `docs/watching.md` describes every field.

    Parameters
    ----------
    path : Path
        The file. It is appended to, so that a run that is continued has one log.
    run, project : str
        Fields of every line.
    warn : callable
        Receives one line if writing fails later. The run goes on without a log.

    Raises
    ------
    PipelineError
        The file can't be written.
    """

    def __init__(self, path: Path, run: str, project: str, warn: Callable[[str], None]) -> None:
        self.path = path
        self.warn = warn
        self.run = run
        self.project = project
        try:
            self._file: TextIO | None = path.open("a", encoding="utf-8")
        except OSError as error:
            raise PipelineError(
                f"--log {str(path)!r} can't be written: {error.strerror}; name a file in a folder that exists"
            ) from error

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            # Closing tries once more to write what a full disk did not take.
            with suppress(OSError):
                file.close()

    def __call__(self, event: Event) -> None:
        """Write the lines of an event; some events have none."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        head = {"time": now, "run": self.run, "project": self.project}
        text = "".join(
            json.dumps({"event": name, **head, **fields}, ensure_ascii=False) + "\n" for name, fields in lines(event)
        )
        if self._file is None or not text:
            return
        try:
            self._file.write(text)
            # Readers see each event at once, and none is lost if this process is killed.
            self._file.flush()
        except OSError as error:
            self._close()
            self.warn(f"--log {str(self.path)!r} ends here, the run goes on: {error.strerror}")


def lines(event: Event) -> list[tuple[str, dict[str, object]]]:
    """Return the name and the fields of each line of an event."""
    match event:
        case RunStarted() | Ready() | Driven() | Note() | RunFinished():
            return [_of_run(event)]
        case Finished():
            return _finished(event)
        case Retried():
            return [("task_retried", {**_attempt(event.task, event.attempt, event.place), "reason": event.reason})]
        case WorkerDied():
            attempt = _attempt(event.task, event.attempt, event.place)
            return [("worker_died", {**attempt, "deaths": event.deaths, "reason": event.reason})]
        case Failed():
            attempt = _attempt(event.task, event.attempt, event.place)
            failure = {"error": type(event.error).__name__, "reason": str(event.error), "blocked": event.n_blocked}
            return [("task_failed", {**attempt, **failure})]
        case Stalled():
            status = event.status
            stalled = {
                **_attempt(status.task, status.attempt, status.place),
                "running_s": round(status.running_s, 3),
                "expected_s": None if event.expected_s is None else round(event.expected_s, 3),
                "phase": status.phase,
                "utterance": status.utterance_id or None,
                "utterance_s": round(status.phase_s, 3) if status.utterance_id else None,
            }
            return [("task_stalled", stalled)]
    return []


def _of_run(event: RunStarted | Ready | Driven | Note | RunFinished) -> tuple[str, dict[str, object]]:
    match event:
        case RunStarted():
            started = {
                "store": event.store,
                "pipeline": event.pipeline,
                "executor": event.executor,
                "host": platform.node(),
                "pid": os.getpid(),
                "tasks": event.n_tasks,
                "tasks_pending": event.n_pending,
                "utterances": event.n_utterances,
            }
            return "run_started", started
        case Ready():
            return "cluster_ready", {"dashboard": event.dashboard, "metrics": event.metrics}
        case Driven():
            driven: dict[str, object] = {
                "tasks": event.n_tasks,
                "driver_cpu_s": round(event.driver_cpu_s, 3),
                "scheduler_cpu_s": None if event.scheduler_cpu_s is None else round(event.scheduler_cpu_s, 3),
            }
            return "tasks_driven", driven
        case Note():
            return "note", {"text": event.text}
        case RunFinished():
            ended = {"outcome": event.outcome, "reason": event.reason, "duration_s": round(event.duration_s, 3)}
            return "run_finished", {**ended, **{f"tasks_{name}": count for name, count in event.counts.items()}}


def _attempt(task: Task, attempt: int, place: Place) -> dict[str, object]:
    return {
        "node": task.node,
        "corpus": task.corpus or None,
        "shard": None if task.is_whole else task.shard,
        "attempt": attempt,
        "worker": place.worker or None,
        "host": place.host or None,
    }


def _finished(event: Finished) -> list[tuple[str, dict[str, object]]]:
    receipt = event.receipt
    attempt = _attempt(event.task, event.attempt, Place(worker=receipt.worker, host=receipt.host))
    finished = {
        **attempt,
        "utterances": receipt.n_utterances,
        "audio_s": round(receipt.audio_s, 3),
        "compute_s": round(receipt.compute_s, 6),
        "wall_s": round(receipt.wall_s, 6),
        "peak_mem_bytes": receipt.peak_mem_bytes,
    }
    quarantined = {**attempt, "count": receipt.n_quarantined, "utterances": list(receipt.quarantined[:MAX_NAMED])}
    first = [("utterances_quarantined", quarantined)] if receipt.n_quarantined else []
    return [*first, ("task_finished", finished)]
