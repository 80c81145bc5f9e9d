"""A machine's failure is nobody's fault: it is tried elsewhere, and else the run ends in a line."""

from __future__ import annotations

import pickle
import platform
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed import Client

import melmill
from benchmarks.faults.package import install
from melmill.flows.execution.errors import MachineFailed, RunFailed
from melmill.flows.execution.machines import MAX_ASIDE, Again, Machines
from melmill.flows.tasks.judging import judge
from melmill.flows.tasks.task import Task
from melmill.flows.watching.events import Event, Note, Place
from melmill.stages.blame import Blame, Verdict
from melmill.stages.contract import Outcome, Rejected, rejection
from melmill.stages.numeric.errors import Unusable
from tests.flows.conftest import Project, packages_of
from tests.flows.execution.test_poison import check_all_but, quarantined

STAGE = '''
"""A stage of another package, on machines that fail."""

import errno
import os
import subprocess
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from melmill.stages.contract import Input, Kind, Outcome, Waveform, as_float, each
from melmill.stages.numeric.errors import Unusable

ERRORS = {
    "cuda": lambda name: RuntimeError(f"CUDA error: an illegal memory access was encountered\\nat {name}"),
    "memory": lambda name: MemoryError("Unable to allocate 8.00 TiB"),
    "room": lambda name: OSError(errno.ENOSPC, "No space left on device", f"/scratch/{name}.tmp"),
    "child": lambda name: subprocess.CalledProcessError(3, ["denoise", name]),
    "module": lambda name: ModuleNotFoundError("No module named 'denoise'"),
    "value": lambda name: ValueError(f"{name} has a mean of {hash(name) % 7}.5"),
    "refusal": lambda name: Unusable("too loud"),
}


@dataclass(frozen=True, kw_only=True)
class Frail:
    uses: ClassVar = "loud"
    version: ClassVar = 1
    inputs: ClassVar = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    error: str = ""
    utterances: str = ""
    workers: str = ""

    def identity(self):
        return {}

    def produces(self, inputs):
        return Waveform(sr=inputs["from"][0].sr)

    def process(self, items, inputs, product):
        if self.workers and "FRAIL_WORKER" not in os.environ:
            from distributed import get_worker

            os.environ["FRAIL_WORKER"] = str(get_worker().name)  # for the child processes too
        return each(items, self.louder)

    def louder(self, item):
        name = item.utterance.utterance_id
        sick = not self.workers or os.environ["FRAIL_WORKER"] in self.workers.split()
        if self.error and sick and name.startswith(tuple(self.utterances.split()) or ""):
            raise ERRORS[self.error](name)
        if self.workers:
            time.sleep(0.3)  # the sick worker gets its share of tasks
        return Outcome(array=as_float(item.inputs["from"]) * np.float32(2))
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
cluster: {{pools: {{cpu: {{workers: 2}}}}}}
"""
N_TASKS = 21


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the stage for this process, and for those that it starts."""
    folder = tmp_path / "site"
    install(folder, "loud", STAGE, "Frail")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    with packages_of(folder):
        yield folder


@pytest.fixture
def project(project: Project, package: Path) -> Project:
    project.write(PIPELINE)
    return project


def run(project: Project, *options: str, executor: str = "serial") -> tuple[int, str, list[str]]:
    """Run with options of the stage; return exit code, errors, and what was said."""
    sets = [argument for option in options for argument in ("--set", option)]
    done = project.called("run", str(project.pipeline), "--executor", executor, *sets)
    lines = done.stderr.splitlines()
    return done.returncode, "\n".join(line for line in lines if line.startswith("error:")), lines


# One row for each kind of failure: what is injected, and what the line must say.
@pytest.mark.parametrize(
    ("error", "says", "remedy"),
    [
        ("cuda", "RuntimeError: CUDA error: an illegal memory access was encountered", "nvidia-smi"),
        ("value", "ValueError: ", "All its utterances failed alike"),
        pytest.param("memory", "MemoryError: Unable to allocate 8.00 TiB", "more memory", marks=pytest.mark.slow),
        pytest.param("room", "No space left on device: '/scratch/", "free some room there", marks=pytest.mark.slow),
        pytest.param("child", "CalledProcessError: Command", "child processes", marks=pytest.mark.slow),
        pytest.param("module", "No module named 'denoise'", "install there", marks=pytest.mark.slow),
    ],
)
def test_what_fails_all_alike_ends_the_run_in_a_line_and_blames_nobody(
    project: Project, error: str, says: str, remedy: str
) -> None:
    code, line, _ = run(project, f"loud.error={error}")
    assert code == 1
    assert re.match(rf"error: .*loud, shard \d: failed on {platform.node()}|error: 3 tasks in a row failed on", line)
    assert says in line
    assert remedy in line
    assert line.endswith("then run again: what is stored is kept")
    assert "\n" not in line
    assert not quarantined(project)
    # The machine is well again: nothing keeps a trace of it.
    code, _, _ = run(project)
    assert code == 0
    check_all_but(project, [])


@pytest.mark.parametrize("error", ["memory", pytest.param("cuda", marks=pytest.mark.slow), "value", "refusal"])
def test_an_utterance_that_alone_fails_everywhere_is_set_aside(project: Project, error: str) -> None:
    code, line, said = run(project, f"loud.error={error}", "loud.utterances=22-1-0005")
    assert (code, line) == (0, "")
    assert list(quarantined(project)) == ["22-1-0005"]
    check_all_but(project, ["22-1-0005"])
    assert any("trying again" in line for line in said) == (error in ("memory", "cuda"))


def test_refusals_on_purpose_are_the_utterances_own_however_many(project: Project) -> None:
    answer = project.run("--executor", "serial", "--set", "loud.error=refusal", "--set", "max_quarantined=1.0")
    assert (answer["quarantined"], answer["tasks"]["failed"]) == (16, 0)


def test_the_only_utterance_of_a_shard_is_judged_by_other_shards(project: Project) -> None:
    # Every utterance has a shard of its own.
    options = ["shard_duration_s=0.5", "loud.utterances=22-1-0005 11-1-0003"]
    code, line, _ = run(project, "loud.error=memory", *options)
    assert (code, line) == (0, "")
    assert sorted(quarantined(project)) == ["11-1-0003", "22-1-0005"]
    check_all_but(project, ["11-1-0003", "22-1-0005"])


def test_a_sick_worker_is_taken_out_of_service(project: Project) -> None:
    # A worker of a run that others help: cpu-1 does all that cpu-0 fails.
    options = ["loud.error=cuda", "loud.workers=cpu-0", "shard_duration_s=0.5"]
    code, line, said = run(project, *options, executor="dask")
    assert (code, line) == (0, ""), said
    assert not quarantined(project)
    check_all_but(project, [])
    (note,) = [line for line in said if "out of service" in line]
    assert re.fullmatch(
        rf"worker cpu-0 on {platform.node()} is taken out of service: \d tasks in a row failed: "
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        note,
    )


@pytest.mark.slow
def test_where_all_workers_fail_the_run_names_them(project: Project) -> None:
    code, line, _ = run(project, "loud.error=room", executor="dask")
    assert code == 1
    assert f"cpu-0 on {platform.node()}" in line
    assert f"cpu-1 on {platform.node()}" in line
    assert "No utterance is to blame: free some room there" in line
    assert not quarantined(project)


@contextmanager
def dask(project: Project, *arguments: str, extra: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a part of a Dask cluster, whose scheduler is known by a file."""
    options = ["--scheduler-file", str(project.folder / "scheduler.json"), "--no-dashboard"]
    with (project.folder / f"dask-{'-'.join(arguments[:3])}.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments, *options],
            cwd=project.folder,
            env=project.environment(extra),
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_worker_that_lacks_a_package_is_left_alone(project: Project, package: Path) -> None:
    worker = ["worker", "--nthreads", "1", "--no-nanny", "--name"]
    with (
        dask(project, "scheduler", "--host", "127.0.0.1", "--port", "0"),
        dask(project, *worker, "bare"),
        dask(project, *worker, "well", extra=package) as well,
        Client(scheduler_file=str(project.folder / "scheduler.json"), timeout=120, set_as_default=False) as client,
    ):
        client.wait_for_workers(2, timeout=120)
        address = client.scheduler.address
        cluster = f"cluster={{type: address, address: '{address}', pools: {{cpu: {{workers: 2}}}}}}"
        code, line, said = run(project, cluster, "loud.workers=none", "shard_duration_s=0.5", executor="dask")
        assert (code, line) == (0, ""), said
        assert not quarantined(project)
        check_all_but(project, [])
        (note,) = [line for line in said if "out of service" in line] or [str(said)]
        assert note.startswith("worker bare on ")
        assert "ModuleNotFoundError: No module named 'loud'" in note
        # It is somebody else's, and stays up.
        assert len(client.scheduler_info()["workers"]) == 2
        well.kill()
        well.wait()
        code, line, _ = run(project, cluster, "speech.sr=8000", executor="dask")
        assert code == 1
        assert "bare" in line
        assert "No module named 'loud'" in line


HERE, THERE, ELSEWHERE = (Place(worker=name, host=f"host-{name}", address=name) for name in "abc")
ALL = ("a", "b", "c")
CUDA = Verdict(blame=Blame.MACHINE, remedy="check the GPU")


def task(shard: int, node: str = "mel") -> Task:
    return Task(node, "speech", shard)


def failure(verdict: Verdict = CUDA, n: int = 4, *names: str) -> MachineFailed:
    return MachineFailed("RuntimeError: CUDA error", verdict, names, n, is_whole=not names)


class Said(list[Event]):
    """The events that were announced."""

    def __call__(self, event: Event) -> None:
        self.append(event)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def machines(said: Said) -> Machines:
    return Machines(said)


def test_a_task_is_tried_on_each_worker_and_last_in_isolation(machines: Machines) -> None:
    one = task(0)
    assert machines.failed(one, failure(), HERE, ALL) == Again(task=one, on=frozenset("bc"))
    assert machines.failed(one, failure(), THERE, ALL) == Again(task=one, on=frozenset("c"), isolated=True)
    with pytest.raises(RunFailed) as ended:
        machines.failed(one, failure(), ELSEWHERE, ALL)
    assert str(ended.value) == (
        "mel, shard 0: failed on a on host-a, b on host-b, c on host-c: RuntimeError: CUDA error. "
        "No utterance is to blame: check the GPU; then run again: what is stored is kept"
    )


def test_a_message_that_says_all_ends_without_a_remedy(machines: Machines) -> None:
    one, verdict = task(0), Verdict(blame=Blame.MACHINE)
    for place in (HERE, THERE):
        assert machines.failed(one, failure(verdict), place, "abcd") is not None
    with pytest.raises(
        RunFailed, match=r"CUDA error\. No utterance is to blame\. Run again when that is mended: what is"
    ):
        machines.failed(one, failure(verdict), ELSEWHERE, "abcd")


def test_a_worker_that_fails_what_others_do_is_taken_out_and_its_failures_count_no_more(
    machines: Machines, said: Said
) -> None:
    machines.succeeded(task(9), THERE)
    for shard in range(2):
        assert machines.failed(task(shard), failure(), HERE, ALL) is not None
    # Attempts on a sick worker do not count against a task.
    assert machines.failed(task(2), failure(), HERE, ALL) == Again(task=task(2), on=frozenset("bc"))
    assert list(machines.out_of_service) == ["a"]
    (note,) = said
    assert isinstance(note, Note)
    assert "worker a on host-a is taken out of service: 3 tasks in a row failed" in note.text
    assert machines.failed(task(2), failure(), THERE, ALL) == Again(task=task(2), on=frozenset("c"))


@pytest.mark.parametrize(
    ("shards", "well"),
    [([0, 0, 0], [THERE]), ([0, 1, 2], []), ([0, 1], [THERE])],
    ids=["one shard", "no other did better", "two tasks"],
)
def test_a_worker_stays_in_service(machines: Machines, shards: list[int], well: Collection[Place]) -> None:
    for place in well:
        machines.succeeded(task(9), place)
    for shard in shards[:2]:
        machines.failed(task(shard), failure(), HERE, ALL)
    assert not machines.out_of_service


def test_a_success_ends_a_row(machines: Machines) -> None:
    machines.succeeded(task(9), THERE)
    for shard in range(6):
        machines.failed(task(shard), failure(), HERE, ALL)
        if shard % 2:
            machines.succeeded(task(10 + shard), HERE)
    assert not machines.out_of_service


def test_the_last_worker_in_service_ends_the_run(machines: Machines) -> None:
    machines.succeeded(task(9), THERE)
    for shard in range(3):
        machines.failed(task(shard), failure(), HERE, ("a", "b"))
    assert list(machines.out_of_service) == ["a"]
    for shard in range(3, 5):
        machines.failed(task(shard), failure(), THERE, ("a", "b"))
    with pytest.raises(RunFailed, match="3 tasks in a row failed on b on host-b, and no other worker is left"):
        machines.failed(task(5), failure(), THERE, ("a", "b"))


ALIKE = Verdict(blame=Blame.LIKELY_UTTERANCE, remedy="check the stage")


def fail_for_good(machines: Machines, shard: int, n: int, verdict: Verdict = ALIKE) -> None:
    """Let a shard fail on the only worker until it is put aside."""
    assert machines.failed(task(shard), failure(verdict, n), HERE, ()) is not None
    assert machines.failed(task(shard), failure(verdict, n), HERE, ()) is None


def test_a_shard_of_one_is_tried_again_when_its_worker_did_another(machines: Machines) -> None:
    fail_for_good(machines, 0, n=1)
    assert machines.succeeded(task(1, "other node"), HERE) == []
    assert machines.succeeded(task(1), THERE) == []
    (again,) = machines.succeeded(task(1), HERE)
    assert again == Again(task=task(0), on=frozenset("a"), trusted=True)
    assert machines.at_end() == []


def test_a_shard_of_many_that_fails_alike_ends_the_run_after_all_else(machines: Machines) -> None:
    fail_for_good(machines, 0, n=4)
    assert machines.succeeded(task(1), HERE) == []
    with pytest.raises(RunFailed, match=r"All its utterances failed alike"):
        machines.at_end()


def test_the_only_utterance_of_a_corpus_is_to_blame_for_what_data_cause(machines: Machines) -> None:
    fail_for_good(machines, 0, n=1)
    (again,) = machines.at_end()
    assert again.trusted


def test_shards_of_one_that_all_fail_are_not_to_blame(machines: Machines) -> None:
    for shard in range(MAX_ASIDE - 1):
        fail_for_good(machines, shard, n=1)
    with pytest.raises(RunFailed, match="No utterance is to blame"):
        fail_for_good(machines, MAX_ASIDE, n=1)


def rejected(error: Exception) -> Outcome:
    return Outcome(rejected=rejection(error))


FINE = Outcome(row={})


# Outcomes by utterance, those suspected, and who is to blame: None for the utterances.
@pytest.mark.parametrize(
    ("outcomes", "suspects", "blamed"),
    [
        pytest.param({"a": FINE, "b": rejected(ValueError("x"))}, "", None, id="one fails"),
        pytest.param(
            {"a": rejected(ValueError("a has 3")), "b": rejected(ValueError("b has 4"))}, "", "ab", id="all, alike"
        ),
        pytest.param({"a": rejected(ValueError("x")), "b": rejected(TypeError("y"))}, "", None, id="all, each its own"),
        pytest.param({"a": rejected(Unusable("x")), "b": rejected(Unusable("x"))}, "", None, id="all refused"),
        pytest.param({"a": rejected(Unusable("x")), "b": rejected(ValueError("x"))}, "", "b", id="all that was tried"),
        pytest.param({"a": FINE, "b": rejected(MemoryError())}, "", "b", id="memory, first time"),
        pytest.param({"a": FINE, "b": rejected(MemoryError())}, "b", None, id="memory, elsewhere too"),
        pytest.param({"a": FINE, "b": rejected(MemoryError())}, "a", "b", id="memory, elsewhere another"),
        pytest.param({"a": rejected(MemoryError()), "b": rejected(MemoryError())}, "ab", "ab", id="memory for all"),
        pytest.param({"a": Outcome(rejected=Rejected(reason="no")), "b": FINE}, "", None, id="refused without words"),
    ],
)
def test_a_shard_tells_whom_to_blame(outcomes: dict[str, Outcome], suspects: str, blamed: str | None) -> None:
    if blamed is None:
        judge(outcomes, suspects, trusted=False)
        return
    with pytest.raises(MachineFailed) as failed:
        judge(outcomes, suspects, trusted=False)
    assert "".join(failed.value.utterances) == blamed
    judge(outcomes, suspects, trusted=True)


def test_a_failure_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(failure(CUDA, 4, "a")))
    assert vars(error) == vars(failure(CUDA, 4, "a"))
    assert str(error) == "RuntimeError: CUDA error"


def test_python_raises_the_line(project: Project) -> None:
    with pytest.raises(melmill.RunFailed, match="No utterance is to blame"):
        melmill.run(project.pipeline, set={"loud.error": "module"}, executor="serial")
