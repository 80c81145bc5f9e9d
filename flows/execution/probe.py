"""Ask those who run tasks what they are at."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from melmill.flows.execution.window import Task
from melmill.flows.watching.events import Place, Running
from melmill.stages.task_context import Glimpse, glimpses

if TYPE_CHECKING:
    from distributed import Client, Worker

# A process that computes without letting go of the interpreter does not answer, nor does one that is stopped.
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """An attempt that was handed out `age_s` ago."""

    task: Task
    attempt: int
    age_s: float


def look_here(flights: Mapping[str, Flight]) -> list[Running]:
    """Return what the flights, by label, that are run by this process are at."""
    return [_running(flights[at.label], Place(host=platform.node()), at) for at in glimpses() if at.label in flights]


def look_there(client: Client, flights: Mapping[str, Flight]) -> list[Running]:
    """Return what the flights, by Dask key, are at that run on the client's workers.

    Of a worker that does not answer, the flight that it has had for longest is told, without what it is at.

    Raises
    ------
    TimeoutError
        The scheduler does not answer either.
    """
    found = []
    for worker, keys in client.sync(client.scheduler.processing, callback_timeout=PATIENCE_S).items():
        held = {key: flights[key] for key in keys if key in flights}
        if held:
            found += _asked(client, worker, held)
    return found


def _asked(client: Client, worker: str, held: Mapping[str, Flight]) -> list[Running]:
    try:
        # Only this worker is asked, so that a silent one hides no other.
        answers = client.run(_answer, workers=[worker], on_error="ignore", callback_timeout=PATIENCE_S)
    except TimeoutError:
        answers = {}
    if worker in answers:
        place, seen = answers[worker]
        return [_running(held[at.label], place, at) for at in seen if at.label in held]
    oldest = max(held.values(), key=lambda flight: flight.age_s)
    identity = client.sync(client.scheduler.identity, callback_timeout=PATIENCE_S)
    known = identity["workers"].get(worker, {})
    return [
        Running(
            task=oldest.task,
            attempt=oldest.attempt,
            place=Place(worker=str(known.get("name", worker)), host=known.get("host", "")),
            running_s=oldest.age_s,
            phase="unknown",
            utterance_id="",
            for_s=0.0,
        )
    ]


def _answer(dask_worker: Worker) -> tuple[Place, list[Glimpse]]:
    """Answer on a worker; Dask passes itself by this name."""
    return Place(worker=str(dask_worker.name), host=platform.node()), glimpses()


def _running(flight: Flight, place: Place, at: Glimpse) -> Running:
    return Running(
        task=flight.task,
        attempt=flight.attempt,
        place=place,
        running_s=at.running_s,
        phase=at.phase,
        utterance_id=at.utterance_id,
        for_s=at.for_s,
    )
