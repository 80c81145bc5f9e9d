"""What a run will take, from a part of it that is kept."""

from __future__ import annotations

import json

import pytest

from melmill.flows.pipeline.spec import load
from melmill.flows.planning.estimate import Paces, sample
from melmill.flows.planning.plan import make_plan
from melmill.flows.tasks.task import Receipt, Task
from melmill.flows.watching.events import Finished
from tests.flows.conftest import NODES, Project


def finished(node: str, worker: str, audio_s: float, wall_s: float) -> Finished:
    receipt = Receipt(
        n_utterances=1,
        n_quarantined=0,
        audio_s=audio_s,
        compute_s=wall_s,
        wall_s=wall_s,
        peak_mem_bytes=1,
        host="here",
        worker=worker,
    )
    return Finished(task=Task(node, "speech", 0), attempt=1, receipt=receipt)


def test_a_workers_first_task_tells_of_starting_and_the_others_of_the_pace() -> None:
    paces = Paces()
    for event in (
        finished("mel", "cpu-0", 10.0, 5.0),  # 1 s of work, 4 s to start
        finished("mel", "cpu-1", 20.0, 4.0),  # 2 s of work, 2 s to start
        finished("mel", "cpu-0", 30.0, 3.0),
        finished("mel", "cpu-1", 10.0, 1.0),
        finished("admm", "cpu-0", 10.0, 2.0),  # nothing to compare with
    ):
        paces(event)
    assert paces.pace("mel") == pytest.approx(0.1)
    assert paces.starting_s("mel") == pytest.approx(3.0)
    assert paces.pace("admm") == pytest.approx(0.2)
    assert paces.starting_s("admm") == 0.0
    assert (paces.pace("gla"), paces.starting_s("gla")) == (None, 0.0)


def test_a_sample_is_spread_and_whole(project: Project) -> None:
    plan = make_plan(load(project.pipeline, ["cluster.pools.cpu.workers=1"]))
    part = sample(plan, per_slot=2)
    n_shards = plan.nodes["mel"].n_shards
    assert n_shards == 7
    assert part.nodes["report"].pending == set()
    for name in NODES:
        assert part.nodes[name].pending == {1, 5}
    assert sample(plan, per_slot=100).nodes["mel"].pending == set(range(n_shards))


@pytest.mark.slow
def test_an_estimate_keeps_its_work_and_knows_room_and_files(project: Project) -> None:
    arguments = ["plan", str(project.pipeline), "--estimate", "--json", "--set", "cluster.pools.cpu.workers=1"]
    done = project.called(*arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sampled"] == 3 * len(NODES)
    assert found["left_out"] == ["report"]
    assert {node["node"]: node["shards_left"] for node in found["nodes"]} == dict.fromkeys(NODES, 4)
    (pool,) = found["pools"]
    assert (pool["pool"], pool["slots"]) == ("cpu", 1)
    work_s = sum(node["left_s"] for node in found["nodes"])
    assert found["left_s"] == pool["left_s"] == pytest.approx(pool["starting_s"] + work_s)
    assert all(node["task_s_per_audio_s"] > 0 for node in found["nodes"])

    # Nothing of the sample is done again.
    assert project.run("--executor", "serial")["tasks"] == {"total": 43, "run": 25, "reused": 18, "failed": 0}
    for node in found["nodes"]:
        folder = node["node"].partition("[")[0]
        fan_out = len(list((project.store / folder).iterdir()))
        files = [path for part in ("data/c", "table", "trace", "quarantine", "records") for path in
                 project.store.glob(f"{folder}/*/{part}/**/*") if path.is_file()]  # fmt: skip
        assert node["files"] == len(files) / fan_out
        assert node["disk_bytes"] == pytest.approx(sum(path.stat().st_size for path in files) / fan_out, rel=0.15)

    # With all done there is nothing to run, but room and files are known.
    again = json.loads(project.called(*arguments).stdout)
    assert (again["sampled"], again["left_s"], again["pools"]) == (0, 0.0, [])
    assert again["files"] == found["files"]
