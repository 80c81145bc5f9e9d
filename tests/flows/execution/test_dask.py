"""What the Dask executor announces, in which order, whatever its messages overtake.

A cluster of this process stands in, so that each test says which message comes when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from melmill.cluster.contract import Pool, RunningCluster
from melmill.cluster.types.local import Local
from melmill.flows.execution.dask import _TaskStream
from melmill.flows.execution.machines import Again
from melmill.flows.execution.window import ShardWindow
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.spec import load
from melmill.flows.tasks.chain import Told
from melmill.flows.tasks.task import Receipt, Task
from melmill.flows.watching.events import (
    Event,
    Failed,
    Finished,
    Note,
    Retried,
    Submitted,
    Withdrawn,
    WorkerDied,
)
from melmill.flows.watching.tally import NodeTally, Tally

PIPELINE = """\
name: x
store: x
stages:
  speech: {uses: librispeech, root: data}
  mel: {uses: extract, from: speech}
  gla: {uses: griffin_lim, from: mel}
"""
NODES = ["speech", "mel", "gla"]
DONE = Receipt(n_utterances=1, n_quarantined=0, audio_s=1.0, compute_s=1.0, wall_s=1.0, peak_mem_bytes=1, host="here")


@dataclass(frozen=True)
class Work:
    """A job that is never run. `stored` tells what its record says."""

    stored: bool | None = False
    resumes: bool = False
    reads: frozenset[tuple[str, str]] = frozenset()

    def suspecting(self, suspects: object, *, trusted: bool) -> Work:
        return self

    def saved(self) -> None:
        return None

    def done(self) -> Receipt | None:
        if self.stored is None:
            raise OSError("the store can't be read")
        return DONE if self.stored else None


@dataclass
class Answer:
    """A future. `said` is its answer."""

    key: str
    links: Sequence[Any]
    workers: Sequence[str] | None
    said: tuple[Receipt, ...] | Exception | None = None
    gone: bool = False

    @property
    def labels(self) -> list[str]:
        return [link.label for link in self.links]

    @property
    def status(self) -> str:
        return "pending" if self.said is None else "error" if isinstance(self.said, Exception) else "finished"

    def result(self) -> tuple[Receipt, ...]:
        if isinstance(self.said, Exception):
            raise self.said
        if self.said is None or self.gone:
            raise CancelledError
        return self.said

    def release(self) -> None:
        self.gone = True

    cancel = release


@dataclass
class Scheduler:
    """The place of a scheduler that nothing is asked of."""

    address: str = "tcp://127.0.0.1:8786"


@dataclass
class Client:
    """A client whose workers answer as a test says."""

    id: str = "Client-test"
    scheduler: Scheduler = field(default_factory=Scheduler)
    loop: object = None
    at_once: Callable[[Answer], None] = lambda answer: None
    answers: list[Answer] = field(default_factory=list)

    def submit(self, run: object, links: Sequence[Any], *args: object, key: str, **options: Any) -> Answer:
        answer = Answer(key, links, options["workers"])
        self.answers.append(answer)
        self.at_once(answer)
        return answer


class Cluster:
    """A cluster of one worker after the other."""

    def __init__(self) -> None:
        self.spec = Local(pools={"cpu": Pool(workers=2)})
        self.client = Client()
        self.up = ["a", "b"]

    def slots(self, pool: str) -> int:
        return 1

    def addresses(self, pool: str) -> list[str]:
        return self.up

    def adapt(self, n_left: dict[str, int]) -> None:
        pass

    def take_notes(self) -> list[str]:
        return []


class Completed:
    """Take the place of `as_completed`."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers

    def add(self, answer: Answer) -> None:
        pass

    def has_ready(self) -> bool:
        return any(one.said is not None and not one.gone for one in self.answers)

    def __next__(self) -> Answer:
        return next(one for one in self.answers if one.said is not None and not one.gone)


