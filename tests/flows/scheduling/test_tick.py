"""One run of a schedule: alone whatever dies, told if it is wrong or well again, with its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import click
import pytest

from melmill.flows.cli.group import cli
from melmill.flows.runs.scheduling import tick as ticking
from melmill.flows.runs.scheduling.cadence import read_cadence
from melmill.storage.files.location import Location
from melmill.storage.files.locks import locked
from melmill.storage.records import sealed
from tests.flows.conftest import Project

TICK = ("schedule", "tick", "pipeline.yaml", "--executor", "serial", "--json")


def ticked(project: Project, *arguments: str) -> tuple[int, dict[str, Any], str]:
    # The tick is in this process, and what it runs in one of its own.
    done = project.called(*TICK, *arguments)
    return done.returncode, json.loads(done.stdout), done.stderr


def told(project: Project) -> list[dict[str, Any]]:
    path = project.folder / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_failure_and_recovery_are_told_once_each_and_nothing_else(done: Project) -> None:
    tell = ("--notify", "cat >> told")
    code, made, _ = ticked(done, *tell)
    assert (code, made["state"], made["event"]) == (0, "green", "")
    assert made["run"]["tasks"]["total"] == made["run"]["tasks"]["reused"] > 0
    recordings = done.root.rename(done.folder / "gone")
    code, made, _ = ticked(done, *tell)
    assert (code, made["state"], made["event"], made["notified"]) == (2, "failed", "failed", True)
    (message,) = told(done)
    assert message["error"].startswith("error: ")
    assert (message["schedule"], message["project"], message["previous"]) == ("test", "test", "green")
    assert message["store"] == str(done.store)
    recordings.rename(done.root)
    code, made, _ = ticked(done, *tell)
    assert (code, made["event"]) == (0, "recovered")
    code, made, _ = ticked(done, *tell)
    assert (code, made["event"], made["notified"]) == (0, "", None)
    assert [message["event"] for message in told(done)] == ["failed", "recovered"]


def test_a_command_that_fails_changes_no_exit_code(done: Project) -> None:
    (done.root / "dev-clean").rename(done.folder / "gone")
    code, made, said = ticked(done, "--notify", "echo no mail today >&2; exit 9")
    assert (code, made["notified"]) == (2, False)
    assert "the command of --notify failed with exit code 9: no mail today" in said


def test_a_broken_pipeline_is_told(done: Project) -> None:
    done.pipeline.write_text("name: [\n")
    code, made, said = ticked(done, "--notify", "cat >> told")
    assert (code, made["event"], made["schedule"]) == (2, "failed", "pipeline")
    assert told(done)[0]["error"] == made["error"]
    assert "pipeline.yaml" in said


def test_a_pipeline_that_is_mended_has_recovered(done: Project) -> None:
    tell = ("--notify", "cat >> told", "--store", str(done.store), "--name", "test")
    sound = done.pipeline.read_text()
    done.pipeline.write_text("name: [\n")
    assert ticked(done, *tell)[1]["state"] == "failed"
    done.pipeline.write_text(sound)
    code, made, _ = ticked(done, *tell)
    assert (code, made["previous"], made["event"]) == (0, "failed", "recovered")
    assert [message["event"] for message in told(done)] == ["failed", "recovered"]


def test_a_command_that_never_ends_is_ended_whole(
    done: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ticking, "NOTIFY_TIMEOUT_S", 1.0)
    done.pipeline.write_text("name: [\n")
    schedule = ticking.Schedule(
        name="test", pipeline=done.pipeline, notify=f"sleep 600 & echo $! > {done.folder}/pid; wait"
    )
    said: list[str] = []
    assert ticking.tick(schedule, said.append).notified is False
    assert said[-1] == "note: the command of --notify took longer than 1 s and was ended"
    stat = Path(f"/proc/{int((done.folder / 'pid').read_text())}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_end_of_summer_time_sets_no_clock_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # 02:40 of summer time, and half an hour later 02:10.
    began, now = datetime(2026, 10, 25, 0, 40, tzinfo=UTC), datetime(2026, 10, 25, 1, 10, tzinfo=UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls.fromtimestamp(now.timestamp(), tz)

    monkeypatch.setattr(ticking, "datetime", Clock)
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        assert began.astimezone().replace(tzinfo=None) > Clock.now()
        said: list[str] = []
        schedule = ticking.Schedule(name="test", pipeline=Path("pipeline.yaml"), cadence=read_cadence("hour"))
        assert ticking._missed(schedule, {"started_at": began.isoformat()}, said.append) == ()
        assert said == []
    finally:
        monkeypatch.undo()
        time.tzset()


def test_two_are_kept_apart(done: Project) -> None:
    with locked(Location(str(done.store)) / "_schedules" / "test") as held:
        assert held is not None
        code, made, said = ticked(done)
        assert (code, made["state"], made["run"]) == (0, "skipped", None)
        assert "a run of schedule 'test' is still at work" in said
        assert ticked(done, "--name", "another")[1]["state"] == "green"
    assert ticked(done)[1]["state"] == "green"
    # State and locks are no products.
    assert done.called("verify", str(done.store)).returncode == 0


def test_a_run_holds_the_lock_when_what_started_it_is_killed(done: Project) -> None:
    # The corpus' folder is a pipe to nobody: the run waits there for as long as it should.
    code = "import sys, time; open('began', 'w').close(); time.sleep(600)"
    site = done.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"import sys\nif 'run' in sys.argv or 'run' in sys.orig_argv: exec({code!r})\n"
    )
    process = subprocess.Popen(
        done.command(*TICK), cwd=done.folder, env=done.environment(site), stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (done.folder / "began").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    (child,) = (int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    process.kill()
    process.wait()
    assert ticked(done)[1]["state"] == "skipped"
    os.kill(child, signal.SIGKILL)
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        time.sleep(0.05)
    assert ticked(done)[1]["state"] == "green"


def test_missed_runs_are_said(done: Project) -> None:
    began = datetime.now().astimezone() - timedelta(hours=5, minutes=1)
    state = {"state": "green", "started_at": began.isoformat(timespec="seconds")}
    (Location(str(done.store)) / "_schedules" / "test").replace("state.json", sealed(state))
    _, made, said = ticked(done, "--every", "hour")
    assert len(made["missed"]) in (4, 5)  # one more if an hour begins in this minute
    assert f"{len(made['missed'])} runs were missed since" in said
    assert ticked(done, "--every", "hour")[1]["missed"] == []


def test_a_clock_that_was_set_back_is_said_and_harmless(done: Project) -> None:
    ahead = datetime.now().astimezone() + timedelta(days=400)
    state = {"state": "green", "started_at": ahead.isoformat(timespec="seconds")}
    (Location(str(done.store)) / "_schedules" / "test").replace("state.json", sealed(state))
    code, made, said = ticked(done, "--every", "hour")
    assert (code, made["state"], made["missed"]) == (0, "green", [])
    assert "which this clock has not reached yet" in said


@pytest.mark.skipif("gate" not in cli.list_commands(click.Context(cli)), reason="needs the command gate")
def test_a_gate_that_trips_is_red_and_its_code_is_kept(done: Project) -> None:
    rules = done.folder / "gate.yaml"
    rules.write_text("rules:\n  - {metric: scm, node: admm, at_most: -200}\n")
    code, made, _ = ticked(done, "--gate", "gate.yaml", "--notify", "cat >> told")
    assert (code, made["state"], made["event"]) == (3, "red", "red")
    # The gate judges this run, whatever else runs in the store.
    assert made["gate"]["run"] == f"{done.store}@{made['run']['run']}"
    rules.write_text("rules:\n  - {metric: scm, node: admm, at_most: 200}\n")
    code, made, _ = ticked(done, "--gate", "gate.yaml", "--notify", "cat >> told")
    assert (code, made["state"], made["event"]) == (0, "green", "recovered")
    assert [message["state"] for message in told(done)] == ["red", "green"]
