"""Copying from a disk to a bucket and back: whatever fails on the way, the bytes are the same."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from melmill.storage.store import Store
from melmill.storage.verify import verify
from tests.flows.conftest import Project, add_chapter, flac, voice
from tests.objects.proxy import Fault, Proxy, Request
from tests.objects.test_prune import PIPELINE, SERIAL, contents


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project that ran on the disk."""
    made = Project(tmp_path)
    add_chapter(made.root, "dev-clean", "11", [flac(voice(0.8 + 0.1 * i, 110.0, seed=i)) for i in range(4)])
    made.write(PIPELINE)
    made.run(*SERIAL)
    return made


def copied(project: Project, source: str, target: str) -> dict[str, object]:
    done = project.called("copy", source, target, "--with-run", "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_to_a_bucket_and_back(project: Project, bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    local, place, back = str(project.store), f"{bucket}/team/store", str(tmp_path / "back")
    numbers = itertools.count(1)
    with (
        proxy.fault(Fault("status", lambda request: next(numbers) % 11 == 0)),
        proxy.fault(Fault("lose", lambda request: next(numbers) % 17 == 0)),
    ):
        answer = copied(project, local, place)
    assert answer["there"] == 0
    assert contents(Store.open(place).location) == contents(Store.open(local).location)
    assert verify(Store.open(place)) == []
    assert project.run(*SERIAL, "--store", place)["tasks"]["run"] == 0
    assert copied(project, place, back)["records"] == answer["records"]
    assert contents(Store.open(back).location) == contents(Store.open(local).location)
    assert project.run(*SERIAL, "--store", back)["tasks"]["run"] == 0


def test_a_bucket_is_read_and_not_written(project: Project, bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    place = f"{bucket}/team/store"
    copied(project, str(project.store), place)
    before = Store.open(place).location.tags()
    mine = tmp_path / "mine"
    with proxy.counted() as counts:
        tasks = project.run(*SERIAL, "--store", str(mine), "--also", place, "--set", "mel.n_mels=40")["tasks"]
    assert tasks["reused"] == tasks["run"] > 0
    assert set(counts) == {"GET", "LIST"}
    assert Store.open(place).location.tags() == before
    store = Store.open(str(mine))
    assert verify(store) == []
    speech = Store.open(place)["speech"]
    assert all((store["speech"][name] == y).all() for name, y in speech.items())
    assert all((store["speech"].part(name, slice(5, 50)) == y[5:50]).all() for name, y in speech.items())


@pytest.mark.parametrize("nth", [6, 12])
def test_a_copy_that_is_killed_goes_on(project: Project, bucket: str, proxy: Proxy, nth: int) -> None:
    place, numbers, reached = f"{bucket}/store", itertools.count(1), threading.Event()

    def is_late(request: Request) -> bool:
        if request.method != "PUT":
            return False
        late = next(numbers) >= nth
        if late:
            reached.set()
        return late

    with proxy.fault(Fault("delay", is_late, seconds=60.0)):
        command = project.command("copy", str(project.store), place)
        victim = subprocess.Popen(command, cwd=project.folder, env=project.environment(), stdout=subprocess.DEVNULL)
        assert reached.wait(120)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    assert verify(Store.open(place)) == []
    copied(project, str(project.store), place)
    assert contents(Store.open(place).location) == contents(Store.open(str(project.store)).location)
    assert project.run(*SERIAL, "--store", place)["tasks"]["run"] == 0
