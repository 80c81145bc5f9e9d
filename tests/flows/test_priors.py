"""Learned priors in pipelines, in Python and on single files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import melmill
from melmill.flows.errors import PipelineError, RunFailed
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import Plan, make_plan
from tests.flows.conftest import Project, make_project, voice
from tests.priors import random_prior

SPEC = melmill.MelSpec(n_fft=256, hop_length=64, n_mels=20)
PIPELINE = """\
name: test
store: {store}
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech, n_fft: 256, win_length: 256, hop_length: 64, n_mels: 20}}
  plain:  {{uses: invert, from: mel, n_iter: 2}}
  guided: {{uses: invert, from: mel, n_iter: 2, prior: p.safetensors}}
"""


def write(path: Path, seed: int = 0, spec: melmill.MelSpec = SPEC) -> None:
    path.write_bytes(random_prior(spec, seed).encoded())


TRAINING = (
    PIPELINE.replace("p.safetensors", "tuned")
    + """\
  tuned:
    uses: train_prior
    from: mel
    audio: speech
    width: 16
    n_blocks: 1
    kernel: 3
    steps: 4
    batch_size: 2
    segment_frames: 8
    held_out: 0
    save_every: 2
  scores: {{uses: score, from: [plain, guided], against: speech, metrics: [scm]}}
  report: {{uses: aggregate, from: scores, examples: 0}}
