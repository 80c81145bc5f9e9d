"""Kills, cuts and damage: a run leaves whole files, and the next one goes on from there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import distributed
import psutil
import pytest

from benchmarks.faults.damage import cut, empty, flip
from benchmarks.faults.processes import PATIENCE_S
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.storage.catalogue import Catalogue
from melmill.storage.product import ProductFolder
from melmill.storage.store import Store
from melmill.storage.verify import verify
from tests.flows.conftest import Project, add_chapter, enlarge, flac, make_project, small_disk, voice
from tests.flows.processes import running

# Enough iterations that a kill finds a worker in the middle of them.
PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  admm:   {{uses: admm, from: mel, n_iter: 200}}
  scores: {{uses: score, from: admm, against: speech, metrics: [sc]}}
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""
N_TASKS = 28


@pytest.fixture
def project(project: Project) -> Project:
    project.write(PIPELINE)
    return project


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a project that nothing disturbed."""
    made = make_project(tmp_path_factory.mktemp("whole"), corpus_files, PIPELINE)
    assert made.run("--executor", "serial")["tasks"]["run"] == N_TASKS
    return made


@pytest.fixture(scope="module")
def undisturbed(whole: Project) -> dict[str, str]:
    return whole.bytes()


@pytest.fixture
def finished(project: Project, whole: Project) -> Project:
    """Return a project with a finished run in its own copy of the store."""
    shutil.copytree(whole.store, project.store)
    return project


def records(project: Project, node: str = "*") -> list[Path]:
    return sorted(project.store.glob(f"{node}/*/records/*.json"))


def check_rerun(project: Project, undisturbed: dict[str, str]) -> None:
    """Run again: tasks with a record are reused, and the bytes are those of an undisturbed run."""
    n_done = len(records(project))
    tasks = project.run("--executor", "serial")["tasks"]
    assert tasks == {"total": N_TASKS, "run": N_TASKS - n_done, "reused": n_done, "failed": 0}
    assert stored(project) == undisturbed


def stored(project: Project) -> dict[str, str]:
    """Return the hashes of all files but hidden ones, which a killed writer may leave."""
    return {name: digest for name, digest in project.bytes().items() if not Path(name).name.startswith(".")}


def test_a_killed_worker_costs_its_tasks_another_attempt(project: Project, undisturbed: dict[str, str]) -> None:
    with running(project) as client:
        client.until(lambda: bool(records(project, "admm")))
        (worker,) = client.workers()
        worker.kill()
        assert client.exit_code() == 0, client.said
    assert "its worker died; trying again" in client.said
    assert len(records(project)) == N_TASKS
    check_rerun(project, undisturbed)


def test_a_killed_client_takes_its_workers_along(project: Project, undisturbed: dict[str, str]) -> None:
    with running(project, "--set", "cluster.pools.cpu.workers=2") as client:
        client.until(lambda: bool(records(project, "admm")))
        children = client.children()
        assert len(client.workers()) == 2
        client.process.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
    assert 0 < len(records(project)) < N_TASKS
    check_rerun(project, undisturbed)


# One row for each way to be asked to stop.
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda pid: os.killpg(pid, signal.SIGINT), id="ctrl-C, which workers get too"),
        pytest.param(
            lambda pid: os.kill(pid, signal.SIGTERM), id="SIGTERM to the client alone", marks=pytest.mark.slow
        ),
    ],
)
def test_an_interrupted_run_finishes_what_is_in_flight(
    project: Project, undisturbed: dict[str, str], stop: Callable[[int], None]
) -> None:
    with running(project) as client:
        client.until(lambda: bool(records(project, "admm")))
        stop(client.process.pid)
        assert client.exit_code() == 130, client.said
    assert "stopping: waiting for" in client.said
    assert "interrupted: what is stored stays; run again to go on" in client.said
    # Every task that had begun was waited for: what the client counted is what is stored.
    n_done = len(records(project))
    assert f"{n_done}/{N_TASKS} tasks" in client.said
    assert n_done < N_TASKS
    check_rerun(project, undisturbed)


@pytest.mark.slow
def test_a_second_interrupt_leaves_at_once(project: Project, undisturbed: dict[str, str]) -> None:
    with running(project, "--set", f"admm.n_iter={10**6}") as client:
        # A worker goes on with the shard of its mel, and is then at ADMM for ever.
        client.until(lambda: bool(records(project, "mel")))
        os.killpg(client.process.pid, signal.SIGINT)
        client.until(lambda: "interrupt again" in client.said)
        children = client.children()
        os.killpg(client.process.pid, signal.SIGINT)
        assert client.exit_code(timeout_s=30) == 130
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
    assert not records(project, "admm")
    shutil.rmtree(project.store / "admm")
    shutil.rmtree(project.store / "scores")
    check_rerun(project, undisturbed)


