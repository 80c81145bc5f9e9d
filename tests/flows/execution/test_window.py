"""The order in which tasks are handed out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
import pytest

from melmill.cluster.contract import Pool
from melmill.cluster.types.local import Local
from melmill.flows.execution.dask import run_dask
from melmill.flows.execution.errors import RunFailed
from melmill.flows.execution.serial import run_serial
from melmill.flows.execution.window import ShardWindow
from melmill.flows.pipeline.graph import Node, build_graph
from melmill.flows.pipeline.spec import load
from melmill.flows.tasks.job import Job
from melmill.flows.tasks.task import Receipt, Task
from melmill.storage.corpus.shard_set import ShardSet

PIPELINE = """\
name: x
store: x
stages:
  speech: {uses: librispeech, root: data}
  mel: {uses: extract, from: speech}
  a: {uses: griffin_lim, from: mel}
  b: {uses: admm, from: mel}
  scores: {uses: score, from: [a, b], against: speech, metrics: [sc]}
  report: {uses: aggregate, from: scores}
"""
FLOW = ["speech", "mel", "a", "b", "scores[a]", "scores[b]"]


@pytest.fixture
def nodes(tmp_path: Path) -> dict[str, Node]:
    path = tmp_path / "p.yaml"
    path.write_text(PIPELINE)
    return build_graph(load(path))


def pending(n_shards: int) -> dict[str, set[int]]:
    return {name: set(range(n_shards)) for name in FLOW} | {"report": {-1}}


def drained(window: ShardWindow) -> list[Task]:
    order = []
    while not window.done:
        task = window.take("cpu")
        assert task is not None
        order.append(task)
        window.finish(task)
    return order


def test_a_shard_flows_to_its_end_before_the_next_begins(nodes: dict[str, Node]) -> None:
    order = drained(ShardWindow(nodes, pending(3), max_open=8))
    assert [(task.node, task.shard) for task in order] == [
        *((name, shard) for shard in range(3) for name in FLOW),
        ("report", -1),
    ]


def test_every_report_is_handed_out(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(PIPELINE + "  second: {uses: aggregate, from: scores, examples: 0}\n")
    window = ShardWindow(build_graph(load(path)), pending(2) | {"second": {-1}}, max_open=8)
    assert [task.node for task in drained(window)][-2:] == ["report", "second"]


def test_no_task_is_handed_out_before_its_inputs_are_done(nodes: dict[str, Node]) -> None:
    window = ShardWindow(nodes, pending(4), max_open=8)
    running: list[Task] = []
    done: set[Task] = set()
    while not window.done:
        while (task := window.take("cpu")) is not None:
            running.append(task)
            assert {Task(s, task.corpus, task.shard) for s in nodes[task.node].sources if s != "report"} <= done or (
                task.node == "report"
            )
        last = running.pop()
        done.add(last)
        window.finish(last)
    assert len(done) == 4 * len(FLOW) + 1


def test_only_a_window_of_shards_is_open(nodes: dict[str, Node]) -> None:
    window = ShardWindow(nodes, pending(10), max_open=3)
    taken = []
    while (task := window.take("cpu")) is not None:
        taken.append(task)
    assert [task.shard for task in taken] == [0, 1, 2]


def test_done_tasks_are_not_handed_out_and_hold_nobody_up(nodes: dict[str, Node]) -> None:
    left = pending(2) | {"speech": set(), "mel": {1}, "a": set(), "scores[b]": {0}}
    order = drained(ShardWindow(nodes, left, max_open=8))
    assert [(task.node, task.shard) for task in order] == [
        ("b", 0),
        ("scores[a]", 0),
        ("scores[b]", 0),
        ("mel", 1),
        ("b", 1),
        ("scores[a]", 1),
        ("report", -1),
    ]


def test_a_failed_task_blocks_only_what_needs_it(nodes: dict[str, Node]) -> None:
    window = ShardWindow(nodes, pending(2), max_open=8)
    order = []
    while not window.done:
        task = window.take("cpu")
        if task is None:
            continue
        if (task.node, task.shard) == ("a", 0):
            window.fail(task)
        else:
            order.append((task.node, task.shard))
            window.finish(task)
    assert {(task.node, task.shard) for task in window.blocked} == {("scores[a]", 0), ("report", -1)}
    assert ("scores[b]", 0) in order
    assert ("scores[a]", 1) in order


class Nothing(Job):
    """A job without work."""

    def run(self) -> Receipt:
        return Receipt(
            n_utterances=1, n_quarantined=0, audio_s=1.0, compute_s=0.0, wall_s=0.0, peak_mem_bytes=0, host="here"
        )


def nothing(task: Task, attempt: int, isolated: bool) -> Job:
    return Nothing()


@pytest.fixture
def stuck(nodes: dict[str, Node]) -> ShardWindow:
    """Return a window that waits for a task that nobody does."""
    window = ShardWindow(nodes, pending(2), max_open=8)
    assert window.take("cpu") == Task("speech", "speech", 0)
    return window


LEFT = r"speech 1, mel 1, a 1, b 1, scores\[a\] 1, scores\[b\] 1, report 1 .*first: speech, shard 0"


@pytest.mark.timeout(60)
def test_a_serial_run_that_can_not_go_on_says_what_is_left(stuck: ShardWindow) -> None:
    with pytest.raises(RunFailed, match=LEFT):
        run_serial(stuck, nothing, lambda event: None)


@pytest.mark.timeout(120)
def test_a_run_on_dask_that_can_not_go_on_says_what_is_left(stuck: ShardWindow) -> None:
    with pytest.raises(RunFailed, match=LEFT):
        run_dask(stuck, nothing, lambda event: None, Local(pools={"cpu": Pool(workers=1)}))
    assert not stuck.failed


def test_a_run_whose_last_tasks_are_blocked_is_done(nodes: dict[str, Node]) -> None:
    def failing(task: Task, attempt: int, isolated: bool) -> Job:
        raise ValueError("no job")

    window = ShardWindow(nodes, pending(2), max_open=1)
    run_serial(window, failing, lambda event: None)
    assert {(task.node, task.shard) for task in window.failed} == {("speech", 0), ("speech", 1)}
    assert len(window.blocked) == 2 * (len(FLOW) - 1) + 1


def names(chain: Sequence[Task]) -> list[str]:
    return [task.node for task in chain]


def test_a_chain_takes_a_shard_to_its_end(nodes: dict[str, Node]) -> None:
    window = ShardWindow(nodes, pending(2), max_open=8)
    for shard in range(2):
        chain = window.take_chain("cpu", 1)
        assert names(chain) == FLOW
        assert {task.shard for task in chain} == {shard}
    assert window.take_chain("cpu", 1) == window.take_next("cpu", 1) == ()
    for task in [Task(name, "speech", shard) for shard in range(2) for name in FLOW]:
        window.finish(task)
    assert names(window.take_chain("cpu", 1)) == ["report"]


def test_branches_of_the_last_shards_go_to_different_workers(nodes: dict[str, Node]) -> None:
    window = ShardWindow(nodes, pending(3), max_open=8)
    chains = [window.take_chain("cpu", 2) for _ in range(3)]
    assert [names(chain) for chain in chains] == [FLOW, FLOW, ["speech"]]
    # What waits for them is handed out too, each alone.
    nexts = list(iter(lambda: window.take_next("cpu", 2), ()))
    assert [names(chain) for chain in nexts] == [[name] for name in FLOW[1:]]
    assert window.waits_for(nexts[-1]) == {Task("b", "speech", 2), Task("speech", "speech", 2)}


TWO_POOLS = """\
name: x
store: x
stages:
  speech: {uses: librispeech, root: data}
  mel: {uses: extract, from: speech}
  a: {uses: griffin_lim, from: mel}
  b: {uses: admm, from: mel, pool: other}
  scores: {uses: score, from: [a, b], against: speech, metrics: [sc]}
