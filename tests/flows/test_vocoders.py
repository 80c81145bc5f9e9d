"""Vocoders in a pipeline: planned with their files, run on any executor, resumed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._inductor.config

import melmill
from melmill.flows.execution.errors import RunFailed
from melmill.flows.execution.isolation import process_apart
from melmill.flows.execution.run import run
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import Plan, make_plan
from melmill.flows.tasks.work import Processing
from melmill.stages.contract import Item
from tests.flows.conftest import Project, make_project
from tests.stages.vocode.families.test_hifigan import CONFIG, LEAST, shapes
from tests.stages.vocode.tiny import saved, tensors

SMALL = CONFIG | {
    "upsample_rates": [8, 8],
    "upsample_kernel_sizes": [16, 16],
    "num_mels": 20,
    "n_fft": 256,
    "win_size": 256,
    "hop_size": 64,
    "sampling_rate": 16000,
}
MEL = "preset: hifigan, sr: 16000, n_fft: 256, win_length: 256, hop_length: 64, n_mels: 20, fmax: null"
PIPELINE = f"""\
name: test
store: {{store}}
shard_duration_s: 3
stages:
  speech: {{{{uses: librispeech, root: {{root}}}}}}
  mel:    {{{{uses: extract, from: speech, {MEL}}}}}
  voc:    {{{{uses: hifigan, from: mel, checkpoint: g_0}}}}
  hybrid: {{{{uses: griffin_lim, from: mel, n_iter: 2, start: voc}}}}
  scores: {{{{uses: score, from: [voc, hybrid], against: speech, metrics: [sc]}}}}
cluster: {{{{pools: {{{{cpu: {{{{workers: 2}}}}}}}}}}}}
"""
# Counts who reads the weights, in the process itself and in every one that it starts.
SITECUSTOMIZE = """\
import os, sys

def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("/g_0"):
        with open({log!r}, "a") as log:
            log.write(f"{{os.getpid()}}\\n")

