"""Locks on disks and leases on object stores: one holder at a time, whoever dies and whatever clocks say."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from melmill.storage.files.location import Location
from melmill.storage.files.locks import locked
from tests.flows.conftest import ROOT

HOLD = """
import sys, time
from melmill.storage.files.location import Location
from melmill.storage.files.locks import locked
with locked(Location(sys.argv[1]), beat_s=0.2, silence_s=2.0) as held:
    print("held" if held else "busy", flush=True)
    time.sleep(600)
"""


def holder(url: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, url], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_on_a_disk_ends_with_its_process(tmp_path: Path) -> None:
    process = holder(str(tmp_path))
    with locked(Location(str(tmp_path))) as held:
        assert held is None
    process.kill()
    process.wait()
    with locked(Location(str(tmp_path))) as held:
        assert held is not None
        with locked(Location(str(tmp_path))) as second:
            assert second is None


def test_a_lease_is_given_back(bucket: str) -> None:
    folder = Location(bucket) / "x"
    for _ in range(3):
        with locked(folder, beat_s=0.1, silence_s=60) as held:
            assert held is not None
    assert sorted((folder / "lock").sizes()) == ["000003.beat", "000003.json"]


def test_a_lease_that_is_renewed_is_left_alone_and_one_that_is_not_is_taken_over(bucket: str) -> None:
    folder = Location(bucket) / "x"
    process = holder(f"{bucket}/x")
    started = time.monotonic()
    with locked(folder, beat_s=0.2, silence_s=30) as held:
        assert held is None
    assert time.monotonic() - started < 20  # a sign of life is enough
    process.kill()
    process.wait()
    with locked(folder, beat_s=0.2, silence_s=2) as held:
        assert held is not None


def test_a_holder_that_was_silent_too_long_learns_that_it_lost(bucket: str) -> None:
    folder = Location(bucket) / "x"
    with locked(folder, beat_s=0.5, silence_s=60) as first:
        assert first is not None
        # As if this process had been stopped: what it said last says nothing new.
        with locked(folder, beat_s=0.2, silence_s=0.0) as second:
            assert second is not None
            end = time.monotonic() + 20
            while not first.is_lost:
                assert time.monotonic() < end
                time.sleep(0.05)


def test_of_many_that_want_a_lease_one_gets_it(bucket: str) -> None:
    folder, holding, most = Location(bucket) / "x", 0, 0
    lock, ready = threading.Lock(), threading.Barrier(6)

    def want() -> bool:
        nonlocal holding, most
        ready.wait()
        with locked(folder, beat_s=0.2, silence_s=30) as held:
            if held is None:
                return False
            with lock:
                holding += 1
                most = max(most, holding)
            time.sleep(1.0)
            with lock:
                holding -= 1
            return True

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda _: want(), range(6)))
    assert sum(got) == most == 1


def test_a_folder_that_cant_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    from melmill.storage.errors import StoreError

    with pytest.raises(StoreError, match="file"), locked(Location(str(tmp_path / "file" / "x"))):
        pass
