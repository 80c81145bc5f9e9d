"""The pipelines that ship, run on the demo corpus as a person would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import melmill
from melmill.storage.store import Store
from tests.flows.conftest import ROOT, Project

pytest.importorskip("espeakng_loader", reason='the demo corpus needs eSpeak NG: pip install "melmill[demo]"')


FEW = "speech.subsets=[test-clean]"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("examples"))
    done = made.called("fetch", "demo", str(made.folder / "data" / "demo"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(made.folder / "data" / "demo" / "LibriSpeech")
    return made


def run(demo: Project, name: str, *overrides: str, executor: str = "serial") -> Store:
    """Run a shipped pipeline in the demo's folder, overridden to save time, and open its store."""
    demo.pipeline = ROOT / name
    answer = demo.run("--executor", executor, *(word for override in overrides for word in ("--set", override)))
    assert answer["tasks"]["failed"] == 0
    assert answer["tasks"]["run"] == answer["tasks"]["total"]
    return melmill.open(str(demo.folder / answer["store"]))


@pytest.mark.slow
def test_the_default_pipeline_scores_every_method(demo: Project) -> None:
    store = run(demo, "pipeline.yaml", "gla.n_iter=5", "ipalm.n_iter=5", "admm.n_iter=5", executor="dask")
    scores = store.scores()
    assert set(scores["node"]) == {
        "gla", "ipalm", "admm", "invert[quality=draft]", "invert[quality=good]", "voc", "hybrid",
    }  # fmt: skip
    assert scores["utterance_id"].nunique() >= 24
    assert scores["speaker_id"].nunique() >= 6
    assert scores.groupby("node")["duration_s"].sum().min() >= 120
    assert (scores.filter(regex="^status_").isin(["ok", "not_installed"])).all(axis=None)
    assert scores.groupby("node")["scm_db"].mean()["admm"] < scores.groupby("node")["scm_db"].mean()["gla"]
    assert len(store.traces()) == (3 * 6 + 11 + 43 + 21) * scores["utterance_id"].nunique()
    shown = demo.called("report", "runs/demo")
    assert "admm" in shown.stdout
    page = Path(shown.stdout.split("report: ")[1].strip()).read_text()
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert "<audio" in page


def test_preprocess_makes_training_segments(demo: Project) -> None:
    store = run(demo, "flows/preprocess.yaml", FEW)
    mel = next(iter(store["hifigan"].values()))
    assert mel.dtype == np.float16
    assert mel.shape[0] == 80
    dataset = melmill.torch_dataset(store, mel="hifigan", audio="speech", segment_frames=32)
    M, y = dataset[0]
    assert len(dataset) == len(store["hifigan"])
    assert (tuple(M.shape), tuple(y.shape)) == ((80, 32), (32 * 256,))


def test_resynthesise_makes_files_of_the_same_names_and_lengths(demo: Project) -> None:
    store = run(demo, "flows/resynthesise.yaml", FEW, "resynthesis.quality=draft")
    done = demo.called("export", "runs/resynthesise", "resynthesis", "resynthesised")
    assert done.returncode == 0, done.stderr
    assert f"{len(store['speech'])} files written, 0 were there" in done.stdout
    for path, n_samples in zip(store.utterances()["path"], store.utterances()["n_samples"], strict=True):
        info = soundfile.info(demo.folder / "resynthesised" / path)
        assert (info.frames, info.samplerate, info.subtype) == (n_samples, 16000, "PCM_16")


@pytest.mark.slow
def test_exported_mels_are_inverted_by_themselves(demo: Project) -> None:
    demo.pipeline = ROOT / "flows/preprocess.yaml"
    demo.run("--executor", "serial", "--set", FEW, "--until", "hifigan", "--store", "runs/training")
    assert demo.called("export", "runs/training", "hifigan", "mels").returncode == 0
    store = run(demo, "flows/invert_mels.yaml", "speech.quality=draft")
    assert demo.called("export", "runs/invert-mels", "speech", "from-mels", "--format", "wav").returncode == 0
    for path, M in zip(store.utterances()["path"], store["mel"].values(), strict=True):
        info = soundfile.info((demo.folder / "from-mels" / path).with_suffix(".wav"))
        assert (info.frames, info.samplerate) == (M.shape[1] * 256, 22050)


@pytest.mark.slow
def test_evaluate_compares_methods_and_iterations(demo: Project) -> None:
    overrides = [FEW, "gla.n_iter=3", "raar.n_iter=3", "ipalm.n_iter=3", "admm.n_iter=[2,4]"]
    store = run(demo, "flows/evaluate.yaml", *overrides)
    scores = store.scores()
    assert set(scores["node"]) == {"pghi", "gla", "raar", "ipalm", "admm[n_iter=2]", "admm[n_iter=4]"}
    assert {"stoi", "lsd_db", "mel_mae", "mcd_db", "si_sdr_db", "pesq_nb"} <= set(scores.columns)