sys.addaudithook(hook)
"""


def write_weights(folder: Path, seed: int = 0, config: dict[str, Any] = SMALL) -> None:
    (folder / "g_0").write_bytes(saved({"generator": tensors(shapes(config), seed)}))
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def vocoded(tmp_path: Path, corpus_files: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch) -> Project:
    write_weights(tmp_path)
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path, {speaker: files[:4] for speaker, files in corpus_files.items()}, PIPELINE)


def records(product: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in product.glob("*/records/*")]


def plan(project: Project, *overrides: str, until: str | None = None) -> Plan:
    return make_plan(load(project.pipeline, overrides), until)


def key(project: Project, *overrides: str) -> str:
    return plan(project, *overrides).nodes["voc"].node.key


def failure(project: Project, *overrides: str) -> str:
    with pytest.raises(PipelineError) as caught:
        plan(project, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_executors_agree_and_the_model_is_loaded_once_a_process(vocoded: Project, tmp_path: Path) -> None:
    log, extra = tmp_path / "log", tmp_path / "extra"
    extra.mkdir()
    (extra / "sitecustomize.py").write_text(SITECUSTOMIZE.format(log=str(log)))
    # In processes of their own, which note what they read.
    done = vocoded.melmill("run", str(vocoded.pipeline), "--json", "--executor", "serial", extra=extra)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["quarantined"] == 0
    store = melmill.open(str(vocoded.store))
    assert len(store["voc"]) == 8
    n_shards = len(list((vocoded.store / "voc").glob("*/records/*")))
    assert n_shards > 2
    # for the plan, and for the first of the shards
    assert list(Counter(log.read_text().split()).values()) == [2]
    serial = vocoded.bytes()
    log.unlink()
    other = vocoded.folder / "dask"
    vocoded.write(PIPELINE, store=other)
    pools = "cluster.pools={cpu: {workers: 1}, gpu: {workers: 1, threads: 2}}"
    overrides = [pools, "voc.pool=any", "voc.device=cpu"]
    changes = (word for one in overrides for word in ("--set", one))
    done = vocoded.melmill("run", str(vocoded.pipeline), "--executor", "dask", *changes, extra=extra)
    assert done.returncode == 0, done.stderr
    assert vocoded.bytes(other) == serial
    reads = Counter(log.read_text().split())
    assert len(reads) == 2, "a client that plans, and the worker of the pool gpu"
    assert set(reads.values()) == {1}
    assert plan(vocoded, *overrides).n_pending == 0
    made = {node: records(other / node) for node in ("mel", "voc")}
    assert {one["pool"] for one in made["voc"]} == {"gpu (any)"}
    assert {one["pool"] for one in made["mel"]} == {"cpu"}
    for one in made["voc"]:
        assert 0 < one["busy_s"] <= one["compute_s"] <= one["wall_s"]
    assert {one["busy_s"] for one in made["mel"]} == {None}
    processes = {node: {one["worker"].split("-")[0] for one in some} for node, some in made.items()}
    assert len(processes["voc"]) == 1
    assert processes["voc"].isdisjoint(processes["mel"])


def test_waveforms_are_the_vocoders_own_at_the_recordings_length(vocoded: Project) -> None:
    run(plan(vocoded, "voc.dtype=int16"), "serial")
    store = melmill.open(str(vocoded.store))
    voc = melmill.load_vocoder(vocoded.folder / "g_0")
    for name, y in store["speech"].items():
        y_hat, M = store["voc"][name], store["mel"][name]
        assert y_hat.shape == y.shape
        assert y_hat.dtype == np.int16
        expected = voc(M)[: y.size]
        assert 0 <= y.size - expected.size < 64
        np.testing.assert_allclose(y_hat[: expected.size] / 32768, expected, atol=1e-4)
        assert not y_hat[expected.size :].any()
    scores = store.scores()
    assert set(scores["node"]) == {"voc", "hybrid"}
    assert (scores["status_sc_db"] == "ok").all()


def test_another_mel_is_a_mistake_of_one_line(vocoded: Project) -> None:
    message = failure(vocoded, "mel.fmax=7600")
    assert "pipeline.yaml:7: node 'voc': g_0 needs another mel: fmax is 7600" in message
    assert "needed None (extract again with fmax: null)" in message
    lossy = failure(vocoded, "mel.center=true")
    assert "center is True, needed 'same'" in lossy
    assert "or set allow_lossy: true" in lossy
    assert plan(vocoded, "mel.center=true", "voc.allow_lossy=true").nodes["voc"].pending


def test_a_mel_without_padding_is_taken_where_that_is_asked_for(vocoded: Project) -> None:
    lossy = failure(vocoded, "mel.center=false")
    assert "center is False, needed 'same'" in lossy
    assert "or set allow_lossy: true" in lossy
    summary = run(plan(vocoded, "mel.center=false", "voc.allow_lossy=true", until="voc"), "serial")
    assert (summary.tasks.failed, summary.quarantined) == (0, 0)
    store = melmill.open(str(vocoded.store))
    assert {name: y.shape for name, y in store["voc"].items()} == {name: y.shape for name, y in store["speech"].items()}
    (described,) = [json.loads(path.read_text()) for path in (vocoded.store / "voc").glob("*/node.json")]
    assert described["conversions"] == {"center": "lossy"}


def test_a_mel_is_converted_where_nothing_is_lost_and_the_store_says_so(vocoded: Project) -> None:
    run(plan(vocoded, until="voc"), "serial")
    plain = melmill.open(str(vocoded.store))["voc"]["11-1-0000"]
    run(plan(vocoded, "mel.log=log10", until="voc"), "serial")
    converted = melmill.open(str(vocoded.store))["voc"]["11-1-0000"]
    np.testing.assert_allclose(converted, plain, atol=1e-4)
    described = [json.loads(path.read_text()) for path in (vocoded.store / "voc").glob("*/node.json")]
    assert {one["mel"]["log"] for one in described} == {"ln", "log10"}
    assert {one["parameters"]["mel"]["log"] for one in described} == {"ln"}
    assert {one["mel"]["log"]: one["conversions"] for one in described} == {"ln": {}, "log10": {"log": "lossless"}}


def test_changed_files_change_the_key_and_places_do_not(vocoded: Project) -> None:
    before = key(vocoded)
    (vocoded.folder / "weights").mkdir()
    write_weights(vocoded.folder / "weights")
    assert key(vocoded, "voc.checkpoint=weights/g_0") == before
    assert key(vocoded, "voc.device=cuda") == before
    assert key(vocoded, "voc.compile=true") == before
    write_weights(vocoded.folder, seed=1)
    assert key(vocoded) != before
    assert key(vocoded, "voc.checkpoint=weights/g_0", "voc.precision=bfloat16") != before


def test_a_damaged_or_missing_checkpoint_is_one_line(vocoded: Project) -> None:
    assert "node 'voc': 'g_1' does not exist" in failure(vocoded, "voc.checkpoint=g_1")
    assert "'none.json' does not exist or is a folder: name the file of the config" in failure(
        vocoded, "voc.config=none.json"
    )
    weights = vocoded.folder / "g_0"
    weights.write_bytes(weights.read_bytes()[:2000])
    assert "node 'voc': g_0: is truncated or not a checkpoint (2000 bytes" in failure(vocoded)


def test_weights_that_change_after_the_plan_end_the_run(vocoded: Project) -> None:
    made = plan(vocoded)
    write_weights(vocoded.folder, seed=2)
    with pytest.raises(RunFailed, match=r"stage 'hifigan': its files .*changed after the run was planned: run again"):
        run(made, "serial")
    assert not list((vocoded.store / "voc").glob("*/records/*"))


def test_an_utterance_in_a_process_of_its_own_opens_the_files_there(vocoded: Project) -> None:
    made = plan(vocoded, until="voc")
    run(made, "serial")
    store, node = melmill.open(str(vocoded.store)), made.nodes["voc"].node
    utterance = made.catalogues["speech"].shard(0).utterances[0]
    item = Item(utterance=utterance, inputs={"from": store["mel"][utterance.utterance_id]}, seed=0)
    inputs = {"from": made.nodes["mel"].node.product}
    work = Processing(stage=node.stage, inputs=inputs, product=node.product)
    (outcome,) = process_apart(work, [item], 120.0)
    assert outcome.array is not None, outcome.rejected
    np.testing.assert_array_equal(outcome.array, store["voc"][utterance.utterance_id])


def test_without_the_device_the_run_ends(vocoded: Project) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(RunFailed, match="device 'cuda' needs a CUDA device"):
        run(plan(vocoded, "voc.device=cuda"), "serial")


def test_without_a_compiler_the_run_ends(vocoded: Project) -> None:
    least = {name: LEAST[name] for name in ("resblock", "resblock_kernel_sizes", "resblock_dilation_sizes")}
    write_weights(vocoded.folder, config=SMALL | least | {"upsample_rates": [64], "upsample_kernel_sizes": [128]})
    made = plan(vocoded, "voc.compile=true")
    message = (
        r"^g_0: torch \S+ can't compile it in this process \(.*No working C\+\+ compiler.*\): leave compile out, or .*$"
    )
    with (
        torch._inductor.config.patch({"cpp.cxx": ("/no/compiler",), "force_disable_caches": True}),
        pytest.raises(RunFailed, match=message),
    ):
        run(made, "serial")
    assert not list((vocoded.store / "voc").glob("*/records/*"))


def test_a_pool_that_is_not_there_is_a_mistake(vocoded: Project) -> None:
    assert "add gpu: {workers: 1, threads: 2} under cluster: pools:, or say pool: any" in failure(
        vocoded, "voc.pool=gpu"
    )
