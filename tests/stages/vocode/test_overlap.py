"""The host works on some batches while the device works on another: shown by what waits for what, not by times."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest

from melmill.stages.numeric.batched.device import FifoLock
from melmill.stages.vocode.vocoding import overlapped

PATIENCE_S = 60.0


class Moments:
    """Events by name: what happened, in order, and waiting for it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._changed = threading.Condition()

    def happen(self, name: str) -> None:
        with self._changed:
            self.seen.append(name)
            self._changed.notify_all()

    def wait(self, name: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: name in self.seen, PATIENCE_S), f"no {name!r} while it was waited for"


def test_a_batch_is_prepared_and_another_finished_while_one_is_computed() -> None:
    moments = Moments()

    def prepare(batch: int) -> int:
        moments.happen(f"prepared {batch}")
        return 10 * batch

    def compute(prepared: int) -> int:
        batch = prepared // 10
        if batch < 3:
            moments.wait(f"prepared {batch + 1}")
        if batch > 0:
            moments.wait(f"finished {batch - 1}")
        return prepared + 1

    def finish(computed: int) -> int:
        moments.happen(f"finished {computed // 10}")
        return computed + 1

    assert overlapped(range(4), prepare, compute, finish, nullcontext()) == [2, 12, 22, 32]


def test_no_more_than_one_is_prepared_ahead_and_two_are_with_the_device() -> None:
    moments = Moments()
    unfinished: set[int] = set()

    def compute(batch: int) -> int:
        assert moments.seen.count("prepared") <= batch + 2
        unfinished.add(batch)
        assert len(unfinished) <= 3  # of which the one before the last may be done, and not counted yet
        return batch

    def prepare(batch: int) -> int:
        moments.happen("prepared")
        return batch

    overlapped(range(20), prepare, compute, unfinished.discard, nullcontext())
    assert not unfinished


def failing(batch: int) -> int:
    if batch == 1:
        raise OSError("batch 1")
    return batch


def same(batch: int) -> int:
    return batch


@pytest.mark.parametrize("steps", [(failing, same, same), (same, failing, same), (same, same, failing)])
def test_what_a_step_raises_is_raised_and_the_turn_given_back(
    steps: tuple[Callable[[int], int], Callable[[int], int], Callable[[int], int]],
) -> None:
    turns, (prepare, compute, finish) = FifoLock(), steps
    for _ in range(2):
        with pytest.raises(OSError, match="batch 1"):
            overlapped(range(4), prepare, compute, finish, turns.hold())
    with turns.hold():
        pass


def test_nothing_takes_no_turn() -> None:
    assert overlapped([], same, same, same, nullcontext()) == []


def test_a_task_prepares_while_another_has_the_device_and_computes_while_that_one_writes() -> None:
    moments, turns = Moments(), FifoLock()

    def task(name: str, others: str) -> list[str]:
        def compute(batch: str) -> str:
            moments.happen(f"{batch} begins")
            if batch == "A0":
                moments.wait("B0 prepared")
                assert "B0 begins" not in moments.seen
            return batch

        def finish(batch: str) -> str:
            if batch == "A1":
                moments.wait("B0 begins")
            return batch

        def prepare(batch: str) -> str:
            if batch == "B0":
                moments.wait("A0 begins")
            moments.happen(f"{batch} prepared")
            return batch

        return overlapped([f"{name}0", f"{name}1"], prepare, compute, finish, turns.hold())

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(task, "A", "B")
        moments.wait("A0 begins")
        second = pool.submit(task, "B", "A")
        assert (first.result(), second.result()) == (["A0", "A1"], ["B0", "B1"])
    assert [moment for moment in moments.seen if moment.endswith("begins")] == [
        "A0 begins",
        "A1 begins",
        "B0 begins",
        "B1 begins",
    ]


def test_turns_come_in_the_order_of_asking() -> None:
    turns, moments = FifoLock(), Moments()

    def take(number: int) -> None:
        with turns.hold():
            moments.happen(str(number))

    with turns.hold():
        threads = []
        for number in range(8):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            while len(turns._queue) < number + 2:  # it has asked
                threading.Event().wait(0.001)
        assert moments.seen == []
    for thread in threads:
        thread.join()
    assert moments.seen == [str(number) for number in range(8)]


def test_who_gives_up_waiting_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = FifoLock()

    def interrupted(condition: Callable[[], bool]) -> bool:
        raise KeyboardInterrupt

    with turns.hold(), monkeypatch.context() as patch:
        patch.setattr(turns._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt), turns.hold():
            pass
    with turns.hold():
        pass
