"""The log of a run for machines: one JSON object a line, one line an event."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from melmill.flows.errors import PipelineError
from melmill.flows.execution.window import Task
from melmill.flows.watching.events import (
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


class EventLog:
    """Append events to a file as JSON lines; `docs/watching.md` describes every field.

    Parameters
    ----------
    path : Path
        Appended to, so that a run that goes on has one log.
    run, project : str
        In every line.
    complain : callable
        Told once where writing fails later: a log is not worth a run.

    Raises
    ------
    PipelineError
        Where the file can't be written.
    """

    def __init__(self, path: Path, run: str, project: str, complain: Callable[[str], None]) -> None:
        self.path = path
        self.complain = complain
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
            # What a full disk did not take is tried once more, in vain, when the file is closed.
            with suppress(OSError):
                file.close()

    def __call__(self, event: Event) -> None:
        """Write what an event says; some say nothing to a log."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        head = {"time": now, "run": self.run, "project": self.project}
        text = "".join(
            json.dumps({"event": name, **head, **fields}, ensure_ascii=False) + "\n" for name, fields in lines(event)
        )
        if self._file is None or not text:
            return
        try:
            self._file.write(text)
            # Whoever follows the log sees an event when it happens, and a kill loses none.
            self._file.flush()
        except OSError as error:
            self._close()
            self.complain(f"--log {str(self.path)!r} ends here, the run goes on: {error.strerror}")


def lines(event: Event) -> list[tuple[str, dict[str, Any]]]:
    """Return the lines of an event, each with its name and its own fields."""
    match event:
        case RunStarted():
            return [("run_started", _run_started(event))]
        case Ready():
            return [("cluster_ready", {"dashboard": event.dashboard, "metrics": event.metrics})]
        case Finished():
            return _finished(event)
        case Retried():
            return [("task_retried", {**_attempt(event.task, event.attempt, event.place), "reason": event.reason})]
        case WorkerDied():
            told = {"deaths": event.deaths, "reason": event.reason}
            return [("worker_died", {**_attempt(event.task, event.attempt, event.place), **told})]
        case Failed():
            return [("task_failed", {**_attempt(event.task, event.attempt, event.place), **_failure(event)})]
        case Stalled():
            return [("task_stalled", _stalled(event))]
        case Note():
            return [("note", {"text": event.text})]
        case RunFinished():
            return [("run_finished", _run_finished(event))]
    return []


def _run_started(event: RunStarted) -> dict[str, Any]:
    return {
        "store": event.store,
        "pipeline": event.pipeline,
        "executor": event.executor,
        "host": platform.node(),
        "pid": os.getpid(),
        "tasks": event.n_tasks,
        "tasks_pending": event.n_pending,
        "utterances": event.n_utterances,
    }


def _run_finished(event: RunFinished) -> dict[str, Any]:
    return {
        "outcome": event.outcome,
        "reason": event.reason,
        "duration_s": round(event.duration_s, 3),
        **{f"tasks_{name}": count for name, count in event.counts.items()},
    }


def _attempt(task: Task, attempt: int, place: Place) -> dict[str, Any]:
    return {
        "node": task.node,
        "corpus": task.corpus or None,
        "shard": None if task.is_whole else task.shard,
        "attempt": attempt,
        "worker": place.worker or None,
        "host": place.host or None,
    }


def _finished(event: Finished) -> list[tuple[str, dict[str, Any]]]:
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
    quarantined = {**attempt, "count": receipt.n_quarantined, "utterances": list(receipt.quarantined)}
    found = [("utterances_quarantined", quarantined)] if receipt.n_quarantined else []
    return [*found, ("task_finished", finished)]


def _failure(event: Failed) -> dict[str, Any]:
    return {"error": type(event.error).__name__, "reason": str(event.error), "blocked": event.n_blocked}


def _stalled(event: Stalled) -> dict[str, Any]:
    running = event.running
    return {
        **_attempt(running.task, running.attempt, running.place),
        "running_s": round(running.running_s, 3),
        "expected_s": None if event.expected_s is None else round(event.expected_s, 3),
        "phase": running.phase,
        "utterance": running.utterance_id or None,
        "utterance_s": round(running.for_s, 3) if running.utterance_id else None,
    }
