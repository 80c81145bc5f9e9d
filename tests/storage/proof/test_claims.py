"""Claims and the lock: who deletes, who uses, and who is dead, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from melmill.storage.errors import StoreBusy
from melmill.storage.files import owner
from melmill.storage.files.location import Location
from melmill.storage.files.owner import Owner
from melmill.storage.proof import claims
from melmill.storage.proof.claims import CLAIMS, FOLDER, Claim, Lock, claimed, latest, taken, wait_for

ROOT = Path(__file__).parents[3]
A, B = ("gla", "aaaa"), ("mel", "bbbb")


def nothing(lock: Lock) -> None:
    """Finish nothing, as there is nothing to delete."""
    for product in lock.deleting:
        lock.settle(product)


def silent(line: str) -> None:
    del line


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Return an empty place of each kind."""
    if request.param == "disk":
        return Location(str(tmp_path / "store"))
    return Location(f"{request.getfixturevalue('bucket')}/store")


def process(code: str) -> subprocess.Popen[str]:
    """Start Python on code that says a line when it is ready, and wait for that line."""
    head = (
        "import sys, time\n"
        "from melmill.storage.files.location import Location\n"
        "from melmill.storage.proof.claims import Claim, taken\n"
    )
    started = subprocess.Popen([sys.executable, "-c", head + code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def interrupt_after(store: Location, begun: list[tuple[str, str]], gone: list[tuple[str, str]]) -> None:
    with suppress(KeyboardInterrupt), taken(store) as lock:
        lock.begin(begun)
        for product in gone:
            lock.settle(product)
        raise KeyboardInterrupt


HOLD = "print('ready', flush=True); time.sleep(600)"


@pytest.fixture
def holder(store: Location) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that holds the lock and has begun to delete A."""
    code = f"with taken(Location({store.url!r})) as lock:\n  lock.announce([{A}, {B}])\n  lock.begin([{A}])\n  {HOLD}"
    started = process(code)
    yield started
    started.kill()
    started.wait()


def test_only_one_process_deletes(store: Location, holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(StoreBusy, match=rf"another `melmill prune` is at work here \(process {holder.pid} on"),
        taken(store),
    ):
        pass
    # One that is stopped may go on, and so keeps the lock.
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreBusy, match="another `melmill prune`"), taken(store):
        pass
    holder.send_signal(signal.SIGCONT)


def test_a_dead_process_leaves_its_deletions_to_the_next(store: Location, holder: subprocess.Popen[str]) -> None:
    before = latest(store)
    assert before is not None
    assert (before.deleting, before.begun, before.deletions) == (frozenset({A}), True, 1)
    holder.kill()
    # Not waited for: what is a zombie is dead.
    deadline = time.monotonic() + 20
    while Owner.of(before.owner.as_dict()).runs and time.monotonic() < deadline:
        time.sleep(0.01)
    with taken(store) as lock:
        assert lock.deleting == {A}
        assert lock.held.begun
        lock.settle(A)
        assert lock.deleting == frozenset()
    after = latest(store)
    assert after is not None
    assert (after.number, after.released, after.deletions) == (before.number + 1, True, 2)
    assert [name for name in (store / FOLDER).sizes() if name.startswith("lock")] == [f"lock-{after.number:06d}.json"]


def test_what_was_only_announced_is_forgotten(store: Location) -> None:
    code = f"with taken(Location({store.url!r})) as lock:\n  lock.announce([{A}])\n  {HOLD}"
    started = process(code)
    started.kill()
    started.wait()
    with taken(store) as lock:
        assert lock.deleting == frozenset()
    assert wait_for(store, [A], nothing, silent) == 0


def test_a_lock_that_an_error_ends_keeps_what_is_half_deleted(store: Location) -> None:
    interrupt_after(store, begun=[A, B], gone=[B])
    held = latest(store)
    assert held is not None
    assert (held.released, held.deleting) == (True, frozenset({A}))
    finished: list[frozenset[tuple[str, str]]] = []

    def finish(lock: Lock) -> None:
        finished.append(lock.deleting)
        nothing(lock)

    assert wait_for(store, [B], finish, silent) == 1
    assert finished == []
    assert wait_for(store, [A], finish, silent) == 2
    assert finished == [{A}]


def test_of_many_that_take_over_one_wins(store: Location) -> None:
    interrupt_after(store, begun=[A], gone=[])
    inside, most, busy = [0], [0], [0]
    counting, barrier = threading.Lock(), threading.Barrier(8)

    def take() -> None:
        barrier.wait()
        for _ in range(3):
            try:
                with taken(store):
                    with counting:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    time.sleep(0.02)
                    with counting:
                        inside[0] -= 1
            except StoreBusy:
                busy[0] += 1

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert busy[0] < 24


def test_claims_of_the_living_count(store: Location) -> None:
    code = f"with Claim(None, None) as claim:\n  claim.take(Location({store.url!r}), [{A}])\n  {HOLD}"
    started = process(code)
    try:
        with Claim(nothing, silent) as own:
            assert own.take(store, [B]) == 0
            assert claimed(store) == {A, B}
            # Frozen is not dead.
            started.send_signal(signal.SIGSTOP)
            assert claimed(store) == {A, B}
            started.kill()
            started.wait()
            assert claimed(store) == {B}
            own.take(store, [A])
            assert claimed(store) == {A}
        assert claimed(store) == frozenset()
        assert (store / FOLDER / CLAIMS).sizes() == {}
    finally:
        started.kill()
        started.wait()


def test_a_claim_waits_for_the_deletion(store: Location) -> None:
    said: list[str] = []
    taken_at: list[int] = []
    with taken(store) as lock:
        lock.begin([A])

        def use() -> None:
            with Claim(nothing, said.append) as claim:
                taken_at.append(claim.take(store, [A, B]))

        thread = threading.Thread(target=use)
        thread.start()
        deadline = time.monotonic() + 20
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        assert taken_at == []
        assert claimed(store) == frozenset()
        lock.settle(A)
        thread.join(20)
    assert taken_at == [1]
    assert f"waiting until process {os.getpid()} on" in said[0]
    assert "has deleted gla/aaaa" in said[0]


def foreign(owner: Owner) -> Owner:
    return replace(owner, machine="another", host="elsewhere")


def test_a_process_of_another_machine_is_dead_when_it_is_silent(
    store: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Owner.me()
    monkeypatch.setattr(Owner, "me", lambda: foreign(here))
    claim = Claim(nothing, silent)
    claim.take(store, [A])
    lock_block = taken(store)
    lock = lock_block.__enter__()
    lock.begin([B])
    monkeypatch.undo()
    assert claimed(store) == {A}
    with pytest.raises(StoreBusy, match=r"\(process \d+ on elsewhere\)"), taken(store):
        pass
    monkeypatch.setattr(claims, "LEASE_S", -2.0)
    assert claimed(store) == frozenset()
    with taken(store) as second:
        assert second.deleting == {B}
        # The first one wakes up, and must delete nothing more.
        with pytest.raises(StoreBusy, match="stopped for so long that another one took its place"):
            lock.check()
        with pytest.raises(StoreBusy, match="another one took its place"):
            lock.settle(B)
        nothing(second)
    claim.drop()


def test_a_number_of_a_process_that_is_used_again_is_another(store: Location) -> None:
    del store
    me = Owner.me()
    assert me.runs
    assert replace(me, began="1").runs is False
    assert foreign(me).runs is None
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert replace(me, pid=child.pid).runs is False


def test_a_process_that_the_kernel_hides_may_run(
    store: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = Owner.me()
    with Claim(nothing, silent) as claim:
        claim.take(store, [A])
        # With hidepid, /proc has no folders of other users' processes.
        monkeypatch.setattr(owner, "_PROC", tmp_path / "proc")
        assert me.runs is None
        assert claimed(store) == {A}
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        assert replace(me, pid=child.pid).runs is False


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"number": 1}', b"[]"])
def test_a_damaged_lock_is_nobodys(store: Location, data: bytes) -> None:
    (store / FOLDER).put("lock-000007.json", data)
    assert wait_for(store, [A], nothing, silent) == 0
    with taken(store) as lock:
        assert lock.held.number == 8
    (store / FOLDER / CLAIMS).put("x.json", data)
    assert claimed(store) == frozenset()
    assert (store / FOLDER / CLAIMS).sizes() == {}


def test_a_sign_of_life_does_not_hide_a_long_silence(store: Location) -> None:
    with taken(store) as lock:
        lock.begin([A])
        lock.check()
        # It was stopped for long, and its thread was the first to go on.
        lock._beating._written_at = (0.0, 0.0)
        lock._beating.write()
        (store / FOLDER).put(f"lock-{lock.held.number + 1:06d}.json", replace(lock.held, token="other").to_json())
        with pytest.raises(StoreBusy, match="another one took its place"):
            lock.check()
