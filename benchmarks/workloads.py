"""Workloads on speech: ingest and extract alone, and whole pipelines on a Dask cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.corpora import demo, repeated, speech
from melmill.cluster.connect import connected
from melmill.flows.execution.prepare import array_spec
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import Plan, make_plan
from melmill.stages.contract import Mel, as_float
from melmill.stages.formats.audio import decode
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.storage.arrays import encode
from melmill.storage.records import Record
from melmill.storage.store import Store

_EXTRACT = """\
name: throughput
store: {store}
shard_duration_s: 300
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
"""
_PIPELINE = Path(__file__).parents[1] / "pipeline.yaml"


def make_speech(folder: str, at_least_s: float) -> dict[str, Any]:
    """Find or make a corpus of at least a duration. Return its root and its name."""
    root, name = speech(Path(folder) / "demo")
    if name != "LibriSpeech" and at_least_s:
        repeated(root, Path(folder) / "repeated", at_least_s)
        root, name = Path(folder) / "repeated", f"{name}, repeated"
    return {"root": str(root), "name": name}


def make_demo(folder: str) -> dict[str, Any]:
    """Make the demo corpus; return its root."""
    return {"root": str(demo(Path(folder) / "demo"))}


def make_part(folder: str, root: str, duration_s: float) -> dict[str, Any]:
    """Make a corpus from some recordings of another, spread over its lengths."""
    repeated(Path(root), Path(folder) / "part", duration_s)
    return {"root": str(Path(folder) / "part")}


def extract(folder: str, root: str, repeats: int) -> dict[str, Any]:
    """Ingest and extract `repeats` times, each into a store of its own, after one warm-up."""
    runs = [_extracted(Path(folder), root, index) for index in range(repeats + 1)][1:]
    return {name: [one[name] for one in runs] for name in runs[0]}


def _extracted(folder: Path, root: str, index: int) -> dict[str, float]:
    file = folder / f"extract-{index}.yaml"
    file.write_text(_EXTRACT.format(store=folder / f"extract-{index}", root=root))
    plan = make_plan(load(file))
    wall, cpu = time.perf_counter(), time.process_time()
    summary = run(plan, "serial")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if summary.tasks.failed or summary.quarantined:
        raise RuntimeError(f"{summary.tasks.failed} tasks failed and {summary.quarantined} utterances were quarantined")
    return {"wall_s": wall, "cpu_s": cpu, "audio_s": plan.catalogues["speech"].duration_s}


def split(folder: str, root: str) -> dict[str, float]:
    """Time decoding, mel extraction and encoding over the whole corpus on one thread, s."""
    file = Path(folder) / "split.yaml"
    file.write_text(_EXTRACT.format(store=Path(folder) / "split", root=root))
    plan = make_plan(load(file))
    spent = {"decode_s": 0.0, "mel_s": 0.0, "encode_s": 0.0}
    for index in range(plan.catalogues["speech"].n_shards):
        _split_shard(plan, Path(root), index, spent)
    return {**spent, "audio_s": plan.catalogues["speech"].duration_s}


def _split_shard(plan: Plan, root: Path, index: int, spent: dict[str, float]) -> None:
    shard = plan.catalogues["speech"].shard(index)
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    product = nodes["mel"].product
    if not isinstance(product, Mel):
        raise TypeError(f"node 'mel' makes {product!r}")
    files = {u.utterance_id: (root / u.path).read_bytes() for u in shard.utterances}
    waves = _timed(spent, "decode_s", lambda: {name: decode(data)[0][:, 0] for name, data in files.items()})
    mels = _timed(
        spent, "mel_s", lambda: {name: mel_spectrogram(as_float(y), product.spec) for name, y in waves.items()}
    )
    for name, arrays in (("speech", waves), ("mel", mels)):
        spec = array_spec(nodes[name])
        if spec is None:
            raise TypeError(f"node {name!r} has no array")
        slot_length = spec.slot_length(plan.pipeline.shard_duration_s)
        _timed(spent, "encode_s", lambda: encode(spec, slot_length, shard, arrays))  # noqa: B023 - called at once


def _timed(spent: dict[str, float], name: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - what call returns
    started = time.perf_counter()
    result = call()
    spent[name] += time.perf_counter() - started
    return result


def pipeline(folder: str, name: str, overrides: list[str]) -> dict[str, Any]:
    """Run pipeline.yaml with overrides on Dask, into a new store. Return the time of its stages."""
    plan = make_plan(load(_PIPELINE, overrides, str(Path(folder) / name)))
    started = time.perf_counter()
    summary = run(plan)
    wall_s = time.perf_counter() - started
    if summary.tasks.failed:
        raise RuntimeError(f"{summary.tasks.failed} tasks failed")
    return {
        "wall_s": wall_s,
        "compute_s": sum(record.compute_s for record in _records(plan)),
        # Each task counts its peak anew, so that what a worker's process tells at its end is that of its last alone.
        "peak_mem_bytes": max(record.peak_mem_bytes for record in _records(plan)),
        "workers": sum(pool.slots for pool in plan.pipeline.cluster.pools.values()),
        "n_tasks": plan.n_tasks,
        "n_shards": plan.catalogues["speech"].n_shards,
    }


def _records(plan: Plan) -> Iterator[Record]:
    store = Store.open(plan.pipeline.store)
    for node in (node_plan.node for node_plan in plan.nodes.values()):
        yield from store.product(node.folder, node.key).records().values()


def start_cluster(workers: int) -> dict[str, float]:
    """Start and stop the cluster of pipeline.yaml. Return how long each took."""
    spec = load(_PIPELINE).cluster
    started = time.perf_counter()
    with connected(spec) as cluster:
        cluster.client.wait_for_workers(workers)
        start_s = time.perf_counter() - started
        stopping = time.perf_counter()
    return {"start_s": start_s, "stop_s": time.perf_counter() - stopping}