"""
)


@pytest.fixture
def guided(tmp_path: Path, corpus_files: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch) -> Project:
    write(tmp_path / "p.safetensors")
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path, {speaker: files[:1] for speaker, files in corpus_files.items()}, PIPELINE)


def plan(project: Project, *overrides: str) -> Plan:
    return make_plan(load(project.pipeline, overrides))


def key(project: Project, *overrides: str) -> str:
    return plan(project, *overrides).nodes["guided"].node.key


def failure(project: Project, *overrides: str) -> str:
    with pytest.raises(PipelineError) as caught:
        plan(project, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_starts_from_the_guess(guided: Project) -> None:
    summary = run(plan(guided), "serial")
    assert (summary.tasks.failed, summary.quarantined) == (0, 0)
    store = melmill.open(str(guided.store))
    name = next(iter(store["guided"]))
    M = store["mel"][name]
    expected = melmill.invert(M, SPEC, n_iter=2, prior="p.safetensors", length=store["guided"][name].size)
    # Below the threshold of PGHI the phase is random, by the utterance's own seed.
    assert np.corrcoef(expected, store["guided"][name])[0, 1] > 0.99
    assert np.abs(store["plain"][name] - store["guided"][name]).max() > 1e-3


def test_the_bytes_decide_the_key_and_the_place_does_not(guided: Project) -> None:
    before = key(guided)
    write(guided.folder / "same.safetensors")
    assert key(guided, "guided.prior=same.safetensors") == before
    write(guided.folder / "other.safetensors", seed=1)
    assert key(guided, "guided.prior=other.safetensors") != before
    assert plan(guided, "guided.n_iter=3", "guided.prior=none").nodes["guided"].node.stage.identity().keys() == (
        plan(guided).nodes["plain"].node.stage.identity().keys()
    )


def test_a_prior_that_cannot_be_used_is_one_line(guided: Project) -> None:
    assert "prior must be none, a node that trains a prior or a file that exists, got 'no.safetensors'" in failure(
        guided, "guided.prior=no.safetensors"
    )
    write(guided.folder / "wide.safetensors", spec=melmill.MelSpec())
    assert "the prior 'wide.safetensors' was trained with another mel: n_fft is 256, needed 1024" in failure(
        guided, "guided.prior=wide.safetensors"
    )
    file = guided.folder / "p.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    assert "got 'p.safetensors', which is truncated or no prior (500 bytes" in failure(guided)


def test_a_prior_that_changes_after_the_plan_ends_the_run(guided: Project) -> None:
    made = plan(guided)
    write(guided.folder / "p.safetensors", seed=2)
    with pytest.raises(RunFailed, match=r"stage 'invert': its files .*changed after the run was planned: run again"):
        run(made, "serial")


@pytest.fixture
def training(tmp_path: Path, corpus_files: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path, corpus_files, TRAINING)


def test_one_run_trains_a_prior_inverts_with_it_and_scores(training: Project) -> None:
    summary = run(plan(training), "serial")
    assert (summary.tasks.failed, summary.quarantined) == (0, 0)
    (file,) = training.store.glob("tuned/*/trained/prior.safetensors")
    store = melmill.open(str(training.store))
    name = next(iter(store["guided"]))
    expected = melmill.invert(
        store["mel"][name], SPEC, n_iter=2, prior=melmill.load_prior(file), length=store["guided"][name].size
    )
    assert np.corrcoef(expected, store["guided"][name])[0, 1] > 0.99
    assert np.abs(store["plain"][name] - store["guided"][name]).max() > 1e-4
    assert run(plan(training), "serial").tasks.run == 0
    out = training.folder / "out"
    exported = training.called("export", str(training.store), "tuned", str(out))
    assert exported.returncode == 0, exported.stderr
    assert (out / "prior.safetensors").read_bytes() == file.read_bytes()
    assert {"README.md", "curves.csv"} <= {path.name for path in out.iterdir()}


def test_a_training_decides_the_key_of_what_computes_with_it(training: Project) -> None:
    before = key(training)
    assert key(training, "tuned.save_every=1") == before
    assert key(training, "tuned.seed=1") != before
    both = plan(training, "guided.prior=[none, tuned]").nodes
    assert both["guided[prior=tuned]"].node.key == before
    assert both["guided[prior=none]"].node.key == both["plain"].node.key
    assert before != both["plain"].node.key


def test_what_trains_no_fitting_prior_is_refused_before_it_runs(training: Project) -> None:
    assert "prior of 'guided' takes prior, but 'mel' makes mel" in failure(training, "guided.prior=mel")
    assert "a node that trains a prior or a file that exists, got 'tunedd'" in failure(training, "guided.prior=tunedd")
    wide = "  mel2: {uses: extract, from: speech, n_fft: 256, win_length: 256, hop_length: 64, n_mels: 24}\n"
    training.pipeline.write_text(training.pipeline.read_text() + wide)
    assert "the prior 'tuned' was trained with another mel: n_mels is 24, needed 20" in failure(
        training, "guided.from=mel2"
    )


def test_python_and_the_command_take_a_file(guided: Project) -> None:
    y = voice(0.5, 110.0, seed=1)
    M = melmill.mel(y, SPEC)
    prior = melmill.load_prior(guided.folder / "p.safetensors")
    assert prior.spec == SPEC
    expected = melmill.invert(M, SPEC, n_iter=2, prior=prior)
    assert np.abs(expected - melmill.invert(M, SPEC, n_iter=2)).max() > 1e-3
    np.testing.assert_array_equal(melmill.invert(M, SPEC, n_iter=2, prior="p.safetensors"), expected)
    (batch,) = melmill.invert_batch([M], SPEC, n_iter=2, prior=prior)
    np.testing.assert_array_equal(batch, expected)
    np.save("m.npy", M)
    spec = [
        word for field in ("n_fft=256", "win_length=256", "hop_length=64", "n_mels=20") for word in ("--spec", field)
    ]
    done = guided.called("invert", "m.npy", "-o", "y.wav", *spec, "--n-iter", "2", "--prior", "p.safetensors")
    assert (done.returncode, done.stderr) == (0, "")
    written, _ = soundfile.read("y.wav", dtype="int16")
    np.testing.assert_array_equal(written, np.rint(expected.astype(np.float64) * 32768))
    refused = guided.called("invert", "m.npy", "-o", "y.wav", *spec, "--prior", "no.safetensors")
    assert refused.returncode != 0
    assert "prior must be a file that can be read, got 'no.safetensors': it does not exist" in refused.stderr


def test_what_is_no_prior_is_refused() -> None:
    M = np.zeros((20, 9), dtype=np.float32)
    with pytest.raises(melmill.ParameterError, match=r"prior must be what melmill.load_prior returns, or None, got 3"):
        melmill.invert(M, SPEC, prior=3)  # type: ignore[arg-type]
