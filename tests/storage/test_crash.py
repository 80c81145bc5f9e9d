"""Writers that are killed, and writers that meet: they always leave whole records."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.storage.arrays import ArraySpec
from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import StoreFull
from melmill.storage.files import local
from melmill.storage.files.location import Location
from melmill.storage.product import Facts, ProductDescription, ProductFolder, ShardContents
from melmill.storage.store import Store
from melmill.storage.verify import repair, verify

ROOT = Path(__file__).parents[2]

# Commits every shard of the catalogue over and over, as one worker of a run would.
WRITER = """
import sys
import numpy as np
from melmill.storage.arrays import encode
from melmill.storage.product import Facts, ProductFolder, ShardContents
from melmill.storage.store import Store

url, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = Store.open(url)
catalogue = store.catalogue("speech", "k0")
folder = store.product("mel", "k1")
facts = Facts(compute_s=1.0, started_at="2024-01-01T00:00:00+00:00", host="here", attempt=seed, versions={})
shards = [catalogue.shard(index) for index in range(catalogue.n_shards)]
# What is imported and loaded comes before it is ready, so that it is killed as it writes.
encode(folder.array_spec, folder.description.slot_length, shards[0], {})
print("ready", flush=True)
sys.stdin.readline()
for _ in range(rounds):
    for shard in shards:
        rng = np.random.default_rng([seed, shard.index])
        spec = folder.array_spec
        arrays = {u.utterance_id: rng.uniform(size=spec.shape(u)).astype("float32") for u in shard.utterances}
        rows = [{"utterance_id": u.utterance_id, "peak": float(rng.uniform())} for u in shard.utterances]
        folder.commit(shard, ShardContents(arrays=arrays, rows=rows), facts)
    if rounds > 1:
        for record in folder.records():
            folder.drop(record)
        for name in folder.location.tree():
            if name.startswith(("data/c", "table")):
                folder.location.remove(name)
"""


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    catalogue: Catalogue,
    describe: Callable[..., ProductDescription],
    mel_spec: ArraySpec,
) -> Store:
    """Return a store with a catalogue and a prepared product of mels.

    It is once on the disk and once in an object store.
    """
    made = Store.create(f"{request.getfixturevalue('bucket') if request.param == 's3' else tmp_path}/store", "test")
    made.product("speech", "k0").prepare(describe(None, node="speech", key="k0", kind="utterances"), 0)
    made.write_catalogue("speech", "k0", catalogue)
    made.product("mel", "k1").prepare(describe(mel_spec), catalogue.n_slots)
    return made


def start(store: Store, seed: int = 0, rounds: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, store.location.url, str(seed), str(rounds)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def release(*processes: subprocess.Popen[str]) -> None:
    """Let processes start writing at once, after all of them are ready."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()


def finish(*processes: subprocess.Popen[str]) -> None:
    release(*processes)
    assert [process.wait(60) for process in processes] == [0] * len(processes)


def contents(folder: ProductFolder) -> dict[str, bytes]:
    return {name: folder.location.read(name) for name in folder.location.tree()}


def test_a_killed_writer_leaves_only_whole_records(store: Store) -> None:
    folder = store.product("mel", "k1")
    finish(start(store))
    expected = contents(folder)
    n_records: set[int] = set()
    rng = random.Random(0)
    # Six writers; more where a machine is so slow that all die at the same place.
    for attempt in range(30):
        if attempt >= 6 and len(n_records) > 1:
            break
        victim = start(store, rounds=1000)
        n_before = len(folder.record_names())
        release(victim)
        # Even on a slow machine: wait until it has begun to write the records that are missing, or
        # to drop the last writer's.
        while len(folder.record_names()) == n_before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.4))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        records = folder.records()
        n_records.add(len(records))
        assert len(folder.record_names()) == len(records)
        assert all(folder.problems(record) == {} for record in records.values())
        assert folder.inventory().problems == {}
    assert len(n_records) > 1
    finish(start(store))
    assert contents(folder) == expected
    repair(store, verify(store))
    assert folder.location.leftovers() == []
    assert contents(folder) == expected


def test_a_writer_killed_before_its_link_leaves_nothing_but_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location(str(tmp_path))
    pid = os.fork()
    if pid == 0:
        # Dies between the flush of the file and its link.
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        location.put("x", b"data")
    os.waitpid(pid, 0)
    assert location.tree() == {}
    (leftover,) = location.leftovers()
    assert location.read(leftover) == b"data"


def test_a_disk_that_fills_up_leaves_only_whole_records(
    full_disk: Path,
    catalogue: Catalogue,
    arrays: Callable[..., dict[str, NDArray[Any]]],
    describe: Callable[..., ProductDescription],
    facts: Facts,
) -> None:
    spec = ArraySpec(dtype="float32", sr=16000, n_mels=256, n_fft=1024, hop_length=256, pad=512)
    folder = ProductFolder(Location(str(full_disk)))
    folder.prepare(describe(spec), catalogue.n_slots)
    shards = [catalogue.shard(index) for index in range(catalogue.n_shards)]

    def run() -> None:
        for shard in shards:
            folder.commit(shard, ShardContents(arrays=arrays(spec, shard)), facts)

    with pytest.raises(StoreFull, match="No space left on device"):
        run()
    done = folder.records()
    assert 0 < len(done) < len(shards)
    assert folder.inventory().problems == {}
    assert folder.location.leftovers() == []
    subprocess.run(["mount", "-o", "remount,size=100m", full_disk], check=True)
    run()
    assert len(folder.records()) == len(shards)
    assert folder.inventory().problems == {}


@pytest.mark.parametrize("seeds", [(0, 0, 0), (0, 1, 2)], ids=["the same bytes", "other bytes, as of a GPU"])
def test_writers_that_meet_leave_whole_records(store: Store, catalogue: Catalogue, seeds: tuple[int, ...]) -> None:
    folder = store.product("mel", "k1")
    for _ in range(2):
        finish(*[start(store, seed) for seed in seeds])
        records = folder.records()
        assert len(records) == catalogue.n_shards
        for name, record in records.items():
            assert folder.problems(record) == {}
            folder.drop(name)


@pytest.mark.parametrize("step", range(4))
def test_whoever_acts_last_leaves_a_whole_record(
    folder: ProductFolder,
    catalogue: Catalogue,
    arrays: Callable[..., dict[str, NDArray[Any]]],
    mel_spec: ArraySpec,
    facts: Facts,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    """Interrupt a writer before each write in turn by all the work of a writer of other bytes."""
    shard = catalogue.shard(0)
    rows = [[{"utterance_id": u.utterance_id, "peak": peak} for u in shard.utterances] for peak in (0.25, 0.5)]
    mine, theirs = (ShardContents(arrays=arrays(mel_spec, shard, seed=i), rows=rows[i]) for i in (0, 1))
    link, n_links = local._link, 0

    def interrupted(temporary: Path, final: Path) -> bool:
        nonlocal n_links
        n_links += 1
        if n_links == step + 1:
            folder.commit(shard, theirs, facts)
        return link(temporary, final)

    monkeypatch.setattr(local, "_link", interrupted)
    record = folder.commit(shard, mine, facts)
    assert folder.record("000000") == record
    assert folder.problems(record) == {}
    stored = folder.read_arrays(shard)
    winner = mine if step == 3 else theirs
    name = shard.utterances[0].utterance_id
    np.testing.assert_array_equal(stored[name], winner.arrays[name])
    assert folder.read_table("table")["peak"].tolist() == [0.25 if step == 3 else 0.5] * len(shard.utterances)
