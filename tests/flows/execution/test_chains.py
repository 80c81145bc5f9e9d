"""Chains: nodes of a shard on one worker give the bytes of single tasks, whatever dies between them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Future

from benchmarks.faults.package import install
from melmill.flows.execution.prepare import prepare_store
from melmill.flows.execution.run import JobMaker, run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.flows.tasks import chain
from melmill.flows.tasks.job import Held
from melmill.flows.tasks.shard import ShardJob
from melmill.flows.tasks.task import Task
from melmill.flows.watching.events import Place
from melmill.storage.product import ProductFolder
from melmill.storage.store import Store
from melmill.storage.utterance import Shard
from tests.flows.conftest import NODES, Project, add_chapter, flac, packages_of, voice
from tests.flows.conftest import PIPELINE as PIPELINE_OF_ALL

# It makes the audio louder, and kills its process at the first tries of some shards.
STAGE = '''
"""A stage of another package: it kills its worker a few times."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from melmill.stages.contract import Input, Kind, Outcome, Waveform, as_float, each


def is_worker():
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class Deadly:
    uses: ClassVar = "deadly"
    version: ClassVar = 1
    inputs: ClassVar = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    marks: str = ""
    at: tuple[str, ...] = ()

    def identity(self):
        return {}

    def produces(self, inputs):
        return Waveform(sr=inputs["from"][0].sr)

    def process(self, items, inputs, product):
        name = items[0].utterance.utterance_id
        if name in self.at and is_worker():
            mark = Path(self.marks) / name
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return each(items, lambda item: Outcome(array=as_float(item.inputs["from"]) * np.float32(0.5)))
'''

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
stages:
  speech: {{uses: librispeech, root: {root}}}
  loud:   {{uses: deadly, from: speech}}
  mel:    {{uses: extract, from: loud}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 1}}
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""
N_SHARDS = 7
FOLDERS = {name.partition("[")[0] for name in NODES}


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """Install the stage for this process, and return its folder, for PYTHONPATH."""
    folder = tmp_path / "site"
    install(folder, "deadly", STAGE, "Deadly")
    with packages_of(folder):
        yield folder


def firsts(project: Project) -> list[str]:
    """Return the first utterance of every shard."""
    catalogue = make_plan(load(project.pipeline), until="speech").catalogues["speech"]
    return [catalogue.shard(index).utterances[0].utterance_id for index in range(catalogue.n_shards)]


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def killed_run(project: Project, package: Path, at: list[str], *arguments: str) -> list[dict[str, Any]]:
    """Run with a stage that kills its worker at some utterances; return the log."""
    marks, log = project.folder / "marks", project.folder / "log.jsonl"
    marks.mkdir()
    answer = project.run(
        "--set", f"loud.marks={marks}", "--set", f"loud.at={at}", "--log", str(log), *arguments, extra=package
    )
    assert (answer["tasks"]["failed"], answer["quarantined"]) == (0, 0)
    assert {path.name for path in marks.iterdir()} <= set(at)
    assert any(marks.iterdir())
    return logged(log)


def attempts(project: Project, node: str) -> list[int]:
    """Return which attempt made each shard of a node."""
    paths = sorted(project.store.glob(f"{node}/*/records/*.json"))
    return [json.loads(path.read_text())["attempt"] for path in paths]


def test_a_chain_reads_nothing_back_and_makes_the_same_bytes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    # One utterance is in quarantine, which the nodes after it lack. The mels are rounded.
    add_chapter(project.root, "dev-clean", "33", [b"", flac(voice(1.0, 150.0, 9))])
    pipeline = PIPELINE_OF_ALL.replace("from: speech}}", "from: speech, dtype: float16}}", 1)
    project.write("max_quarantined: 1.0\n" + pipeline)
    assert project.run("--executor", "serial")["quarantined"] == 1
    whole = project.bytes()
    project.store = project.folder / "in-chains"
    project.write("max_quarantined: 1.0\n" + pipeline)
    plan = make_plan(load(project.pipeline))
    prepare_store(plan)
    make_job, read = JobMaker(plan), Counter[str]()
    from_store = ProductFolder.read_arrays

    def counted(folder: ProductFolder, shard: Shard, *arguments: Any) -> Any:
        read[folder.description.node] += 1
        return from_store(folder, shard, *arguments)

    monkeypatch.setattr(ProductFolder, "read_arrays", counted)
    for shard in plan.nodes["speech"].pending:
        jobs = [make_job(Task(name, "speech", shard), 1, False) for name in NODES]
        held = Held()
        for i, job in enumerate(jobs):
            held.keep({address for later in jobs[i:] for address in later.reads})
            assert job.done() is None
            receipt = job.run_holding(held)
            # A second try looks at the record, and does nothing.
            monkeypatch.setattr(ShardJob, "run_holding", None)
            again = chain._receipt(chain.Link.of("again", job, None), Held(), Place())
            monkeypatch.undo()
            monkeypatch.setattr(ProductFolder, "read_arrays", counted)
            assert (again.n_utterances, again.quarantined) == (receipt.n_utterances, receipt.quarantined)
            assert again.audio_s == pytest.approx(receipt.audio_s)
    assert not read
    made = project.bytes()
    expected = {name: digest for name, digest in whole.items() if name.split("/")[0] in FOLDERS}
    assert expected
    assert {name: digest for name, digest in made.items() if name.split("/")[0] in FOLDERS} == expected


def test_receipts_come_without_being_fetched(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(future: Future) -> None:
        raise AssertionError(f"{future.key} was fetched")

    monkeypatch.setattr("distributed.client.Future.result", fetched)
    summary = run(make_plan(load(project.pipeline), until="mel"))
    assert (summary.tasks.failed, summary.tasks.run) == (0, 2 * N_SHARDS)


def test_what_a_stage_does_to_its_input_stays_with_it(finished: Project) -> None:
    plan = make_plan(load(finished.pipeline))
    node = plan.nodes["speech"].node
    address = node.folder, node.key
    shard = plan.catalogues["speech"].shard(0)
    arrays = Store.open(str(finished.store)).product(*address).read_arrays(shard)
    held = Held()
    held.put(address, arrays)
    assert held.get(address) is None  # nobody wants it
    held.keep({address})
    held.put(address, arrays)
    first = held.get(address)
    assert first is not None
    for array in first.values():
        array[:] = 0
    again = held.get(address)
    assert again is not None
    assert all((again[name] == arrays[name]).all() and again[name].dtype == arrays[name].dtype for name in arrays)
    held.keep(set())
    assert held.get(address) is None


def test_a_kill_between_two_nodes_of_a_chain_loses_only_what_has_no_record(project: Project, package: Path) -> None:
    project.write(PIPELINE)
    project.run("--executor", "serial", extra=package)
    whole, store = project.bytes(), project.store
    project.store = project.folder / "killed"
    project.write(PIPELINE)
    victim = firsts(project)[2]
    events = killed_run(project, package, [victim])
    assert project.bytes() == whole
    # The node before was stored, and is not done again.
    assert attempts(project, "loud")[2] == 2
    assert attempts(project, "speech")[2] == attempts(project, "mel")[2] == attempts(project, "gla")[2] == 1
    counts = Counter(event["event"] for event in events)
    assert counts["task_finished"] == 4 * N_SHARDS
    died = [(event["node"], event["shard"]) for event in events if event["event"] == "worker_died"]
    # At most one chain waited at the worker. Its first node is tried again too.
    assert ("loud", 2) in died
    assert {node for node, shard in died if shard != 2} <= {"speech"}
    assert len(died) <= 2
    assert store.exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_graph_over_two_pools_survives_the_deaths_of_its_rare_workers(project: Project, package: Path) -> None:
    """The only worker with a resource is killed eight times, and 110 shards go through it."""
    n_shards, n_kills = 110, 8
    shutil.rmtree(project.root)
    add_chapter(project.root, "dev", "31", [flac(voice(0.3, 90 + i, i)) for i in range(n_shards)])
    pipeline = (
        PIPELINE.replace("shard_duration_s: 3", "shard_duration_s: 0.3")
        .replace("  gla:    {{uses: griffin_lim, from: mel, n_iter: 1}}\n", "")
        .replace("from: speech}}", "from: speech, pool: rare}}")
        .replace("{{cpu: {{workers: 1}}}}", "{{cpu: {{workers: 2}}, rare: {{workers: 1, resources: {{GPU: 1}}}}}}")
    )
    project.write(pipeline)
    project.run("--executor", "serial", extra=package)
    whole = project.bytes()
    assert len(firsts(project)) == n_shards
    project.store = project.folder / "killed"
    project.write(pipeline)
    events = killed_run(project, package, firsts(project)[: 12 * n_kills : 12])
    assert project.bytes() == whole
    counts = Counter(event["event"] for event in events)
    assert counts["task_finished"] == 3 * n_shards
    assert counts["task_failed"] == 0
    # A worker takes those along that wait at it. Where that happened to a shard twice, a child
    # process did the work, which spares the worker.
    assert 6 <= counts["worker_died"] <= 4 * n_kills
