"""Trainings in a pipeline: once per key, and resumed wherever they stop.

Vocoders compute with what a training made.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import distributed
import numpy as np
import pytest

import melmill
from benchmarks.faults.processes import wait_for
from melmill.flows.exchange.export import export_training
from melmill.flows.execution.run import run
from melmill.flows.execution.summary import Summary
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import Plan, make_plan
from melmill.flows.watching.status import StatusReader, run_pages
from melmill.stages.vocode.errors import VocoderError
from melmill.storage.errors import StoreError
from melmill.storage.store import Store
from melmill.storage.verify import repair, verify
from tests.flows.conftest import Project, add_chapter, flac, packages_of, voice
from tests.flows.execution.test_faults import Cluster, stored
from tests.flows.execution.test_faults import cluster as cluster
from tests.flows.processes import running
from tests.flows.test_vocoders import MEL

PIPELINE = f"""\
name: test
store: {{store}}
shard_duration_s: 3
stages:
  speech: {{{{uses: librispeech, root: {{root}}}}}}
  mel:    {{{{uses: extract, from: speech, {MEL}}}}}
  tuned:  {{{{uses: learner, from: mel, audio: speech}}}}
  voc:    {{{{uses: vocoder, from: mel, trained: tuned}}}}
  gla:    {{{{uses: griffin_lim, from: mel, n_iter: 1}}}}
  scores: {{{{uses: score, from: [voc, gla], against: speech, metrics: [sc]}}}}
  report: {{{{uses: aggregate, from: scores, examples: 0}}}}
