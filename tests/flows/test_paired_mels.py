"""Predicted mels joined with recordings: checked, scored, vocoded and trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import melmill
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.spec import load
from tests.flows.conftest import Project

SR = 16000
PIPELINE = """\
name: test
store: {store}
shard_duration_s: 8
max_quarantined: 0.9
stages:
  speech: {{uses: audio_folder, root: {root}, sr: 16000}}
  mel: {{uses: extract, from: speech, preset: speecht5}}
  predicted: {{uses: mel_folder, root: {root}, preset: speecht5, audio: speech, folders: []}}
  copy: {{uses: pghi, from: predicted}}
  scores: {{uses: score, from: copy, against: speech, metrics: [mel_mae, scm]}}
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""


def speech_like(seed: int) -> NDArray[np.float32]:
    """Return 1.2 s of syllables of harmonics at random times."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(1.2 * SR)) / SR
    loud = np.interp(t, np.linspace(0, 1.2, 16), rng.uniform(0, 1, 16) ** 2)
    f0 = np.interp(t, np.linspace(0, 1.2, 8), rng.uniform(90, 250, 8))
    phase = 2 * np.pi * np.cumsum(f0) / SR
    tilt = np.interp(t, np.linspace(0, 1.2, 12), rng.uniform(0.2, 1.5, 12))
    y = sum(np.sin(k * phase) * k**-tilt for k in range(1, 20))
    return np.asarray(0.1 * loud * y + rng.normal(0, 1e-3, t.size), dtype=np.float32)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return six recordings, and a predicted mel of each."""
    import soundfile

    made = Project(tmp_path)
    made.root.mkdir(parents=True, exist_ok=True)
    for i in range(6):
        y = speech_like(i)
        soundfile.write(made.root / f"u{i}.wav", y, SR, subtype="PCM_16")
        save(made, f"u{i}", predicted(i))
    made.write(PIPELINE)
    return made


def predicted(i: int) -> NDArray[np.float32]:
    M = melmill.mel(speech_like(i), preset="speecht5")
    return M + np.random.default_rng(100 + i).normal(0, 0.05, M.shape).astype(np.float32)


def save(project: Project, name: str, M: NDArray[Any]) -> None:
    np.save(project.root / f"{name}.npy", M)


def reasons(project: Project) -> dict[str, str]:
    found = melmill.open(str(project.store)).quarantine()
    return dict(zip(found["utterance_id"], found["reason"], strict=True))


def test_a_folder_with_audio_is_two_nodes(project: Project) -> None:
    nodes = build_graph(load(project.pipeline))
    assert nodes["predicted"].stage.uses == "paired_mels"
    assert nodes["predicted"].corpora[0] == "speech"
    assert nodes["predicted-files"].stage.uses == "mel_folder"


def test_predicted_mels_are_scored_and_inverted_as_the_recordings(project: Project) -> None:
    answer = project.run("--executor", "serial")
    assert (answer["quarantined"], answer["tasks"]["failed"]) == (0, 0)
    store = melmill.open(str(project.store))
    np.testing.assert_allclose(store["predicted"]["u3"], predicted(3), atol=1e-6)
    scores = store.scores()
    assert set(scores["utterance_id"]) == {f"u{i}" for i in range(6)}
    assert scores["mel_mae"].notna().all()


def test_pairs_are_exported_for_hifigan(project: Project) -> None:
    import soundfile

    project.run("--executor", "serial", "--until", "predicted")
    out = project.folder / "ft"
    asked = ("speech,predicted", str(out), "--to", "hifigan", "--split", "dev=0.2", "--share-speakers", "--json")
    answer = project.called("export", str(project.store), *asked)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["utterances"] == 6
    for i in range(6):
        M, (y, sr) = (
            np.load(out / "ft_dataset" / f"u{i}.npy"),
            soundfile.read(out / "wavs" / f"u{i}.wav", dtype="float32"),
        )
        assert sr == SR
        assert M.shape == (80, y.size // 256)
        np.testing.assert_allclose(M, predicted(i)[:, : M.shape[1]], atol=1e-6)
        np.testing.assert_allclose(y, speech_like(i), atol=1e-4)


def test_wrong_pairs_are_quarantined_by_name(project: Project) -> None:
    save(project, "u0", np.roll(predicted(0), 7, axis=1))  # late by 7 frames
    save(project, "u1", predicted(2))  # another utterance's
    save(project, "u2", predicted(2)[:, :-5])  # five frames short
    save(project, "u3", np.concatenate([predicted(3), predicted(3)[:, -2:]], axis=1))  # two frames over
    save(project, "u4", predicted(4)[:, :-1])  # a frame short
    project.run("--executor", "serial")
    why = reasons(project)
    assert set(why) == {"u0", "u1", "u2"}
    assert "7 frames too late" in why["u0"]
    assert "does not follow its recording" in why["u1"]
    assert "a difference of -5" in why["u2"]
    store = melmill.open(str(project.store))
    np.testing.assert_allclose(store["predicted"]["u3"], predicted(3), atol=1e-6)
    np.testing.assert_allclose(store["predicted"]["u4"][:, -1], predicted(4)[:, -2], atol=1e-6)


def test_a_mel_early_by_one_frame_is_found(project: Project) -> None:
    M = melmill.mel(speech_like(0), preset="speecht5")
    save(project, "u0", np.concatenate([M[:, 1:], M[:, -1:]], axis=1))
    project.run("--executor", "serial")
    assert "1 frames too early" in reasons(project)["u0"]


def test_recordings_of_another_rate_are_refused(project: Project) -> None:
    project.write(PIPELINE.replace("sr: 16000", "sr: 22050"))
    with pytest.raises(melmill.PipelineError, match="ingest the recordings at sr: 16000"):
        build_graph(load(project.pipeline))
