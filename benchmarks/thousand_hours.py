"""Workloads of a corpus of 1,000 hours: a first plan, a finished store, a resume."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.corpora import thousand_hours
from melmill.flows.execution.prepare import describe
from melmill.flows.execution.run import run
from melmill.flows.pipeline.graph import Node
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import Plan, make_plan
from melmill.flows.tasks.task import ALL_SHARDS
from melmill.stages.contract import Report
from melmill.storage.arrays import shard_files
from melmill.storage.product import ProductFolder
from melmill.storage.records import Record, StoredFile, record_name
from melmill.storage.store import Store
from melmill.storage.utterance import Shard

_PIPELINE = """\
name: thousand-hours
store: {store}
shard_duration_s: 300
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  gla:    {{uses: griffin_lim, from: mel}}
  admm:   {{uses: admm, from: mel}}
  scores: {{uses: score, from: [gla, admm], against: speech, metrics: [pesq_wb, estoi, scm, sc]}}
  report: {{uses: aggregate, from: scores, baseline: gla, by: [subset, speaker]}}
"""
# Resume looks at sizes and never into the files.
_DATA = bytes(1000)
_STORED = StoredFile.of(_DATA)
_VERSIONS = {"melmill": "0.1.0", "numpy": "2.2.6", "python": "3.11.9", "scipy": "1.15.3", "zarr": "3.1.3"}


def make_corpus(folder: str) -> None:
    """Make the tree of the corpus and a pipeline over it."""
    root, store = Path(folder) / "corpus", Path(folder) / "store"
    thousand_hours(root)
    (Path(folder) / "pipeline.yaml").write_text(_PIPELINE.format(store=store, root=root))


def plan(folder: str) -> dict[str, Any]:
    """Plan as `melmill plan` does."""
    made = make_plan(load(Path(folder) / "pipeline.yaml"))
    return {"n_utterances": made.n_utterances, "n_tasks": made.n_tasks, "n_pending": made.n_pending}


def resume(folder: str) -> dict[str, Any]:
    """Plan and run as `melmill run` does."""
    summary = run(make_plan(load(Path(folder) / "pipeline.yaml")))
    return {"n_utterances": summary.utterances, "n_tasks": summary.tasks.total, "n_run": summary.tasks.run}


def make_store(folder: str) -> None:
    """Make a finished store, with the names, records and number of files of a real one."""
    made = make_plan(load(Path(folder) / "pipeline.yaml"))
    nodes = {name: node_plan.node for name, node_plan in made.nodes.items()}
    store = Store.create(made.pipeline.store, made.pipeline.name)
    data = Path(folder) / "data"
    data.write_bytes(_DATA)
    for name, corpus in made.catalogues.items():
        store.write_catalogue(nodes[name].folder, nodes[name].key, corpus)
    # Read back, because shards of a part on disk are found at once.
    stored = {name: store.catalogue(nodes[name].folder, nodes[name].key) for name in made.catalogues}
    shards = {name: [corpus.shard(i) for i in range(corpus.n_shards)] for name, corpus in stored.items() if corpus}
    for node in nodes.values():
        product = store.product(node.folder, node.key)
        product.prepare(describe(node, nodes, made.pipeline.shard_duration_s), 0)
        if isinstance(node.product, Report):
            _fill_report(product, node, made)
        else:
            fill(product, node, shards[node.corpora[0]], data)
            # A run does so at its end.
            product.pack()


def _fill_report(product: ProductFolder, node: Node, made: Plan) -> None:
    name = made.record_name(node, ALL_SHARDS)
    product.location.put(f"report/{name}/index.html", _DATA)
    _put_record(product, node, name, [f"report/{name}/index.html"], None)


def fill(product: ProductFolder, node: Node, shards: list[Shard], data: Path) -> None:
    """Store files and records of shards. Names of files that stand for all begin with `data`."""
    array = product.description.array
    tabular = array is None or not node.inputs
    # One file stands for all of a product's, so that making a hundred thousand takes seconds.
    source = f"{data}-{node.key}"
    Path(source).write_bytes(_DATA)
    for shard in shards:
        name = record_name(shard.index)
        files = [f"data/{file}" for file in shard_files(array, shard)] if array else []
        files += [f"table/{name}.parquet"] if tabular else []
        for file in files:
            path = f"{product.location.url}/{file}"
            os.makedirs(path.rpartition("/")[0], exist_ok=True)  # noqa: PTH103 - a Path takes as long as the folder
            os.link(source, path)
        _put_record(product, node, name, files, shard)


def _put_record(product: ProductFolder, node: Node, name: str, files: list[str], shard: Shard | None) -> None:
    record = Record(
        node=node.folder,
        key=node.key,
        name=name,
        n_utterances=len(shard.utterances) if shard else 0,
        absent=(),
        n_quarantined=0,
        files=dict.fromkeys(files, _STORED),
        duration_s=shard.duration_s if shard else 0.0,
        compute_s=12.345678901234,
        started_at="2026-01-01T12:00:00+00:00",
        host="worker-0.example",
        attempt=1,
        versions=_VERSIONS,
    )
    path = Path(product.location.url) / "records" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(record.to_json())