def test_an_interrupted_serial_run_stops_within_its_task(project: Project, undisturbed: dict[str, str]) -> None:
    with running(project, "--executor", "serial") as client:
        client.until(lambda: bool(records(project, "admm")))
        os.killpg(client.process.pid, signal.SIGINT)
        assert client.exit_code() == 130, client.said
    assert "interrupted: what is stored stays; run again to go on" in client.said
    assert len(records(project)) < N_TASKS
    check_rerun(project, undisturbed)


# One row for each thing that can happen to a file without anybody looking.
@pytest.mark.parametrize(
    ("file", "damage"),
    [
        pytest.param("admm/*/data/c/1", cut, id="half a shard"),
        pytest.param("mel/*/data/c/2/0", empty, id="an empty shard"),
        pytest.param("speech/*/data/c/0", Path.unlink, id="no shard"),
        pytest.param("scores/*/table/000003.parquet", cut, id="half a table"),
        pytest.param("admm/*/records/000004.json", Path.unlink, id="no record"),
        pytest.param("speech/*/records/000005.json", cut, id="half a record"),
    ],
)
def test_one_damaged_file_costs_one_task(
    finished: Project, undisturbed: dict[str, str], file: str, damage: Callable[[Path], None]
) -> None:
    (path,) = finished.store.glob(file)
    damage(path)
    tasks = run(make_plan(load(finished.pipeline)), "serial").tasks
    assert (tasks.run, tasks.reused, tasks.failed) == (1, N_TASKS - 1, 0)
    assert finished.bytes() == undisturbed


def test_a_flipped_bit_is_found_never_used_and_repaired(finished: Project, undisturbed: dict[str, str]) -> None:
    (path,) = finished.store.glob("mel/*/data/c/2/0")
    flip(path)
    damaged = finished.called("verify", str(finished.store))
    assert damaged.returncode == 1
    assert "mel" in damaged.stdout
    assert "data/c/2/0" in damaged.stdout
    # Its size is right, so only what reads it finds out; all the other shards go on.
    refused = finished.called("run", str(finished.pipeline), "--executor", "serial", "--set", "admm.n_iter=1")
    assert refused.returncode == 1
    assert "failed: admm, shard 2: DamagedData: node 'mel', record '000002'" in refused.stderr
    assert f"{path}: has checksum" in refused.stderr
    assert "Run `melmill repair` on the store" in refused.stderr
    assert "2 tasks failed or needed failed ones" in refused.stderr
    repaired = finished.called("repair", str(finished.store), "--json")
    assert [(one["node"], one["file"]) for one in json.loads(repaired.stdout)["dropped"]] == [("mel", "data/c/2/0")]
    assert finished.run("--executor", "serial")["tasks"]["run"] == 1
    bytes_after = finished.bytes()
    assert {name: bytes_after[name] for name in undisturbed} == undisturbed
    assert finished.called("verify", str(finished.store)).returncode == 0


@pytest.mark.slow
def test_two_clients_at_once_do_not_harm_each_other(project: Project, undisturbed: dict[str, str]) -> None:
    with running(project, "--executor", "serial") as one, running(project) as other:
        assert one.exit_code() == 0, one.said
        assert other.exit_code() == 0, other.said
    assert len(records(project)) == N_TASKS
    check_rerun(project, undisturbed)


