"""Ask the processes that run tasks what they work on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from melmill.flows.tasks.task import Task
from melmill.flows.watching.events import Place, TaskStatus
from melmill.stages.task_context import ThreadStatus, thread_statuses

if TYPE_CHECKING:
    from distributed import Client, Worker

# A process that computes without releasing the interpreter does not answer, nor does a stopped one.
TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """An attempt that was submitted `age_s` ago."""

    task: Task
    attempt: int
    age_s: float


def probe_process(in_flight: Mapping[str, InFlight]) -> list[TaskStatus]:
    """Return the status of the attempts, by label, that this process runs."""
    place = Place(host=platform.node())
    return [_status(in_flight[one.label], place, one) for one in thread_statuses() if one.label in in_flight]


def probe_workers(client: Client, in_flight: Mapping[str, Mapping[str, InFlight]]) -> list[TaskStatus]:
    """Return the status of the attempts that the client's workers run.

    If a worker does not answer, its oldest attempt is returned with the phase ``unknown``.

    Parameters
    ----------
    client : Client
    in_flight : mapping
        By Dask key, the attempts of that chain in order, by label.

    Raises
    ------
    TimeoutError
        The scheduler does not answer either, or the client is not connected to it.
    """
    statuses = []
    if client.scheduler is None:
        raise TimeoutError("the client has lost its connection to the scheduler")
    for worker, keys in client.sync(client.scheduler.processing, callback_timeout=TIMEOUT_S).items():
        held = {label: one for key in keys for label, one in in_flight.get(key, {}).items()}
        if held:
            statuses += _probe_worker(client, worker, held)
    return statuses


def _probe_worker(client: Client, worker: str, held: Mapping[str, InFlight]) -> list[TaskStatus]:
    try:
        # Each worker is asked alone, so that a silent one hides no other.
        answers = client.run(_answer, workers=[worker], on_error="ignore", callback_timeout=TIMEOUT_S)
    except TimeoutError:
        answers = {}
    if worker in answers:
        place, statuses = answers[worker]
        return [_status(held[one.label], place, one) for one in statuses if one.label in held]
    oldest = max(held.values(), key=lambda attempt: attempt.age_s)
    identity = client.sync(client.scheduler.identity, callback_timeout=TIMEOUT_S)
    known = identity["workers"].get(worker, {})
    return [
        TaskStatus(
            task=oldest.task,
            attempt=oldest.attempt,
            place=Place(worker=str(known.get("name", worker)), host=known.get("host", "")),
            running_s=oldest.age_s,
            phase="unknown",
            utterance_id="",
            phase_s=0.0,
        )
    ]


def _answer(dask_worker: Worker) -> tuple[Place, list[ThreadStatus]]:
    """Answer on a worker; Dask passes the worker itself by this name."""
    return Place(worker=str(dask_worker.name), host=platform.node()), thread_statuses()


def _status(attempt: InFlight, place: Place, thread: ThreadStatus) -> TaskStatus:
    return TaskStatus(
        task=attempt.task,
        attempt=attempt.attempt,
        place=place,
        running_s=thread.running_s,
        phase=thread.phase,
        utterance_id=thread.utterance_id,
        phase_s=thread.phase_s,
    )
