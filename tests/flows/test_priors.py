"""Learned priors in pipelines, in Python and on single files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import melmill
from melmill.flows.cli.group import cli
from melmill.flows.execution.errors import RunFailed
from melmill.flows.execution.run import run
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import Plan, make_plan
from tests.flows.conftest import Project, make_project, voice
from tests.priors import random_prior, ship, smooth_prior

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
    assert "a node that trains a prior or a file that exists, got 'no.safetensors'" in failure(
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
    assert "or a file that exists, got 'no.safetensors': check its name" in refused.stderr


def test_what_is_no_prior_is_refused() -> None:
    M = np.zeros((20, 9), dtype=np.float32)
    with pytest.raises(melmill.ParameterError, match=r"prior must be what melmill.load_prior returns, or None, got 3"):
        melmill.invert(M, SPEC, prior=3)  # type: ignore[arg-type]


@pytest.fixture
def choosing(guided: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project whose node `plain` has ``prior: auto``, while melmill comes with no prior."""
    (tmp_path / "shipped").mkdir()
    ship(tmp_path / "shipped", monkeypatch)
    return guided


def test_auto_without_a_fitting_prior_is_none_and_says_so_once(
    choosing: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = plan(choosing)
    assert alone.notes == ()
    none = plan(choosing, "plain.prior=none").nodes["plain"].node
    assert alone.nodes["plain"].node.key == none.key
    assert run(alone, "serial").notes == ()
    (tmp_path / "wide").mkdir()
    ship(tmp_path / "wide", monkeypatch, wide=random_prior(melmill.MelSpec(n_fft=512, hop_length=64, n_mels=20)))
    noted = plan(choosing)
    assert noted.nodes["plain"].node.key == none.key
    assert not noted.nodes["plain"].pending
    assert noted.notes == (
        "plain: no prior that comes with melmill fits this mel (the nearest, wide: n_fft is 256, needed 512; "
        "win_length is 256, needed 512): starting from NNLS",
    )


def test_auto_takes_what_fits_and_its_records_tell_where_it_fell_back(
    choosing: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan(choosing).nodes["plain"].node
    run(plan(choosing), "serial")
    view = melmill.open(str(choosing.store))["plain"]
    unguided = {name: view[name] for name in view}
    ship(tmp_path / "shipped", monkeypatch, some=random_prior(SPEC))
    made = plan(choosing)
    node = made.nodes["plain"].node
    assert node.key != before.key
    assert (node.parameters["fallback"], node.parameters["guided"]) == (3, 2)
    assert plan(choosing, "plain.prior=some").nodes["plain"].node.key not in (node.key, before.key)
    summary = run(made, "serial")
    n = summary.utterances
    expected = f"plain: {n} of {n} utterances started without the prior 'some', which would have lost"
    assert summary.notes == (expected,)
    # A plan says so of what is reused.
    assert plan(choosing).notes == (expected,)
    store = melmill.open(str(choosing.store))
    table = store.product(node.folder, node.key).read_table("table")
    assert set(table["start"]) == {"nnls"}
    for name, y in unguided.items():
        np.testing.assert_array_equal(store["plain"][name], y)


def test_a_smooth_guess_of_clicks_is_followed(
    choosing: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(tmp_path / "shipped", monkeypatch, some=smooth_prior(SPEC))
    clicks = np.rint(50 * np.random.default_rng(0).standard_normal(8000)).astype(np.int16)
    clicks[100::700] = 20000
    for file in choosing.root.rglob("*.flac"):
        soundfile.write(file, clicks, 16000, format="FLAC", subtype="PCM_16")
    made = plan(choosing)
    assert run(made, "serial").notes == ()
    node = made.nodes["plain"].node
    table = melmill.open(str(choosing.store)).product(node.folder, node.key).read_table("table")
    assert set(table["start"]) == {"prior"}


def test_a_wrong_name_has_a_hint(choosing: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship(tmp_path / "shipped", monkeypatch, spoken=random_prior(SPEC))
    assert plan(choosing, "guided.prior=spoken").nodes["guided"].node.parameters["prior"]
    assert "prior must be auto, none, spoken, a node that trains a prior or a file that exists, got 'spoked': did" in (
        failure(choosing, "guided.prior=spoked")
    )


def test_the_command_notes_that_none_fits(choosing: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("m.npy", melmill.mel(voice(0.5, 110.0, seed=1)))
    ship(tmp_path / "shipped", monkeypatch, speech=random_prior(SPEC))
    done = CliRunner().invoke(cli, ["invert", "m.npy", "-o", "y.wav", "--preset", "paper", "-v", "--n-iter", "1"])
    note, made = done.stderr.splitlines()
    assert note == (
        "note: no prior that comes with melmill fits this mel (the nearest, speech: n_fft is 1024, needed 256; "
        "win_length is 1024, needed 256; hop_length is 256, needed 64; n_mels is 80, needed 20): starting from NNLS"
    )
    assert made.endswith(" s, from nnls")
    quiet = CliRunner().invoke(
        cli, ["invert", "m.npy", "-o", "y.wav", "--preset", "paper", "--method", "admm", "--n-iter", "1"]
    )
    assert quiet.stderr == ""
