"""Which workers a node's tasks go to, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from melmill.flows.execution.errors import RunFailed
from melmill.flows.execution.run import run
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import Node, build_graph
from melmill.flows.pipeline.pools import cpu_fallbacks, device
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from tests.flows.conftest import Project

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech, pool: any}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 2, pool: any}}
  scores: {{uses: score, from: gla, against: speech, metrics: [scm]}}
  report: {{uses: aggregate, from: scores}}
cluster: {{pools: {{cpu: {{workers: 2}}}}}}
"""
BOTH = "cluster.pools={cpu: {workers: 1}, gpu: {workers: 1, threads: 2}}"


def graph(folder: Path, *overrides: str) -> dict[str, Node]:
    path = folder / "pipeline.yaml"
    path.write_text(PIPELINE.format(store="store", root="corpus"))
    return build_graph(load(path, overrides))


def fallbacks(nodes: dict[str, Node]) -> str | None:
    return cpu_fallbacks({name: node.route for name, node in nodes.items()})


@pytest.mark.parametrize(
    ("overrides", "words", "on"),
    [
        ([BOTH], "gpu (any)", "cuda"),
        ([], "cpu (any)", "cpu"),
        ([BOTH, "gla.pool=gpu"], "gpu", "cuda"),
        ([BOTH, "gla.pool=cpu"], "cpu", "cpu"),
        # what is said goes first
        ([BOTH, "gla.device=cpu"], "gpu (any)", "cpu"),
        (["gla.device=cuda"], "cpu (any)", "cuda"),
    ],
)
def test_any_is_the_gpu_pool_where_there_is_one(tmp_path: Path, overrides: list[str], words: str, on: str) -> None:
    nodes = graph(tmp_path, *overrides)
    assert (str(nodes["gla"].route), device(nodes["gla"].stage)) == (words, on)
    assert nodes["gla"].key == graph(tmp_path)["gla"].key, "where a node runs is not in its key"
    assert device(nodes["mel"].stage) == "cpu", "a stage without a device has none to follow its pool"


def test_nodes_that_fell_to_the_cpu_are_named_in_a_line(tmp_path: Path) -> None:
    line = fallbacks(graph(tmp_path))
    assert line == "mel, gla: pool any means pool cpu here, because the cluster has no pool gpu"
    assert fallbacks(graph(tmp_path, BOTH)) is None
    assert fallbacks(graph(tmp_path, "mel.pool=cpu", "gla.pool=cpu")) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["gla.pool=gpu"], r"'gla' runs in pool 'gpu', but the cluster has only cpu: add gpu: .*, or say pool: any"),
        (["cluster.pools={big: {workers: 1}}", "speech.pool=big"], r"'mel' runs in pool 'any', .* only big: add cpu:"),
        (["cluster.pools={cpu: {workers: 1}, any: {workers: 1}}"], r"a pool can't be called 'any', which means"),
        (["gla.device=[cpu, cuda]"], r"'gla\[device=cuda\]' and 'gla\[device=cpu\]' would make the same product"),
    ],
)
def test_a_pool_that_can_not_be_had_is_an_error(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        graph(tmp_path, *overrides)


def test_plan_and_run_say_where_nodes_run(project: Project) -> None:
    project.write(PIPELINE)
    planned = project.called("plan", str(project.pipeline))
    line = "mel, gla: pool any means pool cpu here, because the cluster has no pool gpu"
    assert line in planned.stdout
    assert "cpu (any)" in planned.stdout
    nodes = json.loads(project.called("plan", str(project.pipeline), "--json").stdout)["nodes"]
    where = {node["node"]: (node["pool"], node["pool_asked"], node["device"]) for node in nodes}
    assert where["gla"] == ("cpu", "any", "cpu")
    assert where["speech"] == ("cpu", "cpu", "cpu")
    done = project.called("run", str(project.pipeline), "--executor", "serial")
    assert line in done.stderr
    records = [json.loads(path.read_bytes()) for path in (project.store / "gla").glob("*/records/*.json")]
    assert {(record["pool"], record["device"]) for record in records} == {("cpu (any)", "cpu")}
    (page,) = (project.store / "report").glob("*/report/*/index.html")
    assert "cpu (any)" in page.read_text()
    again = project.called("run", str(project.pipeline), "--executor", "serial")
    assert line not in again.stderr, "nothing runs, so there is nothing to say"


def test_a_gpu_pool_without_cuda_ends_the_run(project: Project) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    project.write(PIPELINE)
    with pytest.raises(RunFailed, match="device 'cuda' needs a CUDA device"):
        run(make_plan(load(project.pipeline, [BOTH])))
    assert not list((project.store / "gla").glob("*/records/*"))
