"""Pruning on an object store: kills during deletions do no harm, and every object goes."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from benchmarks.faults.comparing import same_always
from melmill.flows.runs.prune import Rules, prune
from melmill.flows.runs.usage import usage
from melmill.storage.files.location import Location
from melmill.storage.store import Store
from melmill.storage.verify import verify
from tests.flows.conftest import Project, add_chapter, flac, voice
from tests.objects.proxy import Fault, Proxy, Request

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 2
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
"""
SERIAL = ("--executor", "serial")
OTHER = ("--set", "speech.sr=8000", "--set", "mel.sr=8000", "--set", "mel.fmax=4000")
NOW = Rules(keep=1, grace_s=0.0)


@pytest.fixture
def project(bucket: str, tmp_path: Path) -> Project:
    """Return a project whose store in a bucket has two runs of different rates."""
    made = Project(tmp_path)
    add_chapter(made.root, "dev-clean", "11", [flac(voice(0.8 + 0.1 * i, 110.0, seed=i)) for i in range(4)])
    made.pipeline.write_text(PIPELINE.format(store=f"{bucket}/store", root=made.root))
    made.run(*SERIAL, *OTHER)
    made.run(*SERIAL)
    return made


def contents(place: Location) -> dict[str, str]:
    return {name: hashlib.sha256(place.read(name)).hexdigest() for name in place.tree() if same_always(Path(name))}


def is_removal(request: Request) -> bool:
    return request.method == "DELETE" or (request.method == "POST" and "delete" in request.query)


def test_all_that_is_unused_goes(project: Project, bucket: str) -> None:
    store = Store.open(f"{bucket}/store")
    used = usage(store)
    assert used.n_bytes == sum(store.location.tree().values())
    assert [one.products for one in used.by_node()] == [2, 2]
    done = prune(store, NOW)
    assert sorted(one.node for one in done.deleted) == ["mel", "speech"]
    kept = {key for _, key in ((entry.folder, entry.key) for entry in store.nodes.values())}
    left = {name.split("/")[1] for name in store.location.tree() if name.split("/")[0] in ("mel", "speech")}
    assert left == kept
    assert verify(store) == []
    assert project.run(*SERIAL)["tasks"]["run"] == 0


def killed_at(project: Project, store: Store, proxy: Proxy, nth: int) -> None:
    """Prune in a process that is killed when it asks for its nth removal, which the server never gets."""
    count, reached = [0], threading.Event()

    def is_the_one(request: Request) -> bool:
        if not is_removal(request):
            return False
        count[0] += 1
        if count[0] == nth:
            reached.set()
        return count[0] >= nth

    command = project.command("prune", store.location.url, "--keep", "1", "--grace", "0", "--yes")
    with proxy.fault(Fault("delay", is_the_one, seconds=1000.0)):
        victim = subprocess.Popen(command, cwd=project.folder, env=project.environment(), stdout=subprocess.DEVNULL)
        assert reached.wait(120)
        victim.send_signal(signal.SIGKILL)
        victim.wait()


def test_a_kill_during_a_deletion(project: Project, bucket: str, proxy: Proxy) -> None:
    store = Store.open(f"{bucket}/store")
    before = contents(store.location)
    # The first removal is that of the file that tells the server's time. Then each product's records
    # go, its description, and the rest.
    for nth in (2, 4, 7):
        killed_at(project, store, proxy, nth)
        assert verify(store) == [], nth
        # A run finishes the deletion of what it needs.
        tasks = project.run(*SERIAL, *OTHER)["tasks"]
        assert tasks["run"] > 0, nth
        assert tasks["failed"] == 0, nth
        assert contents(store.location) == before, nth
        # What it made is of no use to the last run once more.
        assert project.run(*SERIAL)["tasks"]["run"] == 0, nth
    assert len(prune(store, NOW).deleted) == 2


def test_requests_that_fail_are_repeated(project: Project, bucket: str, proxy: Proxy) -> None:
    store = Store.open(f"{bucket}/store")
    failing = iter([True, False] * 1000)
    with proxy.fault(Fault("lose", lambda request: is_removal(request) and next(failing))):
        assert len(prune(store, NOW).deleted) == 2
    assert verify(store) == []
    assert project.run(*SERIAL)["tasks"]["run"] == 0
