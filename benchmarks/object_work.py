"""Workloads on an object store: clients, the tasks of a run, and a resume of many records."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import soundfile

from benchmarks.figure import Figure
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.storage.files.location import Location
from melmill.storage.files.objects import bucket_and_key, client
from melmill.storage.product import ProductFolder
from melmill.storage.records import Record, StoredFile, record_file, record_name

# A shard of 300 s of 80 bands in half precision, and a record.
SIZES = {"shard": 3_500_000, "record": 900}
COUNTS = {"shard": 40, "record": 400}
THREADS = (1, 8)
SR = 8000
N_FILES = 12

_PIPELINE = """\
name: benchmark
store: {store}
shard_duration_s: 1
stages:
  speech: {{uses: audio_folder, root: {root}}}
  mel:    {{uses: extract, from: speech, n_fft: 256, win_length: 256, hop_length: 64, n_mels: 20, sr: 8000}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 2}}
  scores: {{uses: score, from: gla, against: speech, metrics: [sc]}}
"""

Transfer = Callable[[str, bytes], None]


def clients(place: Location) -> list[Figure]:
    """Write and read objects of the sizes of shards and records, with each installed client."""
    figures = []
    for name, make in {"obstore": _obstore, "s3fs": _s3fs}.items():
        try:
            write, read = make(place, name)
        except ImportError:
            print(f"{name} is not installed", flush=True)
            continue
        for what, size in SIZES.items():
            data = os.urandom(size)
            for threads in THREADS:
                names = [f"{name}/{what}/{threads}/{i:04d}" for i in range(COUNTS[what])]
                for verb, work in {"write": write, "read": read}.items():
                    figures += _rate(f"{name}: {verb} {what}s, {threads} threads", work, names, data)
    return figures


def _rate(label: str, work: Transfer, names: list[str], data: bytes) -> list[Figure]:
    started, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(int(label.split()[-2])) as pool:
        list(pool.map(lambda name: work(name, data), names))
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    return [
        Figure(name=label, measured=len(names) / wall, unit="requests/s"),
        Figure(name=f"{label}, processor time of the client", measured=1000 * cpu / len(names), unit="ms"),
    ]


def _obstore(place: Location, folder: str) -> tuple[Transfer, Transfer]:
    import obstore

    bucket, key = bucket_and_key(place.url)
    store = client(bucket)

    def write(name: str, data: bytes) -> None:
        obstore.put(store, f"{key}/{folder}/{name}", data, mode="create", use_multipart=False)

    def read(name: str, data: bytes) -> None:
        assert bytes(obstore.get(store, f"{key}/{folder}/{name}").bytes()) == data

    return write, read


def _s3fs(place: Location, folder: str) -> tuple[Transfer, Transfer]:
    import s3fs

    bucket, key = bucket_and_key(place.url)
    system = s3fs.S3FileSystem(use_listings_cache=False)
    root = f"{bucket.removeprefix('s3://')}/{key}/{folder}"

    def write(name: str, data: bytes) -> None:
        system.pipe_file(f"{root}/{name}", data, mode="create")

    def read(name: str, data: bytes) -> None:
        assert system.cat_file(f"{root}/{name}") == data

    return write, read


def emptied(place: Location) -> None:
    """Remove all objects of a folder."""
    import obstore

    bucket, key = bucket_and_key(place.url)
    obstore.delete(client(bucket), [f"{key}/{name}" for name in place.tree()])


def tasks(place: Location) -> list[Figure]:
    """Run a pipeline of four nodes over noise, then resume it. Return the requests of both."""
    with tempfile.TemporaryDirectory() as folder, counting() as count:
        rng = np.random.default_rng(0)
        (Path(folder) / "corpus").mkdir()
        for i in range(N_FILES):
            soundfile.write(Path(folder) / f"corpus/{i:02d}.wav", rng.uniform(-0.5, 0.5, SR), SR, subtype="PCM_16")
        path = Path(folder) / "pipeline.yaml"
        path.write_text(_PIPELINE.format(store=f"{place.url}/run", root=f"{folder}/corpus"))
        first = run(make_plan(load(path)), "serial")
        n_first = count()
        run(make_plan(load(path)), "serial")
        return [
            Figure(name="requests of a run, a task", measured=n_first / first.tasks.run, unit=""),
            Figure(name="requests of a run with nothing to do, in all", measured=count() - n_first, unit=""),
        ]


def resume(place: Location, n: int) -> list[Figure]:
    """Look up `n` records of a product, before and after they are packed."""
    folder = ProductFolder(place / "mel" / "k1")
    folder.each(lambda name: folder.location.put(record_file(name), _record(name)), [record_name(i) for i in range(n)])
    figures = []
    with counting() as count:
        for label, work in {
            "records, not packed": folder.records,
            "packing them": folder.pack,
            "records, packed": folder.records,
        }.items():
            before, started = count(), time.perf_counter()
            work()
            figures += [
                Figure(name=f"{n} {label}", measured=time.perf_counter() - started, unit="s"),
                Figure(name=f"{n} {label}: requests", measured=count() - before, unit=""),
            ]
    return figures


def _record(name: str) -> bytes:
    files = {f"data/c/{int(name)}/0": StoredFile.of(name.encode())}
    facts: dict[str, Any] = {"n_utterances": 40, "absent": (), "n_quarantined": 0, "duration_s": 300.0}
    about = {"host": "here", "attempt": 1, "versions": {"numpy": "2.0"}, "started_at": "2024-01-01T00:00:00+00:00"}
    return Record(node="mel", key="k1", name=name, files=files, compute_s=1.0, **facts, **about).to_json()


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Put a counting proxy before the server, and yield a function that returns the count.

    Only requests to a server on this machine are counted. For any other the count stays 0.
    """
    from melmill.storage.files import objects
    from tests.objects.proxy import proxied

    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
    if endpoint.hostname != "127.0.0.1" or endpoint.port is None:
        yield lambda: 0
        return
    with proxied(endpoint.port) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.url
        objects.forget_clients()
        try:
            yield lambda: len(proxy.requests)
        finally:
            os.environ["AWS_ENDPOINT_URL"] = endpoint.geturl()
            objects.forget_clients()
