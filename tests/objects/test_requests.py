"""The number of requests that work takes, counted by the proxy and compared with docs/stores.md."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from melmill.flows.execution.prepare import describe
from melmill.flows.execution.run import run
from melmill.flows.execution.summary import Summary
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.flows.tasks.job import Held
from melmill.flows.tasks.shard import ShardJob
from melmill.flows.tasks.task import Receipt
from melmill.storage.proof.packs import Copy, Packs
from melmill.storage.records import Record, StoredFile, record_file, record_name
from melmill.storage.store import Store
from tests.objects.proxy import Proxy
from tests.objects.serving import directly

ROOT = Path(__file__).parents[2]
SR = 8000
N_SHARDS = 2500
SHORT_S = 0.125

PIPELINE = """\
name: test
store: {store}
shard_duration_s: {shard_duration_s}
stages:
  speech: {{uses: audio_folder, root: {root}}}
  mel:    {{uses: extract, from: speech, n_fft: 256, win_length: 256, hop_length: 64, n_mels: 20, sr: 8000}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 2}}
  scores: {{uses: score, from: gla, against: speech, metrics: [sc]}}
"""


def pipeline(folder: Path, store: str, shard_duration_s: float) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(PIPELINE.format(store=store, shard_duration_s=shard_duration_s, root=folder / "corpus"))
    return path


def noise(path: Path, duration_s: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    y = np.random.default_rng(seed).uniform(-0.5, 0.5, int(duration_s * SR))
    soundfile.write(path, y, SR, subtype="PCM_16")


@pytest.fixture
def by_node(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Counter[str]]]:
    """Yield the requests of every task that runs in the block, by node."""
    found: dict[str, list[Counter[str]]] = {}
    ran = ShardJob.run_holding

    def counted(job: ShardJob, held: Held) -> Receipt:
        # As on a worker that has made none of the inputs.
        del held
        # The driver writes its state now and then.
        with proxy.counted(lambda request: "/runs/" not in request.key) as counts:
            receipt = ran(job, Held())
        found.setdefault(job.node.name, []).append(counts)
        return receipt

    monkeypatch.setattr(ShardJob, "run_holding", counted)
    return found


def documented() -> dict[str, dict[str, int]]:
    """Return the table of docs/stores.md: the requests of a task by kind, for each node."""
    lines = (ROOT / "docs" / "stores.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    start = next(i for i, row in enumerate(rows) if row[0] == "requests of a task")
    kinds = rows[start][1:4]
    table = {}
    for row in rows[start + 1 : start + 5]:
        numbers = {kind: int(cell) for kind, cell in zip(kinds, row[1:4], strict=True)}
        table[row[0]] = {kind: number for kind, number in numbers.items() if number}
    return table


def test_a_task_takes_the_requests_that_are_documented(
    bucket: str, tmp_path: Path, by_node: dict[str, list[Counter[str]]]
) -> None:
    for i in range(3):
        noise(tmp_path / "corpus" / "a" / f"{i}.wav", 1.0, i)
    summary = run(make_plan(load(pipeline(tmp_path, f"{bucket}/store", 1.0))), "serial")
    assert (summary.tasks.run, summary.tasks.failed) == (12, 0)
    # The first task of a process fetches the catalogue, and the description of its node.
    first = by_node["speech"].pop(0)
    assert first == by_node["speech"][0] + Counter({"GET": 2})
    names = {"speech": "ingest", "mel": "extract", "gla": "an inverter", "scores": "score"}
    expected = documented()
    assert {names[node] for node in by_node} == set(expected)
    for node, counts in by_node.items():
        assert counts == [expected[names[node]]] * len(counts), node


def test_recordings_that_stay_take_no_more_requests(
    bucket: str, tmp_path: Path, by_node: dict[str, list[Counter[str]]]
) -> None:
    for i in range(3):
        noise(tmp_path / "corpus" / "a" / f"{i}.wav", 1.0, i)
    path = pipeline(tmp_path, f"{bucket}/store", 1.0)
    path.write_text(path.read_text().replace("corpus}", "corpus, audio: reference}"))
    run(make_plan(load(path)), "serial")
    expected = documented()
    expected["ingest"]["PUT"] -= 1
    for node, row in (("speech", "ingest"), ("mel", "extract"), ("scores", "score")):
        assert by_node[node][1:] == [expected[row]] * 2, node


def resumed(path: Path) -> Summary:
    summary = run(make_plan(load(path), until="speech"), "serial", partial=True)
    assert summary.tasks.run == 0
    assert summary.tasks.reused == N_SHARDS
    return summary


@pytest.mark.slow
def test_resuming_takes_a_request_a_thousand_records(
    bucket: str, proxy: Proxy, object_server: int, tmp_path: Path
) -> None:
    noise(tmp_path / "corpus" / "a" / "0000.wav", SHORT_S, 0)
    for i in range(1, N_SHARDS):
        os.link(tmp_path / "corpus/a/0000.wav", tmp_path / f"corpus/a/{i:04d}.wav")
    path = pipeline(tmp_path, f"{bucket}/store", SHORT_S)
    with directly(object_server):
        fill(path)
    with proxy.counted() as counts:
        resumed(path)
    assert set(counts) <= {"GET", "LIST", "PUT", "POST", "DELETE"}
    # Records are listed once, in three pages, and their files once. The catalogue is listed once.
    assert counts["LIST"] <= 12
    assert counts["GET"] <= 12
    assert not any(request.method == "HEAD" for request in proxy.requests[-counts.total() :])


def fill(path: Path) -> None:
    """Make the store that a run of the first node leaves. Every record names the same file."""
    made = make_plan(load(path), until="speech")
    assert made.n_pending == N_SHARDS
    node = made.nodes["speech"].node
    store = Store.create(made.pipeline.store, made.pipeline.name)
    product = store.product(node.folder, node.key)
    product.prepare(
        describe(node, {node.name: node}, made.pipeline.shard_duration_s), made.catalogues["speech"].n_slots
    )
    store.write_catalogue(node.folder, node.key, made.catalogues["speech"])
    product.location.put("table/000000.parquet", b"shared")
    facts: dict[str, Any] = {"n_utterances": 1, "absent": (), "n_quarantined": 0, "duration_s": SHORT_S}
    files = {"table/000000.parquet": StoredFile.of(b"shared")}

    def write(name: str) -> bytes:
        record = Record(
            node=node.folder, key=node.key, name=name, files=files, compute_s=0.1, host="here", attempt=1, versions={},
            started_at="2024-01-01T00:00:00+00:00", **facts,
        )  # fmt: skip
        product.location.put(record_file(name), record.to_json())
        return record.to_json()

    names = [record_name(index) for index in range(N_SHARDS)]
    data = dict(zip(names, product.each(write, names), strict=True))
    records = product.location / "records"
    tags = records.tags()
    Packs(records, tags).add({name: Copy(tags[f"{name}.json"], data[name]) for name in names})
