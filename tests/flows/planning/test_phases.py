"""Trainings in the middle of a graph: what comes before them, beside them and after, and what a lost one blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.flows.execution.window import ShardWindow
from melmill.flows.pipeline.graph import Node, build_graph
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.phases import phases
from melmill.flows.tasks.task import Task
from melmill.stages import registry
from tests.flows.test_vocoders import MEL

PIPELINE = f"""\
name: x
store: x
stages:
  speech: {{uses: librispeech, root: data}}
  gla:    {{uses: griffin_lim, from: mel}}
  mel:    {{uses: extract, from: speech, {MEL}}}
  tuned:  {{uses: learner, from: mel, audio: speech, pool: gpu}}
  voc:    {{uses: vocoder, from: mel, trained: tuned}}
  hybrid: {{uses: griffin_lim, from: mel, start: voc}}
  scores: {{uses: score, from: [gla, hybrid], against: speech, metrics: [sc]}}
  plain:  {{uses: aggregate, from: scores}}
cluster: {{pools: {{cpu: {{workers: 1}}, gpu: {{workers: 1}}}}}}
"""
# It learns from what the first one makes.
SECOND = """\
  second: {uses: learner, from: mel, audio: voc}
  voc2:   {uses: vocoder, from: mel, trained: second}
cluster:"""
BEFORE, BESIDE, AFTER = ["speech", "mel"], ["gla", "scores[gla]"], ["voc", "hybrid", "scores[hybrid]"]


def graph(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str = PIPELINE) -> dict[str, Node]:
    monkeypatch.setitem(registry._BUILT_IN, "learner", "tests.flows.learner:Learner")
    path = folder / "p.yaml"
    path.write_text(text)
    return build_graph(load(path))


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Node]:
    return graph(tmp_path, monkeypatch)


def all_of(nodes: dict[str, Node], n_shards: int) -> dict[str, set[int]]:
    return {name: {-1} if node.is_whole else set(range(n_shards)) for name, node in nodes.items()}


def short(tasks: list[Task]) -> list[tuple[str, int]]:
    return [(task.node, task.shard) for task in tasks]


def taken(window: ShardWindow, pool: str) -> list[Task]:
    """Return, and leave running, all tasks of a pool that may run now."""
    return list(iter(lambda: window.take(pool), None))


def drained(window: ShardWindow, fails: tuple[str, int] | None = None) -> list[Task]:
    """Return the tasks that one worker does, in order."""
    order = []
    while task := window.take("cpu") or window.take("gpu"):
        if (task.node, task.shard) == fails:
            window.fail(task)
        else:
            order.append(task)
            window.finish(task)
    assert window.done
    return order


def test_phases_are_what_trainings_need_and_what_needs_them(
    tmp_path: Path, nodes: dict[str, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(nodes: dict[str, Node], pending: set[str]) -> list[tuple[list[str], set[str]]]:
        return [([node.name for node in phase.nodes], set(phase.waits_for)) for phase in phases(nodes, pending)]

    assert [(sorted(names), waits) for names, waits in named(nodes, set(nodes))] == [
        (sorted(BEFORE), set()),
        (sorted(BESIDE), set()),
        (sorted(AFTER), {"tuned"}),
    ]
    # A training that is done parts nothing.
    assert [(sorted(names), waits) for names, waits in named(nodes, {"voc", "mel"})] == [
        (sorted(BEFORE + BESIDE + AFTER), set())
    ]
    two = graph(tmp_path, monkeypatch, PIPELINE.replace("cluster:", SECOND))
    assert [(sorted(names), waits) for names, waits in named(two, set(two))] == [
        (sorted(BEFORE), set()),
        (sorted(BESIDE), set()),
        (["voc"], {"tuned"}),
        (["hybrid", "scores[hybrid]"], {"tuned"}),
        (["voc2"], {"tuned", "second"}),
    ]


def test_a_training_runs_as_soon_as_all_it_reads_is_there(nodes: dict[str, Node]) -> None:
    window = ShardWindow(nodes, all_of(nodes, 2), max_open=8)
    for _ in range(2 * len(BEFORE)):
        assert window.take("gpu") is None
        task = window.take("cpu")
        assert task is not None
        window.finish(task)
    # What does not need it goes on beside it, and what does waits, however many workers are idle.
    assert short(taken(window, "gpu")) == [("tuned", -1)]
    beside = taken(window, "cpu")
    assert short(beside) == [("gla", 0), ("gla", 1)]
    for task in beside:
        window.finish(task)
    for task in taken(window, "cpu"):
        assert task.node == "scores[gla]"
        window.finish(task)
    assert not taken(window, "cpu")
    assert not window.done
    window.finish(Task("tuned", "", -1))
    assert short(drained(window)) == [*((name, shard) for shard in range(2) for name in AFTER), ("plain", -1)]


def test_what_needs_a_training_may_begin_before_all_beside_it_is_done(nodes: dict[str, Node]) -> None:
    window = ShardWindow(nodes, all_of(nodes, 1), max_open=8)
    for _ in BEFORE:
        task = window.take("cpu")
        assert task is not None
        window.finish(task)
    (slow,) = taken(window, "cpu")
    (training,) = taken(window, "gpu")
    window.finish(training)
    assert short(taken(window, "cpu")) == [("voc", 0)]
    window.finish(slow)
    assert short(taken(window, "cpu")) == [("scores[gla]", 0)]


def test_a_window_bounds_the_shards_of_all_phases_together(nodes: dict[str, Node]) -> None:
    window = ShardWindow(nodes, all_of(nodes, 9) | {"tuned": set()}, max_open=3)
    assert {task.shard for task in taken(window, "cpu")} == {0, 1, 2}
    window = ShardWindow(nodes, all_of(nodes, 9) | {name: set() for name in BEFORE}, max_open=3)
    (training,) = taken(window, "gpu")
    assert short(taken(window, "cpu")) == [("gla", 0), ("gla", 1), ("gla", 2)]
    window.finish(training)
    # Those of the next phase come when there is room for their shards.
    assert not taken(window, "cpu")


def test_a_lost_training_blocks_its_descendants_alone(nodes: dict[str, Node]) -> None:
    window = ShardWindow(nodes, all_of(nodes, 3), max_open=2)
    order = drained(window, fails=("tuned", -1))
    assert sorted(short(order)) == sorted((name, shard) for name in BEFORE + BESIDE for shard in range(3))
    assert short(sorted(window.failed)) == [("tuned", -1)]
    expected = [*((name, shard) for name in AFTER for shard in range(3)), ("plain", -1)]
    assert sorted(short(list(window.blocked))) == sorted(expected)


def test_a_lost_shard_blocks_the_training_and_all_that_needs_it(nodes: dict[str, Node]) -> None:
    window = ShardWindow(nodes, all_of(nodes, 2), max_open=2)
    order = drained(window, fails=("mel", 1))
    assert sorted(short(order)) == [("gla", 0), ("mel", 0), ("scores[gla]", 0), ("speech", 0), ("speech", 1)]
    assert Task("tuned", "", -1) in window.blocked
    assert {task.node for task in window.blocked} == {"tuned", "gla", "scores[gla]", *AFTER, "plain"}


def test_a_training_that_is_done_holds_nobody_up(nodes: dict[str, Node]) -> None:
    left = all_of(nodes, 1) | {"tuned": set(), "speech": set(), "mel": set(), "gla": set(), "scores[gla]": set()}
    assert short(drained(ShardWindow(nodes, left, max_open=2))) == [*((name, 0) for name in AFTER), ("plain", -1)]


def test_trainings_that_need_each_other_follow_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = graph(tmp_path, monkeypatch, PIPELINE.replace("cluster:", SECOND))
    order = short(drained(ShardWindow(nodes, all_of(nodes, 2), max_open=2)))
    place = {name: order.index((name, -1)) for name in ("tuned", "second")}
    assert max(order.index(("voc", shard)) for shard in range(2)) < place["second"]
    assert place["tuned"] < order.index(("voc", 0))
    assert place["second"] < order.index(("voc2", 0))
    lost = ShardWindow(nodes, all_of(nodes, 2), max_open=2)
    drained(lost, fails=("second", -1))
    assert {task.node for task in lost.blocked} == {"voc2"}
