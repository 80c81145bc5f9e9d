"""One run of a schedule: alone, with its gate, and with a message if something is wrong or well again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.spec import load
from melmill.flows.runs.scheduling.cadence import Cadence
from melmill.storage.files.location import Location
from melmill.storage.files.locks import Held, locked
from melmill.storage.records import sealed, unsealed

# No node can be called so.
SCHEDULES = "_schedules"
STATE = "state.json"
GREEN, FAILED, BAD_USAGE, RED, INTERRUPTED = 0, 1, 2, 3, 130
NOTIFY_TIMEOUT_S = 120.0
_TAIL = 4_000
_MOST_MISSED = 1_000

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Say what a schedule runs.

    Parameters
    ----------
    name : str
        Keeps schedules of one store apart.
    pipeline : Path
    cadence : Cadence or None
        When it is due. None: missed runs are not known.
    store : str or None
        Store in place of the pipeline's.
    overrides : tuple of str
        As ``--set``.
    executor : str
    rules : Path or None
        Of the gate. None: there is none.
    baseline : str or None
        Of the gate.
    notify : str or None
        Command for the shell, which gets a message on its standard input.
    """

    name: str
    pipeline: Path
    cadence: Cadence | None = None
    store: str | None = None
    overrides: tuple[str, ...] = ()
    executor: str = "dask"
    rules: Path | None = None
    baseline: str | None = None
    notify: str | None = None

    @property
    def run_arguments(self) -> list[str]:
        """Arguments of ``melmill`` that run it."""
        made = ["run", str(self.pipeline), "--executor", self.executor, "--json"]
        made += [part for override in self.overrides for part in ("--set", override)]
        return made + (["--store", self.store] if self.store else [])

    def gate_arguments(self, run: str) -> list[str]:
        """Arguments of ``melmill`` that judge a run, which is given by its address."""
        made = ["gate", run, "--rules", str(self.rules), "--json"]
        return made + (["--baseline", self.baseline] if self.baseline else [])


@dataclass(frozen=True, kw_only=True)
class Tick:
    """What one run of a schedule came to; `melmill schedule tick --json` prints the fields.

    Parameters
    ----------
    schedule, pipeline, store, project : str
    state : {"green", "red", "failed", "skipped"}
        Red: the gate tripped. Skipped: another one of the schedule is at work.
    event : {"red", "failed", "recovered", ""}
        Why the command was called, empty if it was not.
    exit_code : int
        Of the run, or else of the gate.
    started_at, finished_at : str
        ISO 8601, UTC.
    missed : tuple of str
        Local times since the run before at which nothing ran.
    previous : str
        State of the run before. Empty for the first.
    run, gate : mapping or None
        What `melmill run --json` and `melmill gate --json` printed.
    error : str
        The last that the run or the gate said on standard error.
    notified : bool or None
        Whether the command succeeded. None if it was not called.
    """

    schedule: str
    pipeline: str
    store: str
    project: str
    state: Literal["green", "red", "failed", "skipped"]
    event: str = ""
    exit_code: int = 0
    started_at: str = ""
    finished_at: str = ""
    missed: tuple[str, ...] = ()
    previous: str = ""
    host: str = field(default_factory=lambda: os.uname().nodename)
    run: dict[str, Any] | None = None
    gate: dict[str, Any] | None = None
    error: str = ""
    notified: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "missed": list(self.missed)}


def tick(schedule: Schedule, say: Say) -> Tick:
    """Run a schedule once, unless a run of it is at work; return what it came to.

    `say` gets a line for what a person should know. Errors of the run are no errors here: they are
    told to the command.

    Raises
    ------
    StoreUnwritable
        The store can't be written, so that runs can't be kept apart.
    """
    store, project, broken = schedule.store, "", ""
    try:
        loaded = load(schedule.pipeline, schedule.overrides, schedule.store)
        store, project = loaded.store, loaded.name
    except PipelineError as error:
        broken = str(error)
        say(f"failed: {error}")
    about: dict[str, Any] = {
        "schedule": schedule.name, "pipeline": str(schedule.pipeline), "store": store or "", "project": project,
    }  # fmt: skip
    failure: dict[str, Any] = {"state": "failed", "exit_code": BAD_USAGE, "error": broken}
    if store is None:
        # Nobody knows the store, so that nothing is kept of it.
        return _told(schedule, Tick(**about, **failure, event="failed", started_at=_now(), finished_at=_now()), say)
    folder = Location(store) / SCHEDULES / schedule.name
    with locked(folder) as held:
        if held is None:
            say(f"skipped: a run of schedule {schedule.name!r} is still at work")
            return Tick(**about, state="skipped")
        before = _read_state(folder)
        missed = _missed(schedule, before, say)
        started = _now()
        made = Tick(
            **about, previous=str(before.get("state", "")), missed=missed, started_at=started,
            **(failure if broken else _run_and_judge(schedule, store, held)),
        )  # fmt: skip
        made = _told(schedule, replace(made, event=_event(made), finished_at=_now()), say)
        if not held.is_lost:
            _write_state(folder, made)
        return made


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _run_and_judge(schedule: Schedule, store: str, held: Held) -> dict[str, Any]:
    code, run, error = _called(schedule.run_arguments, held)
    if held.is_lost:
        error = "another process took the lock over, as this one was silent for too long\n" + error
    if code == RED and not held.is_lost:
        # A gate of the pipeline's own has tripped.
        return {"state": "red", "exit_code": code, "run": run, "error": error}
    if code or held.is_lost:
        return {"state": "failed", "exit_code": code or FAILED, "run": run, "error": error}
    if schedule.rules is None:
        return {"state": "green", "run": run}
    # Somebody else may have run something in the store meanwhile.
    address = f"{store.rstrip('/')}/@{run['run']}" if run is not None else store
    code, gate, error = _called(schedule.gate_arguments(address), held)
    state = {GREEN: "green", RED: "red"}.get(code, "failed")
    return {"state": state, "exit_code": code, "run": run, "gate": gate, "error": error if code else ""}