cluster: {{{{pools: {{{{cpu: {{{{workers: 1}}}}}}}}}}}}
"""
DIED = r"tuned, all shards \(.*\): its worker died; trying again"
STEPS = [f"step {step}" for step in range(5, 31, 5)]


class LearnerProject(Project):
    """A project whose processes find the stage installed."""

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def install(self) -> None:
        """Put the package where an installer would."""
        facts = self.site / "learner-1.0.dist-info"
        facts.mkdir(parents=True)
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: learner\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text("[melmill.stages]\nlearner = tests.flows.learner:Learner\n")

    def environment(self, extra: Path | None = None) -> dict[str, str]:
        return super().environment(extra or self.site)


def made(folder: Path, corpus_files: dict[str, list[bytes]]) -> LearnerProject:
    project = LearnerProject(folder)
    project.install()
    for speaker, files in corpus_files.items():
        add_chapter(project.root, "dev-clean", speaker, files[:4])
    project.write(PIPELINE)
    return project


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]
) -> Iterator[tuple[LearnerProject, subprocess.CompletedProcess[str]]]:
    """Return a project after a serial run that nothing disturbed, and what that said."""
    project = made(tmp_path_factory.mktemp("whole"), corpus_files)
    said = project.melmill("run", str(project.pipeline), "--executor", "serial")
    assert said.returncode == 0, said.stderr
    with packages_of(project.site):
        yield project, said


@pytest.fixture
def undisturbed(whole: tuple[LearnerProject, object]) -> dict[str, str]:
    return results(whole[0])


@pytest.fixture
def project(tmp_path: Path, whole: object, corpus_files: dict[str, list[bytes]]) -> LearnerProject:
    """Return a project that nothing was run of."""
    del whole
    return made(tmp_path, corpus_files)


@pytest.fixture
def finished(project: LearnerProject, whole: tuple[LearnerProject, object]) -> LearnerProject:
    """Return a project with a finished run in its own copy of the store."""
    shutil.copytree(whole[0].store, project.store)
    return project


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def plan(project: Project, *overrides: str, until: str | None = None) -> Plan:
    return make_plan(load(project.pipeline, overrides), until)


def done(project: Project, *overrides: str, until: str | None = None) -> Summary:
    return run(plan(project, *overrides, until=until), "serial", partial=until is not None)


def trained(project: Project, file: str) -> bytes:
    (path,) = project.store.glob(f"tuned/*/trained/{file}")
    return path.read_bytes()


def noted(project: Project) -> list[str]:
    """Return the steps that a training noted."""
    (path,) = project.store.glob("tuned/*/training/log.txt")
    return [line.partition(" ")[2].partition(":")[0] for line in path.read_text().splitlines()]


def results(project: Project) -> dict[str, str]:
    """Return the hashes of all files that must be the same after any run.

    A training's log is left out, as it tells how often it was stopped.
    """
    return {name: digest for name, digest in stored(project).items() if "/training/" not in name}


def test_it_learns_the_same_from_recordings_that_stay_in_the_corpus(
    project: LearnerProject, whole: tuple[LearnerProject, object]
) -> None:
    assert done(project, "speech.audio=reference", until="tuned").tasks.failed == 0
    assert trained(project, "weights.pt") == trained(whole[0], "weights.pt")


def test_a_vocoder_computes_with_what_was_trained(
    finished: Project, whole: tuple[Project, subprocess.CompletedProcess[str]]
) -> None:
    said = whole[1]
    assert "0 failed in" in said.stdout
    assert f"training: {whole[0].store}/tuned/" in said.stdout
    assert "tuned: step 30: 0." in said.stderr
    assert trained(finished, "index.html") == b"<p>learnt</p>"
    assert b"from 8 utterances" in trained(finished, "README.md")
    assert noted(finished) == STEPS
    assert not list(finished.store.glob("tuned/*/training/state"))
    store = melmill.open(str(finished.store))
    (folder,) = finished.store.glob("tuned/*/trained")
    voc = melmill.load_vocoder(folder)
    for name, M in store["mel"].items():
        y, expected = store["voc"][name], voc(M)
        assert y.shape == store["speech"][name].shape
        n = min(y.size, expected.size)
        np.testing.assert_allclose(y[:n], expected[:n], atol=1e-6)
    assert set(store.scores()["node"]) == {"voc", "gla"}
    again = plan(finished)
    assert again.n_pending == 0
    assert not any(node.note for node in again.nodes.values())


def test_the_key_of_a_training_stands_for_its_files(project: Project) -> None:
    keys = {name: node.node.key for name, node in plan(project).nodes.items()}
    other = {name: node.node.key for name, node in plan(project, "tuned.steps=31").nodes.items()}
    assert {name for name in keys if keys[name] != other[name]} == {"tuned", "voc", "scores[voc]", "report"}
    more = {name: node.node.key for name, node in plan(project, "tuned.threads=1").nodes.items()}
    assert more == keys


@pytest.mark.slow
def test_a_killed_worker_costs_what_was_not_saved(project: Project, undisturbed: dict[str, str], marks: Path) -> None:
    """As many deaths as a training may have in a row; but it comes further between each two."""
    deaths = [7, 12, 18]
    options = ["--set", f"tuned.dies_at={deaths}", "--set", f"tuned.marks={marks}", "--until", "voc"]
    with running(project, *options) as client:
        assert client.exit_code() == 0, client.said
    assert len(re.findall(DIED, client.said)) == len(deaths)
    assert "tuned: step 25: " in client.said
    assert sorted(path.name for path in marks.glob("died-*")) == sorted(f"died-{step}" for step in deaths)
    assert noted(project) == STEPS
    present = results(project)
    assert any(name.startswith("voc/") for name in present)
    assert present == {name: digest for name, digest in undisturbed.items() if name in present}
    (record,) = project.store.glob("tuned/*/records/trained.json")
    assert json.loads(record.read_text())["attempt"] == 1 + len(deaths)


@pytest.mark.slow
def test_a_training_that_only_dies_fails_and_blocks_what_needs_it(
    project: Project, undisturbed: dict[str, str]
) -> None:
    """Its first attempt comes as far as step 5, from which the others get no further."""
    with running(project, "--set", "tuned.dies_at=7") as client:
        assert client.exit_code() == 1, client.said
    assert len(re.findall(DIED, client.said)) == 2
    assert re.search(r"failed: tuned, all shards \(.*\): KilledWorker", client.said)
    n_shards = plan(project).nodes["mel"].n_shards
    # With the vocoder, its scores and the report.
    assert f"{1 + 2 * n_shards + 1} tasks failed or needed failed ones" in client.said
    assert len(list(project.store.glob("scores/*/records/*"))) == n_shards, "those of the other method"
    assert not list(project.store.glob("voc/*/records/*"))
    assert done(project).tasks.failed == 0
    assert noted(project) == STEPS
    assert results(project) == undisturbed


# One row for each way to end a run in the middle of a training.
@pytest.mark.parametrize(
    ("executor", "number", "exit_code", "words"),
    [
        pytest.param(
            "dask", signal.SIGINT, 130, "stopping: tuned will go on from what it saved last", marks=pytest.mark.slow
        ),
        ("serial", signal.SIGTERM, 130, "interrupted: what is stored stays; run again to go on"),
        pytest.param("dask", signal.SIGKILL, -signal.SIGKILL, "", marks=pytest.mark.slow),
    ],
)
def test_an_ended_run_is_gone_on_with(
    project: Project, undisturbed: dict[str, str], executor: str, number: int, exit_code: int, words: str
) -> None:
    with running(project, "--executor", executor, "--set", "tuned.pause_s=0.3") as client:
        client.until(lambda: bool(list(project.store.glob("tuned/*/training/log.txt"))))
        os.killpg(client.process.pid, number)
        assert client.exit_code(timeout_s=30) == exit_code, client.said
    assert words in client.said
    assert not list(project.store.glob("tuned/*/records/*"))
    states = {state.node: state for state in StatusReader(Store.open(str(project.store))).read().nodes}
    assert (states["tuned"].shards, states["tuned"].done) == (1, 0)
    assert " step " in states["tuned"].note
    done(project)
    assert results(project) == undisturbed
    steps = noted(project)
    assert steps == [step for step in STEPS if step in steps], "nothing was done twice but what was not saved"


@pytest.mark.slow
def test_a_training_ends_on_the_workers_of_others_when_its_client_is_lost(
    project: Project, undisturbed: dict[str, str], cluster: Cluster
) -> None:
    def at_work(dask_worker: distributed.Worker) -> int:
        return len(dask_worker.active_threads)

    with running(project, "--set", cluster.override, "--set", "tuned.pause_s=0.5", "--until", "voc") as client:
        client.until(lambda: bool(list(project.store.glob("tuned/*/training/log.txt"))))
        client.process.kill()
        client.process.wait()
    with distributed.Client(cluster.address, set_as_default=False) as other:
        wait_for(lambda: not any(other.run(at_work).values()), lambda: client.said)
    assert STEPS[-1] not in noted(project)
    assert not list(project.store.glob("tuned/*/records/*"))
    done(project)
    assert results(project) == undisturbed


def test_a_corpus_that_grows_is_vocoded_and_not_trained_on_again(finished: Project) -> None:
    before = trained(finished, "weights.pt")
    add_chapter(finished.root, "dev-clean", "33", [flac(voice(1.0, 150.0, seed=9))])
    grown = plan(finished)
    assert not grown.nodes["tuned"].pending
    assert grown.nodes["tuned"].note == (
        "tuned was trained when its corpus had 8 utterances, and now it has 9; to train anew, give it another seed or "
        "another name"
    )
    assert "and now it has 9" in finished.called("plan", str(finished.pipeline)).stdout
    assert run(grown, "serial").tasks.failed == 0
    assert trained(finished, "weights.pt") == before
    assert "33-1-0000" in melmill.open(str(finished.store))["voc"]


def test_a_corpus_that_changes_is_not_trained_on_again(finished: Project) -> None:
    folder = finished.root / "dev-clean" / "11" / "1"
    (folder / "11-1-0000.flac").unlink()
    (folder / "11-1-0001.flac").write_bytes(flac(voice(1.0, 150.0, seed=9)))
    note = (
        "tuned was trained when its corpus had 8 utterances, and now it has 7, and 2 of the former have changed or are "
        "gone; to train anew, give it another seed or another name"
    )
    followed = make_plan(load(finished.pipeline), follow=True)
    assert not followed.nodes["tuned"].pending
    assert followed.nodes["tuned"].note == note
    assert run(followed, "serial").tasks.failed == 0
    assert plan(finished).nodes["tuned"].note == note
    # A training that comes later knows the corpus as it is.
    anew = make_plan(load(finished.pipeline, ["tuned.seed=7"]), until="tuned")
    assert run(anew, "serial", partial=True).tasks.failed == 0
    assert make_plan(load(finished.pipeline, ["tuned.seed=7"])).nodes["tuned"].note == ""


def test_a_corpus_that_grows_while_a_training_rests_does_not_change_it(
    project: Project, undisturbed: dict[str, str]
) -> None:
    with running(project, "--executor", "serial", "--set", "tuned.pause_s=0.3") as client:
        client.until(lambda: bool(list(project.store.glob("tuned/*/training/log.txt"))))
        client.process.kill()
        client.process.wait()
    add_chapter(project.root, "dev-clean", "33", [flac(voice(1.0, 150.0, seed=9))])
    done(project)
    name = next(name for name in undisturbed if name.endswith("trained/README.md"))
    assert results(project)[name] == undisturbed[name]


def test_quarantined_utterances_are_just_absent(project: Project) -> None:
    bad = project.root / "dev-clean" / "11" / "1" / "11-1-0002.flac"
    bad.write_bytes(bad.read_bytes()[:5000])
    assert done(project, "max_quarantined=0.2").quarantined == 1
    assert b"from 7 utterances" in trained(project, "README.md")


def test_a_training_has_the_threads_that_it_asks_for(project: Project, marks: Path) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    done(project, f"tuned.marks={marks}", "tuned.threads=3", until="tuned")
    assert [path.name for path in marks.iterdir()] == ["threads-3-3"]
    assert os.environ.get("OMP_NUM_THREADS") == before, "a serial run leaves the process as it was"


def test_a_vocoder_may_work_on_another_corpus(project: Project, tmp_path: Path) -> None:
    add_chapter(tmp_path / "other", "test", "44", [flac(voice(0.8, 120.0, seed=3))])
    text = PIPELINE.replace(
        "  gla:",
        f"  speech2: {{{{uses: librispeech, root: {tmp_path / 'other'}}}}}\n"
        f"  mel2:   {{{{uses: extract, from: speech2, {MEL}}}}}\n"
        "  voc2:   {{uses: hifigan, from: mel2, trained: tuned}}\n  gla:",
    )
    project.write(text)
    assert done(project).tasks.failed == 0
    assert list(melmill.open(str(project.store))["voc2"]) == ["44-1-0000"]


@pytest.mark.parametrize(
    ("voc", "message"),
    [
        ("uses: vocoder", "node 'voc': checkpoint is missing: name the file of the weights, or the node that trains"),
        ("uses: vocoder, trained: tuned, checkpoint: g_0", "checkpoint and trained exclude each other: 'tuned' trains"),
        ("uses: vocoder, trained: tuned, mel: hifigan", "mel and trained exclude each other"),
        ("uses: vocos, trained: tuned", "'tuned' trains a hifigan, not a vocos: write uses: hifigan, or vocoder"),
        ("uses: vocoder, trained: mel", "trained of 'voc' takes vocoder, but 'mel' makes mel"),
    ],
)
def test_what_does_not_fit_is_a_mistake_of_one_line(project: Project, voc: str, message: str) -> None:
    project.write(PIPELINE.replace("uses: vocoder, from: mel, trained: tuned", f"{voc}, from: mel"))
    with pytest.raises(PipelineError) as caught:
        plan(project)
    assert f"pipeline.yaml:8: {'' if 'takes' in message else 'node '}" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_mel_than_the_trained_one_is_a_mistake(project: Project) -> None:
    project.write(PIPELINE.replace("  voc:", f"  other: {{{{uses: extract, from: speech, {MEL}}}}}\n  voc:"))
    text = project.pipeline.read_text().replace("from: mel, trained", "from: other, trained")
    project.pipeline.write_text(text)
    assert plan(project).nodes["voc"].pending
    with pytest.raises(PipelineError, match=r"node 'voc': tuned needs another mel: fmax is 7600"):
        plan(project, "other.fmax=7600")


def test_damage_is_found_and_trained_anew(finished: Project, undisturbed: dict[str, str]) -> None:
    (weights,) = finished.store.glob("tuned/*/trained/weights.pt")
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    store = Store.open(str(finished.store))
    damages = verify(store)
    assert [(damage.node, damage.record, damage.file) for damage in damages] == [
        ("tuned", "trained", "trained/weights.pt")
    ]
    # What needs it does not compute with it. A new process holds no vocoder that was loaded before.
    failed = finished.melmill("run", str(finished.pipeline), "--executor", "serial", "--set", "voc.seed=1")
    assert failed.returncode == 1
    assert "DamagedData: node 'tuned', record 'trained', file" in failed.stderr
    repair(store, damages)
    assert done(finished).tasks.run == 1
    assert {name: digest for name, digest in results(finished).items() if name in undisturbed} == undisturbed


def test_a_trained_vocoder_is_passed_on_as_a_folder(finished: Project) -> None:
    out, store = finished.folder / "out", Store.open(str(finished.store))
    exported = finished.called("export", str(finished.store), "tuned", str(out), "--json")
    assert json.loads(exported.stdout)["written"] == 4, exported.stderr
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "index.html", "weights.pt"]
    M = store["mel"]["11-1-0000"]
    np.testing.assert_array_equal(melmill.load_vocoder(out)(M), melmill.load_vocoder(out / "weights.pt")(M))
    assert export_training(store, "tuned", str(out)).kept == 4
    (out / "config.json").write_text("{}")
    with pytest.raises(PipelineError, match=r"config\.json holds something else than 'tuned' made"):
        export_training(store, "tuned", str(out))
    with pytest.raises(PipelineError, match="is in the store"):
        export_training(store, "tuned", str(finished.store / "out"))
    wrong = finished.called("export", str(finished.store), "tuned", str(out), "--bits", "16")
    assert wrong.returncode == 2
    assert "node 'tuned' makes a vocoder: leave --format, --bits and --utterances out" in wrong.stderr
    with pytest.raises(VocoderError, match="is a folder: name the weights in it"):
        melmill.load_vocoder(finished.root)
    with pytest.raises(StoreError, match="node 'tuned' makes vocoder: it has no arrays"):
        store["tuned"]


def test_status_and_report_show_a_training(finished: Project) -> None:
    store = Store.open(str(finished.store))
    state = next(state for state in StatusReader(store).read().nodes if state.node == "tuned")
    assert (state.shards, state.done, state.note) == (1, 1, "")
    shown = finished.called("report", str(finished.store))
    assert f"training: {run_pages(store).trainings[0]}" in shown.stdout
    assert "/report/" in shown.stdout
