"""Utterances that kill or fail a stage: only those are set aside, by name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import melmill
from benchmarks.faults.package import install
from tests.flows.conftest import Project

STAGE = '''
"""A stage of another package: loud, and fussy about some utterances."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from melmill.stages.contract import Input, Kind, Outcome, Waveform, as_float, each


@dataclass(frozen=True, kw_only=True)
class Loud:
    uses: ClassVar = "loud"
    version: ClassVar = 1
    inputs: ClassVar = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    gain: float = 2.0
    kills: tuple[str, ...] = ()
    hangs: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    overflows: tuple[str, ...] = ()
    stumbles: str = ""

    def identity(self):
        return {"gain": self.gain}

    def produces(self, inputs):
        return Waveform(sr=inputs["from"][0].sr)

    def process(self, items, inputs, product):
        if self.stumbles:
            marks = [Path(self.stumbles) / item.utterance.utterance_id for item in items]
            if not all(mark.exists() for mark in marks):
                for mark in marks:
                    mark.touch()
                raise OSError("the network is away")
        return each(items, self.louder)

    def louder(self, item):
        name = item.utterance.utterance_id
        if name in self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        while name in self.hangs:
            time.sleep(1.0)
        if name in self.fails:
            raise RuntimeError(f"{name} is too much for me")
        gain = np.inf if name in self.overflows else self.gain
        return Outcome(array=as_float(item.inputs["from"]) * np.float32(gain))