def _called(arguments: Sequence[str], held: Held) -> tuple[int, dict[str, Any] | None, str]:
    """Run melmill; return its exit code, the JSON that it printed, and the end of its standard error.

    The child inherits the lock: it holds until the child has ended, even if this process is killed.
    """
    kept = () if held.descriptor is None else (held.descriptor,)
    child = subprocess.Popen(
        [sys.executable, "-m", "melmill", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=kept,
    )
    while True:
        try:
            said, complained = child.communicate(timeout=1.0)
            break
        except subprocess.TimeoutExpired:
            if held.is_lost:
                child.send_signal(signal.SIGINT)
                said, complained = child.communicate()
                break
        except KeyboardInterrupt:
            # A terminal's interrupt has reached the child too.
            said, complained = child.communicate()
            break
    sys.stderr.write(complained)
    code = INTERRUPTED if child.returncode == -signal.SIGINT else child.returncode
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    return (code if code >= 0 else FAILED), answer if isinstance(answer, dict) else None, complained[-_TAIL:].strip()


def _read_state(folder: Location) -> dict[str, Any]:
    """Return what the run before left, nothing if that is damaged: no run depends on it."""
    try:
        return unsealed(folder.read(STATE))
    except (FileNotFoundError, ValueError):
        return {}


def _write_state(folder: Location, made: Tick) -> None:
    kept = {"state": made.state, "started_at": made.started_at, "finished_at": made.finished_at, "event": made.event}
    folder.replace(STATE, sealed({**kept, "exit_code": made.exit_code, "local": _local(made.started_at).isoformat()}))


def _local(time_utc: str) -> datetime:
    return datetime.fromisoformat(time_utc).astimezone().replace(tzinfo=None)


def _missed(schedule: Schedule, before: dict[str, Any], say: Say) -> tuple[str, ...]:
    """Return the times since the last run at which nothing ran, without the one that runs now."""
    if schedule.cadence is None or "started_at" not in before:
        return ()
    last, now = _local(str(before["started_at"])), datetime.now()
    # The end of summer time sets no clock back.
    if datetime.now(UTC) < datetime.fromisoformat(str(before["started_at"])):
        say(f"note: the last run began at {last:%Y-%m-%d %H:%M}, which this clock has not reached yet")
        return ()
    times = list(islice(schedule.cadence.between(last, now), _MOST_MISSED + 1))
    missed = tuple(at.isoformat(timespec="minutes") for at in times[:-1])
    if len(missed) == _MOST_MISSED:
        say(f"note: {_MOST_MISSED} runs or more were missed since {last:%Y-%m-%d %H:%M}")
    elif missed:
        say(f"note: {len(missed)} runs were missed since {last:%Y-%m-%d %H:%M}, the last at {missed[-1]}")
    return missed


def _event(made: Tick) -> str:
    if made.state in ("red", "failed"):
        return made.state
    return "recovered" if made.previous in ("red", "failed") else ""


def _told(schedule: Schedule, made: Tick, say: Say) -> Tick:
    """Call the command if there is something to tell. Its failure changes no exit code."""
    if not made.event or not schedule.notify:
        return made
    message = json.dumps(made.as_dict(), ensure_ascii=False) + "\n"
    command = subprocess.Popen(
        schedule.notify, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, complained = command.communicate(message, timeout=NOTIFY_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # The shell has started others, which go with it.
        os.killpg(command.pid, signal.SIGKILL)
        command.communicate()
        say(f"note: the command of --notify took longer than {NOTIFY_TIMEOUT_S:g} s and was ended")
        return replace(made, notified=False)
    if command.returncode:
        end = " ".join((complained or said).split())[-300:]
        say(f"note: the command of --notify failed with exit code {command.returncode}: {end}")
    return replace(made, notified=command.returncode == 0)