class Run:
    """A run of some shards, its events, and a check that they are in order."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, n_shards: int, job: Work) -> None:
        path.write_text(PIPELINE)
        self.cluster = Cluster()
        self.client = self.cluster.client
        monkeypatch.setattr("distributed.as_completed", lambda loop: Completed(self.client.answers))
        window = ShardWindow(build_graph(load(path)), {name: set(range(n_shards)) for name in NODES}, max_open=8)
        self.tally = Tally({name: NodeTally(pending=n_shards) for name in NODES})
        self.events: list[Event] = []
        self.flying: set[Task] = set()
        self.done: set[Task] = set()
        cluster, make_job = cast("RunningCluster", self.cluster), cast("Any", lambda task, number, isolated: job)
        self.stream = _TaskStream(cluster, window, make_job, self.hear, None)

    def hear(self, event: Event) -> None:
        """Check that an event may follow those before it, and that the counts are right."""
        self.events.append(event)
        self.tally(event)
        match event:
            case Submitted(task=task):
                assert task not in self.flying | self.done, event
                self.flying.add(task)
            case Finished(task=task):
                assert task in self.flying, event
                self.flying.remove(task)
                self.done.add(task)
            case Withdrawn(task=task) | Retried(task=task) | WorkerDied(task=task) | Failed(task=task):
                assert task in self.flying, event
                self.flying.remove(task)
        assert self.tally.total("in_flight") == len(self.flying)
        assert self.tally.total("done") == len(self.done)
        assert self.tally.total("pending") == len(self.tally.nodes) * self.n_shards - len(self.done)

    @property
    def n_shards(self) -> int:
        return len({task.shard for task in self.done | self.flying} | set(range(N_SHARDS)))

    def tell(self, *labels: str, begun: str = "") -> None:
        """Let a worker tell of jobs that are done."""
        self.stream._hear((0.0, Told(label=begun, receipts=dict.fromkeys(labels, DONE)).message()))

    def settle(self) -> None:
        """Settle what has answered, and submit more."""
        while self.stream.completed.has_ready():
            self.stream._settle(answer := self.stream._next_done())
            cast("Answer", answer).gone = True
            self.stream._fill()

    def finish(self) -> None:
        """Answer everything until all is done."""
        self.stream._fill()
        while self.stream.chains:
            for answer in self.client.answers:
                if not answer.gone and answer.said is None:
                    answer.said = (DONE,) * len(answer.links)
            self.settle()
        assert len(self.done) == len(NODES) * N_SHARDS
        assert not self.stream.told_of
        assert not any((*self.stream.n_in_flight.values(), *self.stream.n_waiting.values()))


N_SHARDS = 4


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path / "p.yaml", monkeypatch, N_SHARDS, Work())


def test_a_worker_that_tells_before_submit_returns_is_heard_in_order(run: Run) -> None:
    run.client.at_once = lambda answer: run.tell(*answer.labels[:2], begun=answer.labels[-1])
    run.finish()
    # It was heard then, not when the chain was settled.
    first = run.client.answers[0].labels
    kinds = [type(event) for event in run.events[: len(first) + 2]]
    assert kinds == [Submitted] * len(first) + [Finished] * 2


def test_what_was_told_is_not_fetched(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answer, "result", lambda answer: pytest.fail(f"{answer.key} was fetched"))
    run.stream._fill()
    while run.stream.chains:
        for answer in run.client.answers:
            if not answer.gone and answer.said is None:
                run.tell(*answer.labels)
                answer.said = (DONE,) * len(answer.links)
        run.settle()
    assert len(run.done) == len(NODES) * N_SHARDS


def test_what_is_told_twice_or_late_is_announced_once(run: Run) -> None:
    run.stream._fill()
    first = run.client.answers[0]
    run.tell(first.labels[0])
    run.tell(*first.labels)
    first.said = (DONE,) * len(first.links)
    chain = run.stream.chains[first.key]
    run.settle()
    run.tell(*first.labels)
    # A thread may have looked the chain up just before it was settled.
    chain.tell("another", DONE, lambda: pytest.fail("a chain that is over told something"))
    run.finish()


def test_tasks_whose_workers_are_gone_are_counted_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = run.stream.window.take_chain("cpu", 1)
    assert len(tasks) == len(NODES)
    run.stream._submit([Again(task=task, on=frozenset({"a"})) for task in tasks])
    first = run.client.answers[0]
    assert first.workers == ["a"]
    run.tell(first.labels[0])
    run.cluster.up = ["b"]
    # The next look finds that the worker is gone. The one after it finds an answer.
    monkeypatch.setattr("melmill.flows.execution.dask.LOOK_AGAIN_S", 0.0)
    run.client.at_once = lambda answer: setattr(answer, "said", (DONE,) * len(answer.links))
    run.stream._settle(run.stream._next_done())
    assert first.gone
    again = run.client.answers[1]
    assert (len(again.links), again.workers) == (len(NODES) - 1, None)
    assert [type(event) for event in run.events[len(NODES) + 1 :]] == [Withdrawn] * 2 + [Submitted] * 2 + [Finished] * 2
    run.client.at_once = lambda answer: None
    again.gone = True
    run.finish()


@pytest.mark.parametrize("stored", [True, False, None], ids=["stored", "not stored", "can't be read"])
def test_what_was_told_done_is_not_done_again_after_a_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool | None
) -> None:
    from distributed.scheduler import KilledWorker

    run = Run(tmp_path / "p.yaml", monkeypatch, N_SHARDS, Work(stored=stored))
    run.stream._fill()
    first = run.client.answers[0]
    run.tell(first.labels[0])
    first.said = KilledWorker(first.key, None, 0)
    run.settle()
    died = [event.task.node for event in run.events if isinstance(event, WorkerDied)]
    assert died == ([] if stored else [NODES[1]])
    run.finish()


def test_a_chain_that_is_run_again_for_a_lost_worker_keeps_what_it_told(run: Run) -> None:
    run.stream._fill()
    first = run.client.answers[0]
    run.tell(first.labels[0])
    error = OSError("of another chain")
    error.__dict__["chain"] = "another"
    first.said = error
    run.settle()
    assert sum(isinstance(event, Withdrawn) for event in run.events) >= len(first.labels) - 1
    run.finish()


def test_an_error_after_a_second_run_takes_nothing_back(run: Run) -> None:
    run.stream._fill()
    first = run.client.answers[0]
    run.tell(*first.labels[:2])
    # The worker was lost, another ran the chain again, and could not read the first record.
    error = OSError("can't be read just now")
    error.__dict__.update(chain=first.key, receipts=())
    first.said = error
    run.settle()
    assert [event.task.node for event in run.events if isinstance(event, Retried)] == [NODES[2]]
    run.finish()


def test_an_interrupt_counts_tasks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.stream._fill()
    told = run.client.answers[0]
    run.tell(told.labels[0])
    n_tasks = sum(len(answer.links) for answer in run.client.answers) - 1
    for answer in run.client.answers:
        answer.said = (DONE,) * len(answer.links)
    monkeypatch.setattr("distributed.as_completed", lambda futures, loop: iter(futures))
    monkeypatch.setattr(Client, "run", lambda *args, **options: None, raising=False)
    run.stream._drain()
    notes = [event.text for event in run.events if isinstance(event, Note)]
    what = f"what workers compute, of {n_tasks} tasks in flight"
    assert notes == [f"stopping: waiting for {what} (interrupt again to leave at once)"]
    assert not run.flying
