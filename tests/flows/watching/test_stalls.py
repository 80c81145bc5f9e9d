"""What is counted of a run, and what counts as a stall."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from melmill.flows.tasks.task import Receipt, Task
from melmill.flows.watching.events import (
    Announcer,
    Event,
    Failed,
    Finished,
    Place,
    Ready,
    Retried,
    Stalled,
    Submitted,
    TaskStatus,
    Withdrawn,
    WorkerDied,
)
from melmill.flows.watching.observers import Heartbeat
from melmill.flows.watching.stalls import Pace, StallWatch
from melmill.flows.watching.tally import NodeTally, Tally
from melmill.stages.task_context import current_task, enter_phase, enter_utterance, thread_statuses

A, B = Task("mel", "speech", 0), Task("mel", "speech", 1)


def receipt(audio_s: float, wall_s: float) -> Receipt:
    return Receipt(
        n_utterances=3, n_quarantined=1, audio_s=audio_s, compute_s=wall_s, wall_s=wall_s, peak_mem_bytes=1, host="here"
    )


def test_a_tally_counts_each_end_once() -> None:
    tally = Tally({"mel": NodeTally(pending=2)})
    for event in (
        Submitted(task=A, attempt=1),
        Submitted(task=B, attempt=1),
        Retried(task=A, attempt=1, reason="away"),
        Submitted(task=A, attempt=2),
        Finished(task=A, attempt=2, receipt=receipt(10.0, 2.0)),
    ):
        tally(event)
    assert (tally.total("in_flight"), tally.total("pending"), tally.work_left_s) == (1, 1, 2.0)
    tally(Withdrawn(task=B))
    assert (tally.total("in_flight"), tally.total("pending")) == (0, 1)
    tally(Submitted(task=B, attempt=2))
    tally(WorkerDied(task=B, attempt=2, deaths=8, again=False))
    tally(Failed(task=B, attempt=1, error=OSError()))
    node = tally.nodes["mel"]
    assert (node.in_flight, node.pending, node.done, node.failed) == (0, 0, 1, 1)
    assert (node.retried, node.deaths, node.quarantined, node.audio_s) == (1, 1, 1, 10.0)


def test_a_pace_is_the_median_of_the_last() -> None:
    pace = Pace()
    assert pace.expected_s(10.0) is None
    for wall_s in (1.0, 2.0, 100.0):
        pace.add(wall_s, 10.0)
    assert pace.expected_s(30.0) == pytest.approx(6.0)
    for _ in range(Pace.LAST):
        pace.add(5.0, 10.0)
    assert pace.expected_s(10.0) == pytest.approx(5.0)


# One row for each reason why an attempt stalls or not: what was done before, how long it has run,
# and whether it is a stall.
@pytest.mark.parametrize(
    ("walls", "running_s", "stalls"),
    [
        pytest.param([1.0], 4.9, False, id="less than five times"),
        pytest.param([1.0], 5.1, True, id="more than five times"),
        pytest.param([0.001], 0.005, False, id="more than five times, but hardly any time"),
        pytest.param([], 0.15, False, id="nothing to compare with"),
        pytest.param([], 0.4, True, id="nothing to compare with, for long"),
    ],
)
def test_what_takes_much_longer_than_its_node_does_stalls(walls: list[float], running_s: float, stalls: bool) -> None:
    announced: list[Event] = []
    asked: list[Task] = []

    def probe(tasks: Sequence[Task]) -> list[TaskStatus]:
        asked.extend(tasks)
        place = Place(worker="w", host="h")
        at = {"phase": "computing", "utterance_id": "u"}
        return [TaskStatus(task=A, attempt=1, place=place, running_s=running_s, phase_s=1.0, **at)]

    watch = StallWatch(["mel"], lambda task: 10.0, announced.append, after_s=0.02)
    watch(Ready(probe=probe))
    for wall_s in walls:
        watch(Finished(task=B, attempt=1, receipt=receipt(10.0, wall_s)))
    watch(Submitted(task=A, attempt=1))
    watch.check()
    assert not asked, "nobody is asked about what was just submitted"
    # As if it had been submitted so long ago.
    watch._in_flight[A] = type(watch._in_flight[A])(1, time.monotonic() - max(running_s, 0.0))
    watch.check()
    watch.check()
    assert [type(event) for event in announced] == [Stalled] * stalls
    assert not stalls or len(asked) == 1, "one that was announced is not asked about again"


def test_a_task_of_a_chain_is_watched_from_its_turn_on() -> None:
    announced: list[Event] = []
    asked: list[Sequence[Task]] = []

    def probe(tasks: Sequence[Task]) -> list[TaskStatus]:
        asked.append(tasks)
        status = TaskStatus(
            task=B, attempt=1, place=Place(), running_s=99.0, phase="computing", utterance_id="", phase_s=99.0
        )
        return [status]

    watch = StallWatch(["mel"], lambda task: 10.0, announced.append, after_s=0.0001)
    watch(Ready(probe=probe))
    watch(Submitted(task=A, attempt=1))
    watch(Submitted(task=B, attempt=1, after=A))
    time.sleep(0.01)
    # The first is overdue. Its worker says that it is at the second.
    watch.check()
    watch.check()
    assert asked == [[A]]
    assert [type(event) for event in announced] == [Stalled]
    watch(Withdrawn(task=B))
    watch(Submitted(task=B, attempt=2, after=A))
    watch(Finished(task=A, attempt=1, receipt=receipt(10.0, 0.00001)))
    assert watch._in_flight[B].after is None
    time.sleep(0.01)
    watch.check()
    assert asked[1:] == [[B]]


def test_a_thread_says_what_it_works_on() -> None:
    enter_utterance("nobody's")
    assert thread_statuses() == []
    with current_task("task"):
        (reading,) = thread_statuses()
        enter_phase("computing")
        enter_utterance("11-1-0000")
        (computing,) = thread_statuses()
    assert (reading.label, reading.phase, reading.utterance_id) == ("task", "reading", "")
    assert (computing.phase, computing.utterance_id) == ("computing", "11-1-0000")
    assert computing.running_s >= computing.phase_s
    assert thread_statuses() == []


def test_a_call_that_fails_is_reported_once_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melmill.flows.watching.observers.INTERVAL_S", 0.01)
    said: list[str] = []
    beats: list[int] = []

    def fails() -> None:
        raise OSError("away")

    with Heartbeat([fails, lambda: beats.append(1)], said.append):
        while len(beats) < 3:
            time.sleep(0.01)
    assert said == ["the run goes on, but a part of watching it failed: OSError: away"]


def test_a_listener_may_announce() -> None:
    received: list[str] = []
    announce: Announcer

    def answers(event: Event) -> None:
        received.append(type(event).__name__)
        if isinstance(event, Submitted):
            announce(Retried(task=event.task, attempt=1, reason=""))

    announce = Announcer([answers])
    announce(Submitted(task=A, attempt=1))
    assert received == ["Submitted", "Retried"]
