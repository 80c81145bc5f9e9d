"""What a run lets others see: its log, its metrics, its state in the store, and what stalls."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.spec import load
from melmill.flows.watching.events import Note
from melmill.flows.watching.log import EventLog
from melmill.flows.watching.status import StatusReader
from melmill.storage.store import Store
from tests.flows.conftest import NODES, Project
from tests.flows.processes import running

STAGE = '''
"""A stage of another package that waits at some utterances, and fails or dies at others."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from melmill.stages.contract import Input, Kind, Outcome, Waveform, as_float, each


@dataclass(frozen=True, kw_only=True)
class Slow:
    uses: ClassVar = "slow"
    version: ClassVar = 1
    inputs: ClassVar = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    hangs: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    dies: tuple[str, ...] = ()
    until: str = ""

    def identity(self):
        return {}

    def produces(self, inputs):
        return Waveform(sr=inputs["from"][0].sr)

    def process(self, items, inputs, product):
        return each(items, self.one)

    def one(self, item):
        name = item.utterance.utterance_id
        while name in self.hangs and not Path(self.until).exists():
            time.sleep(0.05)
        if name in self.fails:
            raise RuntimeError("too much")
        if name in self.dies and not Path(self.until).exists():
            Path(self.until).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome(array=as_float(item.inputs["from"]))
