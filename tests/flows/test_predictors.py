"""Predictors of one's own on files and mels that have no recordings: values, keys, reports and refusals."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

import melmill
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from tests.flows.conftest import Project

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
max_quarantined: 0.5
stages:
  made: {{uses: audio_folder, root: {root}}}
  scores:
    uses: score
    from: made
    metrics: [level, peak]
    predictors:
      level: {{file: LEVEL, sr: 16000}}
      peak: {{file: LEVEL, sr: 16000, output: 1}}
  report: {{uses: aggregate, from: scores}}
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""


class Level(nn.Module):
    """The level of a waveform in dB less an offset, and its peak. It takes 2,000 samples or more."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        framed = y.unfold(1, 2000, 2000)
        return 10 * torch.log10(torch.mean(framed * framed)) - self.offset, torch.max(torch.abs(y))


def export(path: Path, offset: float = 0.0) -> None:
    torch.jit.script(Level(offset)).save(path)  # type: ignore[no-untyped-call]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(4):
        soundfile.write(made.root / f"u{i}.wav", 0.1 / (i + 1) * rng.standard_normal(16000 + 800 * i), 16000)
    export(tmp_path / "level.ts")
    made.write(PIPELINE.replace("LEVEL", str(tmp_path / "level.ts")))
    return made


def test_files_without_recordings_are_scored_and_reported(project: Project) -> None:
    answer = project.run("--executor", "serial")
    assert (answer["quarantined"], answer["tasks"]["failed"]) == (0, 0)
    store = melmill.open(str(project.store))
    scores = store.scores().set_index("utterance_id")
    for i in range(4):
        y = store["made"][f"u{i}"].astype(np.float64) / 32768
        whole = y[: y.size // 2000 * 2000]
        assert scores.loc[f"u{i}", "predicted_level"] == pytest.approx(10 * np.log10(np.mean(whole**2)), abs=1e-3)
        assert scores.loc[f"u{i}", "predicted_peak"] == pytest.approx(np.max(np.abs(y)), abs=1e-6)
        assert scores.loc[f"u{i}", "status_predicted_level"] == "ok"
    page = Path(answer["report"])
    assert ">level" in page.read_text()
    alone = project.bytes()
    project.store = project.folder / "dask"
    project.write(PIPELINE.replace("LEVEL", str(project.folder / "level.ts")))
    assert project.run()["tasks"]["run"] == answer["tasks"]["run"]
    scores_of = [name for name in alone if name.startswith("scores/")]
    assert scores_of
    assert {name: project.bytes()[name] for name in scores_of} == {name: alone[name] for name in scores_of}


def test_another_program_is_another_key(project: Project) -> None:
    def key() -> str:
        return make_plan(load(project.pipeline)).nodes["scores"].node.key

    before = key()
    (project.folder / "level.ts").rename(project.folder / "moved.ts")
    project.write(PIPELINE.replace("LEVEL", str(project.folder / "moved.ts")))
    assert key() == before  # wherever it lies
    export(project.folder / "moved.ts", offset=1.0)
    assert key() != before


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("LEVEL", "/nowhere.ts", "level: '/nowhere.ts' does not exist or is a folder: name the file of the program"),
        ("output: 1", "output: 2", "peak: level.ts gives 2 numbers, and output 2 is not among them"),
        ("output: 1", "output: -1", "output must not be negative, got -1"),
        ("sr: 16000}}", "sr: 0}}", "sr must be"),
        ("[level, peak]", "[level]", "'peak' has no use: name it in metrics, or leave it out"),
        ("level", "stoi", "calls a program 'stoi', which is a metric: give it another name"),
        ("[level, peak]", "[level, peak, levle]", "has no metric 'levle'"),
        ("[level, peak]", "[level, peak, sc]", "metrics sc compare with recordings, and no input 'against' names them"),
    ],
)
def test_a_wrong_description_is_refused(project: Project, was: str, now: str, message: str) -> None:
    project.write(PIPELINE.replace(was, now).replace("LEVEL", str(project.folder / "level.ts")))
    with pytest.raises(PipelineError, match=re.escape(message)):
        make_plan(load(project.pipeline))


def test_what_is_no_program_is_refused(project: Project) -> None:
    (project.folder / "level.ts").write_bytes(b"no program")
    with pytest.raises(PipelineError, match=r"level\.ts"):
        make_plan(load(project.pipeline))


def test_a_program_that_fails_on_one_signal_costs_its_value(project: Project) -> None:
    soundfile.write(project.root / "tiny.wav", 0.1 * np.random.default_rng(1).standard_normal(1900), 16000)
    assert project.run("--executor", "serial")["quarantined"] == 0
    scores = melmill.open(str(project.store)).scores().set_index("utterance_id")
    assert scores.loc["tiny", "status_predicted_level"] == "error"
    assert scores.loc["u0", "status_predicted_level"] == "ok"
