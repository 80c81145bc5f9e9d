"""Whole runs on an object store: they store the bytes of a local run, whatever fails on the way."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.faults.comparing import same_always
from melmill import SourceChanged
from melmill import open as open_store
from melmill.flows.cli.group import cli
from melmill.storage.corpus.revisions import Revisions
from melmill.storage.errors import StoreError
from melmill.storage.files.location import Location
from melmill.storage.store import Store
from tests.flows.conftest import Project, add_chapter, flac, voice
from tests.objects.proxy import Fault, Proxy, Request
from tests.objects.serving import SECRET_KEY

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 2
max_quarantined: 50 %
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 2}}
  scores: {{uses: score, from: gla, against: speech, metrics: [sc]}}
  report: {{uses: aggregate, from: scores, examples: 1}}
cluster: {{pools: {{cpu: {{workers: 2}}}}}}
"""
BAD = "11-1-0005"
N_SHARDS = 4
N_NODES = 5
N_TASKS = 4 * N_SHARDS + 1
PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with a bad recording, after a run on the disk in one process."""
    made = Project(tmp_path_factory.mktemp("local"))
    files = [flac(voice(0.8 + 0.1 * i, 110.0 + 10 * i, seed=i)) for i in range(5)]
    add_chapter(made.root, "dev-clean", "11", [*files, files[0][:200]])
    made.write(PIPELINE)
    assert made.run("--executor", "serial")["tasks"]["run"] == N_TASKS
    return made


@pytest.fixture
def project(local: Project, bucket: str, tmp_path: Path) -> Project:
    """Return a project of the same corpus whose store is an empty bucket."""
    made = Project(tmp_path)
    made.root = local.root
    made.pipeline.write_text(PIPELINE.format(store=url(bucket), root=local.root))
    return made


@pytest.fixture
def finished(project: Project, local: Project, bucket: str) -> Location:
    """Return the project's store, copied file by file from the disk."""
    place = Location(url(bucket))
    for path in local.store.rglob("*"):
        if path.is_file():
            place.put(str(path.relative_to(local.store)), path.read_bytes())
    return place


def url(bucket: str) -> str:
    return f"{bucket}/runs/x"


def contents(place: Location) -> dict[str, str]:
    """Return a hash of every object that must be the same after any run."""
    names = [name for name in place.tree() if same_always(Path(name))]
    return {name: hashlib.sha256(place.read(name)).hexdigest() for name in names}


def melmill(*arguments: str, expect: int = 0) -> Result:
    done = CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)
    assert (done.return_value or 0) == expect, done.output
    return done


def run_again(project: Project) -> dict[str, int]:
    answer = melmill("run", str(project.pipeline), "--executor", "serial", "--json").stdout
    tasks: dict[str, int] = json.loads(answer)["tasks"]
    return tasks


def every(n: int) -> Callable[[Request], bool]:
    """Return a function that chooses one request of every `n`."""
    count = itertools.count(1)
    return lambda request: next(count) % n == 0