'''

SLOW = """\
name: test
store: {store}
shard_duration_s: 3
max_quarantined: 0.5
stages:
  speech: {{uses: librispeech, root: {root}}}
  slow:   {{uses: slow, from: speech}}
cluster: {{pools: {{cpu: {{workers: 2}}}}}}
"""
HANGS, FAILS = "11-1-0002", "22-1-0003"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder, for PYTHONPATH, with the package as an installer leaves it."""
    folder = tmp_path / "site"
    facts = folder / "slow-1.0.dist-info"
    facts.mkdir(parents=True)
    (folder / "slow.py").write_text(STAGE)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[melmill.stages]\nslow = slow:Slow\n")
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def events(path: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in logged(path) if event["event"] == name]


def hung(log: Path) -> list[dict[str, Any]]:
    # On a busy machine others may stall for a moment.
    return [event for event in events(log, "task_stalled") if event["utterance"] == HANGS]


def scraped(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


@pytest.mark.slow
def test_a_run_that_hangs_says_where_to_whoever_asks(project: Project, package: Path, tmp_path: Path) -> None:
    project.write(SLOW)
    log, gate = tmp_path / "run.jsonl", tmp_path / "gate"
    port = free_port()
    arguments = [
        *("--log", str(log), "--stall-after", "1", "--set", f"cluster.dashboard=127.0.0.1:{port}"),
        *("--set", f"slow.hangs={HANGS}", "--set", f"slow.fails={FAILS}", "--set", f"slow.until={gate}"),
    ]
    with running(project, *arguments, extra=package) as client:
        client.until(lambda: bool(hung(log)))
        (stalled,) = hung(log)
        assert (stalled["node"], stalled["phase"]) == ("slow", "computing")
        assert stalled["worker"] in ("cpu-0", "cpu-1")
        assert stalled["running_s"] > max(1, 5 * (stalled["expected_s"] or 0))
        client.until(lambda: f"computing utterance {HANGS} for" in client.said)
        assert f"dashboard: http://127.0.0.1:{port}/status, metrics: http://127.0.0.1:{port}/metrics" in client.said
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=10) as page:
            assert b"Dask" in page.read()

        shards = events(log, "run_started")[0]["tasks"] // 2
        label = '{node="slow",project="test"}'
        client.until(
            lambda: scraped(f"http://127.0.0.1:{port}/metrics").get(f"melmill_tasks_stalled_total{label}", 0) >= 1
        )
        metrics = scraped(f"http://127.0.0.1:{port}/metrics")
        # Others may wait behind the one that hangs, on its worker.
        assert 1 <= metrics[f"melmill_tasks_in_flight{label}"] <= metrics[f"melmill_tasks_pending{label}"]
        assert metrics[f"melmill_tasks_done_total{label}"] + metrics[f"melmill_tasks_pending{label}"] == shards
        assert 0 < metrics['melmill_audio_seconds_total{node="speech",project="test"}'] < 17.3
        assert 'dask_scheduler_workers{state="idle"}' in metrics, "Dask's own are in the same scrape"

        # From the store alone: it shows the stall, waits, and ends with the run.
        watch = subprocess.Popen(
            project.command("status", str(project.store), "--watch", "--interval", "0.2"),
            env=project.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watch.stdout is not None
        for line in watch.stdout:
            if HANGS in line:
                break
        assert (
            f"stalled: slow, shard {stalled['shard']} ({stalled['worker']} on {stalled['host']}), utterance {HANGS}"
            in line
        )
        gate.touch()
        assert client.exit_code() == 0, client.said
        rest = watch.stdout.read()
        assert watch.wait(30) == 0
    assert re.search(rf"{2 * shards}/{2 * shards} tasks, .*run \d+T\d+ done", rest)
    assert len(hung(log)) == client.said.count(HANGS) == 1
    check_log(log, shards)


def check_log(log: Path, shards: int) -> None:
    lines = logged(log)
    assert [lines[0]["event"], lines[-1]["event"]] == ["run_started", "run_finished"]
    assert len({event["run"] for event in lines}) == 1
    assert lines[0]["tasks_pending"] == 2 * shards
    assert (lines[-1]["outcome"], lines[-1]["tasks_run"], lines[-1]["tasks_pending"]) == ("done", 2 * shards, 0)
    (driven,) = events(log, "tasks_driven")
    # The scheduler of a local cluster runs in the driver's process.
    assert (driven["tasks"], driven["scheduler_cpu_s"]) == (2 * shards, None)
    assert 0 < driven["driver_cpu_s"] < lines[-1]["duration_s"] * 2
    finished = events(log, "task_finished")
    assert {(event["node"], event["shard"]) for event in finished} == {
        (node, shard) for node in ("speech", "slow") for shard in range(shards)
    }
    for event in finished:
        assert event["wall_s"] >= event["compute_s"] > 0
        assert event["peak_mem_bytes"] > 2**20
        assert event["host"]
        assert event["worker"].startswith("cpu-")
        assert event["attempt"] == 1
    (quarantined,) = events(log, "utterances_quarantined")
    assert (quarantined["node"], quarantined["count"], quarantined["utterances"]) == ("slow", 1, [FAILS])


@pytest.mark.slow
def test_a_dead_worker_is_logged_and_the_log_goes_on_with_the_next_run(
    project: Project, package: Path, tmp_path: Path
) -> None:
    project.write(SLOW)
    log = tmp_path / "run.jsonl"
    mark = ["--set", "slow.dies=11-1-0001", "--set", f"slow.until={tmp_path / 'died'}"]
    project.run("--log", str(log), "--set", "cluster.pools.cpu.workers=1", *mark, extra=package)
    # A task that waited at the worker died with it.
    died = {(event["node"], event["shard"]) for event in events(log, "worker_died")}
    assert "slow" in {node for node, _ in died}
    for event in events(log, "worker_died"):
        assert (event["attempt"], event["deaths"], event["worker"]) == (1, 1, "cpu-0")
    attempts = {(event["node"], event["shard"]): event["attempt"] for event in events(log, "task_finished")}
    assert attempts == {place: 2 if place in died else 1 for place in attempts}
    n_events = len(logged(log))
    broken = next(project.store.glob("slow/*/records/000001.json"))
    broken.unlink()
    project.run("--log", str(log), "--executor", "serial", extra=package)
    lines = logged(log)[n_events:]
    assert [event["event"] for event in lines] == ["run_started", "cluster_ready", "task_finished", "run_finished"]
    assert lines[-1]["tasks_run"] == 1


def test_status_tells_of_failures_and_watch_ends_with_them(project: Project) -> None:
    project.run("--executor", "serial", "--until", "mel")
    victim = next(project.store.glob("mel/*/data/c/2/0"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    project.run("--executor", "serial", expect=1)
    watched = project.called("status", str(project.store), "--watch", "--interval", "0.1")
    assert watched.returncode == 1
    assert "2 failed" in watched.stdout
    assert "failed: gla, shard 2: DamagedData" in watched.stdout
    status = StatusReader(Store.open(str(project.store))).read()
    n_shards = status.nodes[0].shards
    assert status.n_tasks == len(NODES) * n_shards + 1
    assert (status.n_done, status.n_failed, status.over) == (len(NODES) * (n_shards - 1) + 2, 2, True)
    assert {node.node: node.failed for node in status.nodes}["admm"] == 1
    assert status.run is not None
    assert status.run.state == "failed"


def test_a_report_that_failed_is_told_without_a_shard(project: Project) -> None:
    project.run("--executor", "serial", "--until", "mel")
    store = Store.open(str(project.store))
    state = store.latest_state()
    assert state is not None
    store.write_state(
        replace(state, state="failed", failures=[{"node": "report", "shard": None, "reason": "ValueError: no"}])
    )
    watched = project.called("status", str(project.store), "--watch")
    assert "failed: report, all shards: ValueError: no" in watched.stdout


def test_a_watch_is_left_by_ctrl_c_and_finds_no_driver_that_was_killed(project: Project) -> None:
    with running(project, "--set", f"admm.n_iter={10**6}") as client:
        client.until(lambda: bool(list(project.store.glob("runs/*/state.json"))))
        client.process.kill()
        client.process.wait()
    watch = subprocess.Popen(
        project.command("status", str(project.store), "--watch", "--interval", "0.1", "--json"),
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert watch.stdout is not None
    looks = [json.loads(watch.stdout.readline()) for _ in range(3)]
    assert not looks[-1]["over"]
    assert looks[-1]["run"]["pid"] == client.process.pid
    os.killpg(watch.pid, signal.SIGINT)
    _, said = watch.communicate(timeout=30)
    assert (watch.returncode, said) == (130, "")


def test_the_report_and_the_records_tell_memory_and_time(finished: Project) -> None:
    (table,) = finished.store.glob("report/*/report/*/throughput.csv")
    header, *rows = [line.split(",") for line in table.read_text().splitlines()]
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    for whole, inside, memory in zip(columns["wall_s"], columns["compute_s"], columns["peak_mem_bytes"], strict=True):
        assert float(whole) > float(inside) > 0
        assert 2**20 < int(memory) < 2**34
    status = StatusReader(Store.open(str(finished.store))).read()
    assert {str(node.peak_mem_bytes) for node in status.nodes} >= set(columns["peak_mem_bytes"])
    assert all(not node.left for node in status.nodes)


def test_a_log_that_can_not_be_written_is_refused_or_given_up(project: Project, tmp_path: Path) -> None:
    refused = project.called("run", str(project.pipeline), "--log", str(tmp_path / "nowhere" / "run.jsonl"))
    assert refused.returncode == 2
    assert "run.jsonl' can't be written: No such file or directory" in refused.stderr
    complaints: list[str] = []
    with EventLog(Path("/dev/full"), "run", "project", complaints.append) as log:
        log(Note(text="one"))
        log(Note(text="two"))
    assert complaints == ["--log '/dev/full' ends here, the run goes on: No space left on device"]


def test_a_dashboard_is_refused_where_it_makes_no_sense(project: Project) -> None:
    address = "{type: address, address: 'tcp://127.0.0.1:1', dashboard: true}"
    for override, message in (
        ("cluster.dashboard=8787", "dashboard of cluster must be true or false or text, got 8787"),
        ("cluster.dashboard=everywhere", "an address such as 127.0.0.1:8787, got 'everywhere'"),
        (f"cluster={address}", "dashboard is for schedulers that run on this machine"),
    ):
        with pytest.raises(PipelineError, match=message):
            load(project.pipeline, [override])