cluster: {type: local, pools: {cpu: {workers: 1}, other: {workers: 1}}}
"""


def test_a_chain_ends_where_another_pool_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TWO_POOLS)
    window = ShardWindow(build_graph(load(path)), {name: {0} for name in FLOW}, max_open=8)
    first = window.take_chain("cpu", 1)
    assert names(first) == ["speech", "mel"]
    assert window.take_chain("other", 1) == ()
    # Each waits for what was handed out before, but for nothing else.
    assert names(window.take_next("other", 1)) == ["b"]
    after = [names(chain) for chain in iter(lambda: window.take_next("cpu", 1), ())]
    assert sorted(after) == [["a", "scores[a]"], ["scores[b]"]]


def test_what_did_not_begin_is_handed_out_again(nodes: dict[str, Node]) -> None:
    window = ShardWindow(nodes, pending(1), max_open=8)
    speech, mel, *rest = window.take_chain("cpu", 1)
    for task in rest:
        window.put_back(task)
    window.finish(speech)
    # They wait for the mel, which is tried again.
    assert window.take_chain("cpu", 1) == ()
    assert window.take_next("cpu", 1) == tuple(rest)
    for task in rest:
        window.put_back(task)
    window.put_aside(mel)
    assert window.take_next("cpu", 1) == ()
    window.take_up(mel)
    assert window.take_next("cpu", 1) == tuple(rest)
    for task in rest:
        window.put_back(task)
    assert window.fail(mel) == len(rest) + 1
    assert window.done


def test_a_window_over_millions_of_shards_looks_at_few(nodes: dict[str, Node]) -> None:
    whole = ShardSet(np.ones(3_000_000, np.bool_))
    pending: dict[str, Set[int]] = {**dict.fromkeys(FLOW, whole), "report": {-1}}
    tracemalloc.start()
    try:
        window = ShardWindow(nodes, pending, max_open=4)
        for _ in range(1000):
            task = window.take("cpu")
            assert task is not None
            window.finish(task)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A byte a shard, and nothing that grows with them: a set of the shards would take 200 MB.
    assert peak_bytes < 10e6
    assert window.n_left("cpu") == len(FLOW) * 3_000_000 + 1 - 1000