@pytest.mark.slow
def test_a_run_through_faults_stores_the_bytes_of_a_local_one(
    project: Project, local: Project, bucket: str, proxy: Proxy
) -> None:
    place = Location(url(bucket))
    with (
        proxy.fault(Fault("status", every(11))),
        proxy.fault(Fault("lose", every(13))),
        proxy.fault(Fault("cut", every(17))),
        proxy.fault(Fault("delay", every(5), seconds=0.05)),
    ):
        done = project.melmill("run", str(project.pipeline), "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["tasks"] == {"total": N_TASKS, "run": N_TASKS, "reused": 0, "failed": 0}
    assert answer["quarantined"] == 1
    assert contents(place) == local.bytes()
    held = {name for name in place.tree() if "runs/" not in name}
    assert held == {
        str(p.relative_to(local.store)) for p in local.store.rglob("*") if p.is_file() and "runs" not in p.parts
    }
    assert place.leftovers() == []
    # No secret is in the store or on the terminal.
    assert all(SECRET_KEY.encode() not in place.read(name) for name in place.tree())
    assert SECRET_KEY not in done.stdout + done.stderr
    assert run_again(project)["run"] == 0
    assert "nothing to run" in melmill("run", str(project.pipeline), "--executor", "serial").stdout


def test_recordings_stay_in_a_bucket(project: Project, local: Project, bucket: str, proxy: Proxy) -> None:
    corpus = Location(f"{bucket}/corpus")
    for path in local.root.rglob("*.flac"):
        corpus.put(str(path.relative_to(local.root)), path.read_bytes())
    project.pipeline.write_text(PIPELINE.format(store=url(bucket), root=f"{corpus.url}, audio: reference"))
    melmill("run", str(project.pipeline), "--executor", "serial", "--until", "speech")
    with proxy.fault(Fault("status", every(11))), proxy.fault(Fault("cut", every(17))):
        assert run_again(project)["failed"] == 0
    folders = {"mel/", "gla/"}
    made, expected = (
        {
            "/".join([name.split("/")[0], *name.split("/")[2:]]): digest
            for name, digest in files.items()
            if any(name.startswith(folder) for folder in folders) and "/data/" in name
        }
        for files in (contents(Location(url(bucket))), local.bytes())
    )
    assert made == expected
    assert not any("/data/" in name for name in (Location(url(bucket)) / "speech").tree())
    mine, theirs = (open_store(one)["speech"] for one in (url(bucket), str(local.store)))
    assert all((mine[name] == y).all() for name, y in theirs.items())
    # What is gone is told from a bucket that is.
    name = next(iter(theirs))
    corpus.remove(next(u.path for u in mine.catalogue.utterances() if u.utterance_id == name))
    with pytest.raises(SourceChanged, match="is gone since it was ingested"):
        open_store(url(bucket))["speech"][name]


def test_commands(project: Project, local: Project, finished: Location) -> None:
    store = finished.url
    assert run_again(project) == {"total": N_TASKS, "run": 0, "reused": N_TASKS, "failed": 0}
    states = json.loads(melmill("status", store, "--json").stdout)["nodes"]
    assert [(node["node"], node["done"]) for node in states][:2] == [("speech", N_SHARDS), ("mel", N_SHARDS)]
    assert json.loads(melmill("plan", str(project.pipeline), "--json").stdout)["tasks"]["run"] == 0
    on_disk = melmill("scores", str(local.store), "--format", "csv").stdout
    assert melmill("scores", store, "--format", "csv").stdout == on_disk
    assert [
        row["utterance_id"] for row in json.loads(melmill("quarantine", store, "--json").stdout)["quarantined"]
    ] == [BAD]
    assert f"{store}/report/" in melmill("report", store).stdout
    assert "is whole" in melmill("verify", store).stdout
    # The tasks of its shard at every node, and the report.
    assert json.loads(melmill("quarantine", store, "--retry", "--json").stdout)["dropped"] == N_NODES
    assert run_again(project)["run"] == N_NODES
    assert contents(finished) == local.bytes()


def test_a_corpus_of_objects(local: Project, bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    import boto3

    corpus, pipeline = Location(f"{bucket}/corpus"), tmp_path / "pipeline.yaml"
    for path in local.root.rglob("*.flac"):
        corpus.put(str(path.relative_to(local.root)), path.read_bytes())
    pipeline.write_text(PIPELINE.format(store=tmp_path / "store", root=corpus.url))
    # A key that can't be a path is passed over, as a name on a disk would be that is not UTF-8.
    boto3.client("s3", endpoint_url=proxy.url).put_object(
        Bucket=bucket.removeprefix("s3://"), Key="corpus/dev-clean//11-1-0009.flac", Body=b"x"
    )
    for n_run in (2 * N_SHARDS, 0):
        answer = json.loads(melmill("run", str(pipeline), "--until", "mel", "--executor", "serial", "--json").stdout)
        assert answer["tasks"]["run"] == n_run
        assert any("1 passed over, key that can't be a path" in note for note in answer["notes"])
    made = {name: digest for name, digest in contents(Location(str(tmp_path / "store"))).items() if "/data/" in name}
    whole = local.bytes()
    assert made
    assert made == {name: whole[name] for name in made}
    corpus.remove("dev-clean/11/1/11-1-0000.flac")
    with pytest.raises(ValueError, match=r"gone since it was catalogued: dev-clean/11/1/11-1-0000.flac"):
        melmill("plan", str(pipeline))
    answer = json.loads(melmill("run", str(pipeline), "--executor", "serial", "--follow", "--json").stdout)
    # All shards of the inverter and of the scores, and the report.
    assert (answer["utterances"], answer["tasks"]["run"]) == (5, 2 * N_SHARDS + 1)


def test_a_store_of_objects_follows(
    project: Project, local: Project, finished: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.root = shutil.copytree(local.root, tmp_path / "corpus")
    project.pipeline.write_text(PIPELINE.format(store=finished.url, root=project.root))
    before, folder = contents(finished), project.root / "dev-clean" / "11" / "1"
    (folder / "11-1-0000.flac").unlink()
    (folder / "11-1-0001.flac").write_bytes(flac(voice(1.0, 150.0, seed=9)))
    (folder / "11-1-0002.flac").touch()
    (folder / f"{BAD}.flac").write_bytes(flac(voice(1.3, 150.0, seed=8)))
    with pytest.raises(ValueError, match="--follow"):
        melmill("plan", str(project.pipeline))
    # A run that is killed after it retired rows leaves files that are new.
    with monkeypatch.context() as patch:
        patch.setattr(Revisions, "write", cut_off(Revisions.write))
        with pytest.raises(ValueError, match="killed here"):
            melmill("run", str(project.pipeline), "--executor", "serial", "--follow")
    answer = json.loads(melmill("run", str(project.pipeline), "--executor", "serial", "--json").stdout)
    assert (answer["utterances"], answer["quarantined"], answer["tasks"]["failed"]) == (5, 0, 0)
    after = contents(finished)
    grown = {name for name in before if name.endswith(("zarr.json", "melmill.json"))}
    assert {name: after[name] for name in before.keys() - grown} == {
        name: before[name] for name in before.keys() - grown
    }
    assert run_again(project)["run"] == 0
    fresh = tmp_path / "fresh"
    melmill("run", str(project.pipeline), "--executor", "serial", "--store", str(fresh))
    scores = [melmill("scores", str(store), "--format", "csv").stdout for store in (finished.url, fresh)]
    assert scores[0] == scores[1]
    assert "is whole" in melmill("verify", finished.url).stdout


def cut_off(write: Callable[[Revisions, Location], None]) -> Callable[[Revisions, Location], None]:
    """Return a function that writes, and then fails."""

    def written(revisions: Revisions, location: Location) -> None:
        write(revisions, location)
        raise StoreError("killed here")

    return written


def test_arrays_are_read_alike(local: Project, finished: Location, proxy: Proxy) -> None:
    here, there = Store.open(str(local.store)), Store.open(finished.url)
    for node in ("speech", "mel", "gla"):
        assert list(here[node]) == list(there[node])
        for name in here[node]:
            assert (here[node][name] == there[node][name]).all()
    view, name = there["mel"], next(iter(there["mel"]))
    with proxy.fault(Fault("status", status=403)), pytest.raises(ValueError, match="access was refused"):
        view[name]


def test_damage_is_found_and_redone(project: Project, local: Project, finished: Location) -> None:
    data = sorted(name for name in finished.tree() if "/data/c/" in name)
    cut, flipped, gone = (next(name for name in data if name.startswith(node)) for node in ("speech/", "mel/", "gla/"))
    whole = finished.read(flipped)
    finished.replace(cut, finished.read(cut)[:-1])
    finished.replace(flipped, whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    finished.remove(gone)
    found = json.loads(melmill("verify", finished.url, "--json", expect=1).stdout)["damaged"]
    assert sorted(f"{one['node']}/{one['key']}/{one['file']}" for one in found) == sorted([cut, flipped, gone])
    melmill("repair", finished.url)
    assert run_again(project)["run"] == len(found)
    assert contents(finished) == local.bytes()
    assert "is whole" in melmill("verify", finished.url).stdout


def test_a_store_that_is_out_of_reach_is_not_damaged(finished: Location, proxy: Proxy) -> None:
    before = finished.tree()
    is_data = Fault("status", lambda request: "data/" in request.key or request.key.endswith("node.json"), status=403)
    with proxy.fault(is_data), pytest.raises(ValueError, match="access was refused"):
        melmill("repair", finished.url)
    assert finished.tree() == before


def test_exports(project: Project, local: Project, finished: Location, bucket: str, tmp_path: Path) -> None:
    folders = {
        "from the disk to the disk": (str(local.store), str(tmp_path / "disk")),
        "from the disk to objects": (str(local.store), f"{bucket}/out/a"),
        "from objects to the disk": (finished.url, str(tmp_path / "from objects")),
        "from objects to objects": (finished.url, f"{bucket}/out/b"),
    }
    made = {}
    for name, (store, folder) in folders.items():
        summary = json.loads(melmill("export", store, "gla", folder, "--json").stdout)
        assert (summary["written"], summary["quarantined"]) == (5, 1), name
        assert json.loads(melmill("export", store, "gla", folder, "--json").stdout)["kept"] == 5, name
        place = Location(folder)
        made[name] = {file: place.read(file) for file in place.tree()}
    (first, *others) = made.values()
    assert all(other == first for other in others)


def start(project: Project) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        project.command("run", str(project.pipeline)),
        cwd=project.folder,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a run with its workers, as a power failure does."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_two_clients_at_once(project: Project, local: Project, bucket: str) -> None:
    clients = [start(project), start(project)]
    try:
        assert [client.wait(PATIENCE_S) for client in clients] == [0, 0]
    finally:
        for client in clients:
            kill_all(client)
    assert contents(Location(url(bucket))) == local.bytes()
    assert run_again(project)["run"] == 0


def test_a_killed_run_goes_on(project: Project, local: Project, bucket: str, proxy: Proxy) -> None:
    place = Location(url(bucket))
    client = start(project)
    try:
        deadline = time.monotonic() + PATIENCE_S
        # The proxy is asked, so that waiting adds no requests.
        while not any(bucket.endswith(request.bucket) and _is_record(request) for request in proxy.requests):
            assert client.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        kill_all(client)
    done = sum("/records/" in name for name in place.tree())
    assert 0 < done < N_TASKS
    assert run_again(project) == {"total": N_TASKS, "run": N_TASKS - done, "reused": done, "failed": 0}
    assert contents(place) == local.bytes()


def _is_record(request: Request) -> bool:
    return request.method == "PUT" and "/records/" in request.key