'''

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
max_quarantined: 0.5
stages:
  speech: {{uses: librispeech, root: {root}}}
  loud:   {{uses: loud, from: speech}}
  mel:    {{uses: extract, from: loud}}
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""
N_TASKS = 21


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder, for PYTHONPATH, with the package as an installer leaves it."""
    folder = tmp_path / "site"
    install(folder, "loud", STAGE, "Loud")
    return folder


@pytest.fixture
def project(project: Project) -> Project:
    project.write(PIPELINE)
    return project


def quarantined(project: Project) -> dict[str, dict[str, Any]]:
    shown = project.called("quarantine", str(project.store), "--json")
    return {row["utterance_id"]: row for row in json.loads(shown.stdout)["quarantined"]}


def check_all_but(project: Project, lost: list[str]) -> None:
    """Check that the store holds all but the lost utterances, louder, and nothing is left to do."""
    store = melmill.open(str(project.store))
    kept = [name for name in store.utterances()["utterance_id"] if name not in lost]
    assert sorted(store["mel"]) == sorted(store["loud"]) == sorted(kept)
    for name in kept:
        np.testing.assert_array_equal(store["loud"][name], store["speech"][name] / np.float32(32768) * np.float32(2))


def test_utterances_that_kill_their_process_are_found_and_set_aside(project: Project, package: Path) -> None:
    # In two shards: a task that only waits behind a killer must not be taken for one.
    killers = ["11-1-0001", "22-1-0003"]
    answer = project.run("--set", f"loud.kills={killers}", extra=package)
    assert answer["tasks"] == {"total": N_TASKS, "run": N_TASKS, "reused": 0, "failed": 0}
    assert answer["quarantined"] == len(killers)
    rows = quarantined(project)
    assert sorted(rows) == killers
    for row in rows.values():
        assert row["node"] == "loud"
        assert row["reason"] == "crashed the process that worked on it (SIGKILL)"
    check_all_but(project, killers)
    again = project.run(extra=package)
    assert (again["tasks"]["run"], again["quarantined"]) == (0, len(killers))


@pytest.mark.slow
def test_an_utterance_that_hangs_is_found_and_set_aside(project: Project, package: Path) -> None:
    hung = ["22-1-0006"]
    answer = project.run("--set", f"loud.hangs={hung}", "--set", "time_limit_s=5", extra=package)
    assert answer["tasks"] == {"total": N_TASKS, "run": N_TASKS, "reused": 0, "failed": 0}
    rows = quarantined(project)
    assert sorted(rows) == hung
    for row in rows.values():
        assert row["reason"] == "took longer than the limit of 5 s"
        assert "in louder" in row["detail"]
    check_all_but(project, hung)


def test_an_utterance_that_fails_is_set_aside_with_its_traceback(project: Project, package: Path) -> None:
    answer = project.run("--executor", "serial", "--set", "loud.fails=22-1-0005", extra=package)
    assert (answer["tasks"]["run"], answer["tasks"]["failed"], answer["quarantined"]) == (N_TASKS, 0, 1)
    (row,) = quarantined(project).values()
    assert (row["utterance_id"], row["node"], row["stage"]) == ("22-1-0005", "loud", "loud")
    assert row["reason"] == "RuntimeError: 22-1-0005 is too much for me"
    assert "loud.py" in row["detail"]
    assert "in louder" in row["detail"]
    check_all_but(project, ["22-1-0005"])


def test_an_utterance_made_of_infinities_is_set_aside_alone(project: Project, package: Path) -> None:
    answer = project.run("--executor", "serial", "--set", "loud.overflows=22-1-0005", extra=package)
    assert (answer["tasks"]["run"], answer["tasks"]["failed"], answer["quarantined"]) == (N_TASKS, 0, 1)
    (row,) = quarantined(project).values()
    assert (row["utterance_id"], row["node"], row["stage"]) == ("22-1-0005", "loud", "loud")
    assert re.fullmatch(r"loud made ([\d,]+) of \1 values that are not finite", row["reason"])
    check_all_but(project, ["22-1-0005"])


SCORED = PIPELINE.replace(
    "cluster:",
    """  gla:    {{uses: griffin_lim, from: mel, n_iter: 1}}
  scores: {{uses: score, from: gla, against: speech, metrics: [sc]}}
  report: {{uses: aggregate, from: scores, examples: 1}}
cluster:""",
)


@pytest.mark.slow
def test_a_retry_makes_anew_all_that_knew_of_the_failure(project: Project, package: Path) -> None:
    project.write(SCORED)
    project.run("--executor", "serial", extra=package)
    whole = project.bytes()
    shutil.rmtree(project.store)
    failed = project.run("--executor", "serial", "--set", "loud.fails=22-1-0005", extra=package)
    assert failed["quarantined"] == 1
    # its score was of an estimate that was missing, which no record calls absent
    (statuses,) = melmill.open(str(project.store)).scores().filter(like="status_").T.to_numpy().tolist()
    assert statuses.count("missing_estimate") == 1
    retried = project.called("quarantine", str(project.store), "--retry", "--json")
    assert json.loads(retried.stdout)["dropped"] == 5
    again = project.run("--executor", "serial", extra=package)
    assert (again["tasks"]["run"], again["quarantined"]) == (5, 0)
    assert project.bytes() == whole


def test_a_stage_that_stumbles_once_a_shard_loses_nothing(project: Project, package: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    answer = project.run("--executor", "serial", "--set", f"loud.stumbles={marks}", extra=package)
    assert (answer["tasks"]["run"], answer["tasks"]["failed"], answer["quarantined"]) == (N_TASKS, 0, 0)
    assert len(list(marks.iterdir())) == 16
    check_all_but(project, [])


def test_a_stage_of_another_package_is_one_of_the_graph(project: Project, package: Path) -> None:
    plan = project.called("plan", str(project.pipeline), "--json", extra=package)
    assert [node["stage"] for node in json.loads(plan.stdout)["nodes"]] == ["librispeech", "loud", "extract"]
    # without the package, and with a field that its stage has not
    missing = project.called("plan", str(project.pipeline))
    assert missing.returncode == 2
    assert "pipeline.yaml:7: no stage is called 'loud'" in missing.stderr
    mistyped = project.called("run", str(project.pipeline), "--set", "loud.gian=3", extra=package)
    assert mistyped.returncode == 2
    assert "loud has no field 'gian'; did you mean 'gain'?" in mistyped.stderr