@pytest.mark.slow
def test_who_looks_while_another_run_begins_sees_no_damage(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    begins = [lambda: project.run("--executor", "serial")]

    def then_begins(look: Callable[..., object]) -> Callable[..., object]:
        def looked(*arguments: object) -> object:
            answer = look(*arguments)
            while begins:
                begins.pop()()
            return answer

        return looked

    # Whichever is looked at first is as it was before the other run, and the second as it is after.
    monkeypatch.setattr(Store, "catalogue", then_begins(Store.catalogue))
    monkeypatch.setattr(ProductFolder, "record_names", then_begins(ProductFolder.record_names))
    monkeypatch.setattr(ProductFolder, "inventory", then_begins(ProductFolder.inventory))
    monkeypatch.setattr(Catalogue, "read", then_begins(Catalogue.read))
    plan = make_plan(load(project.pipeline))
    assert not begins
    assert not any(node.damaged for node in plan.nodes.values())
    assert project.run("--executor", "serial")["tasks"]["run"] == 0
    add_chapter(project.root, "dev-clean", "33", [flac(voice(1.0, 150.0, seed=9))])
    begins.append(lambda: project.run("--executor", "serial"))
    assert not verify(Store.open(str(project.store)))
    assert not begins


@dataclass(frozen=True)
class Cluster:
    """A scheduler and a worker, each a process that somebody else started."""

    address: str
    scheduler: subprocess.Popen[bytes]
    worker: subprocess.Popen[bytes]

    @property
    def override(self) -> str:
        return f"cluster={{type: address, address: '{self.address}', pools: {{cpu: {{workers: 1}}}}}}"


@pytest.fixture
def cluster(project: Project) -> Iterator[Cluster]:
    with cluster_of_one(project) as cluster:
        yield cluster


@contextmanager
def cluster_of_one(project: Project) -> Iterator[Cluster]:
    file = project.folder / "scheduler.json"
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    with (
        dask_process(project, "scheduler", "--host", "127.0.0.1", "--port", "0", *common) as scheduler,
        dask_process(project, "worker", "--nthreads", "1", "--no-nanny", *common) as worker,
        distributed.Client(scheduler_file=str(file), timeout=PATIENCE_S, set_as_default=False) as client,
    ):
        client.wait_for_workers(1, timeout=PATIENCE_S)
        address = json.loads(file.read_text())["address"]
        client.close()
        yield Cluster(address, scheduler, worker)


@contextmanager
def dask_process(project: Project, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with (project.folder / f"dask-{arguments[0]}.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            cwd=project.folder,
            env=project.environment(),
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_running_cluster_is_used_by_its_address(
    project: Project, undisturbed: dict[str, str], cluster: Cluster
) -> None:
    log = project.folder / "log.jsonl"
    before = psutil.Process(cluster.scheduler.pid).cpu_times()
    assert project.run("--set", cluster.override, "--log", str(log))["tasks"]["failed"] == 0
    assert cluster.scheduler.poll() is None, "a cluster that others started goes on"
    after = psutil.Process(cluster.scheduler.pid).cpu_times()
    (driven,) = [one for one in map(json.loads, log.read_text().splitlines()) if one["event"] == "tasks_driven"]
    assert driven["tasks"] == N_TASKS
    assert 0 < driven["scheduler_cpu_s"] <= after.user + after.system - before.user - before.system
    assert driven["driver_cpu_s"] > 0
    check_rerun(project, undisturbed)


@pytest.mark.slow
def test_a_lost_scheduler_ends_the_run_which_goes_on_elsewhere(
    project: Project, undisturbed: dict[str, str], cluster: Cluster
) -> None:
    with running(project, "--set", cluster.override) as client:
        client.until(lambda: bool(records(project, "admm")))
        cluster.scheduler.kill()
        assert client.exit_code(timeout_s=90) == 1, client.said
    assert "error: the Dask scheduler is lost; run again to go on from what is stored" in client.said
    assert "Traceback" not in client.said
    # The worker may still finish the task that it is at, for the store and not for the scheduler.
    cluster.worker.kill()
    cluster.worker.wait()
    assert len(records(project)) < N_TASKS
    check_rerun(project, undisturbed)


@pytest.mark.slow
def test_a_scheduler_that_falls_silent_is_told_of_and_waited_for(
    project: Project, undisturbed: dict[str, str], cluster: Cluster
) -> None:
    with running(project, "--set", cluster.override, "--stall-after", "0.5") as client:
        client.until(lambda: bool(records(project, "mel")))
        cluster.scheduler.send_signal(signal.SIGSTOP)
        client.until(lambda: f"the Dask scheduler at {cluster.address} does not answer" in client.said)
        # whoever watches from elsewhere sees that the driver lives
        store = Store.open(str(project.store))
        last = store.latest_state()
        client.until(lambda: store.latest_state() != last)
        cluster.scheduler.send_signal(signal.SIGCONT)
        assert client.exit_code() == 0, client.said
    check_rerun(project, undisturbed)


@pytest.mark.slow
def test_a_run_whose_scheduler_is_silent_can_be_left(project: Project, cluster: Cluster) -> None:
    with running(project, "--set", cluster.override) as client:
        client.until(lambda: bool(records(project, "mel")))
        cluster.scheduler.send_signal(signal.SIGSTOP)
        client.signal(signal.SIGINT)
        client.until(lambda: "interrupt again to leave at once" in client.said)
        client.signal(signal.SIGINT)
        assert client.exit_code(timeout_s=60) == 130, client.said


@pytest.mark.slow
def test_the_loss_of_all_workers_ends_the_run_in_a_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT", "3s")
    with cluster_of_one(project) as cluster, running(project, "--set", cluster.override) as client:
        client.until(lambda: bool(records(project, "mel")))
        cluster.worker.kill()
        assert client.exit_code() == 1, client.said
    (error,) = (line for line in client.said.splitlines() if line.startswith("error:"))
    assert error == "error: no worker is left and none can be started; run again to go on from what is stored"
    assert "Traceback" not in client.said


@pytest.fixture
def disk(project: Project) -> Iterator[Path]:
    """Return a file system of its own with room for a part of the run."""
    with small_disk(project.folder / "disk", "600k") as folder:
        yield folder


@pytest.mark.slow
def test_a_full_disk_ends_the_run_which_goes_on_with_more_room(
    project: Project, undisturbed: dict[str, str], disk: Path
) -> None:
    project.store = disk / "store"
    project.write(PIPELINE)
    full = project.melmill("run", str(project.pipeline))
    assert full.returncode == 1, full.stderr
    errors = [line for line in full.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: can't write {project.store}/")
    assert errors[0].endswith("No space left on device. Free some room, then run again: what is stored is kept.")
    assert 0 < len(records(project)) < N_TASKS
    enlarge(disk)
    check_rerun(project, undisturbed)
