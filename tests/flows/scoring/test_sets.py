"""Metrics of whole sets and recognisers by a command, from end to end."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
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
shard_duration_s: 4
stages:
  speech: {{uses: audio_folder, root: {root}}}
  near: {{uses: audio_folder, root: {root}/../near}}
  far: {{uses: audio_folder, root: {root}/../far}}
  scores: {{uses: score, from: [near, far], against: speech, metrics: [fad, si_sdr, kad], trust: false}}
  report: {{uses: aggregate, from: scores}}
"""
N = 8


class Bands(nn.Module):
    """An embedding of three numbers for each 4,000 samples."""

    def forward(self, y: Tensor) -> Tensor:
        return y.unfold(1, 4000, 4000).unfold(2, 1334, 1333).abs().mean(dim=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Recordings of 1 s, two systems that add noise to them, and the run of the pipeline."""
    project = Project(tmp_path_factory.mktemp("sets"))
    rng = np.random.default_rng(0)
    for i in range(N):
        t = np.arange(16000) / 16000
        y = 0.05 * sum(np.sin(2 * np.pi * (100 + 20 * i) * k * t) / k for k in range(1, 12))
        for folder, noise in ((project.root, 0.001), (project.folder / "near", 0.003), (project.folder / "far", 0.03)):
            folder.mkdir(exist_ok=True)
            soundfile.write(folder / f"u{i}.wav", y + noise * rng.standard_normal(16000), 16000)
    project.write(PIPELINE)
    assert project.run("--executor", "serial")["tasks"]["failed"] == 0
    return project


def test_the_report_has_values_of_whole_sets(made: Project) -> None:
    store = melmill.open(made.store)
    assert {name for name in store.nodes if name.startswith("scores-sets")}
    scores = store.scores()
    assert "fad" not in " ".join(scores.columns)  # no recording has one
    assert store.traces().empty
    (page,) = made.store.glob("report/*/report/*/index.html")
    values = pd.read_csv(page.parent / "sets.csv").set_index(["node", "metric"])
    assert set(values.index) == {(node, name) for node in ("near", "far") for name in ("fad", "fad_inf", "kad")}
    assert (values["n"] == N).all()
    for name in ("fad", "kad"):
        distances = values["value"].astype(float)
        assert 0 < distances["near", name] < distances["far", name]
    assert values.loc[("near", "fad_inf"), "status"] == "too_few"  # of 8 recordings
    summary = pd.read_csv(page.parent / "summary.csv")
    row = summary[(summary["metric"] == "kad_log_mel") & (summary["node"] == "far")].iloc[0]
    assert row["mean"] == pytest.approx(values.loc[("far", "kad"), "value"])
    text = page.read_text()
    assert "Distance of both sets, embedding log_mel" in text
    assert "FAD, log_mel" in text
    answer = made.called("report", str(made.store), "--format", "md").stdout
    assert "KAD, log\\_mel" in answer


def test_the_keys_of_the_scores_are_those_without(made: Project) -> None:
    made.write(PIPELINE.replace("[fad, si_sdr, kad]", "[si_sdr]"))
    plain = {name: node.node.key for name, node in make_plan(load(made.pipeline)).nodes.items()}
    made.write(PIPELINE)
    both = {name: node.node.key for name, node in make_plan(load(made.pipeline)).nodes.items()}
    assert {name: both[name] for name in plain if name != "report"} == {
        name: key for name, key in plain.items() if name != "report"
    }


def test_an_embedding_of_ones_own(made: Project) -> None:
    torch.jit.script(Bands()).save(made.folder / "bands.ts")  # type: ignore[no-untyped-call]
    program = (
        f"embedding: bands, predictors: {{{{bands: {{{{file: {made.folder}/bands.ts, sr: 16000}}}}}}}}, trust: false"
    )
    made.write(PIPELINE.replace("trust: false", program))
    done = made.run("--executor", "serial")
    values = pd.read_csv(Path(done["report"]).parent / "sets.csv")
    assert set(values["embedding"]) == {"bands"}
    assert set(values["n_dimensions"]) == {3}
    assert set(values["n_parts"]) == {4 * N}
    made.write(PIPELINE)


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("[fad, si_sdr, kad]", "[fad, kad]", "metrics of 'scores' holds fad and kad alone, of whole sets"),
        (", against: speech", "", "fad of 'scores' compares with recordings: add 'against'"),
        ("trust: false", "embedding: vggish", "embedding must be one of log_mel, speaker, got 'vggish'"),
        (
            "  report:",
            "  scores-sets: {{uses: audio_folder, root: {root}}}\n  report:",
            "makes a node 'scores-sets', and",
        ),
    ],
)
def test_what_is_refused(made: Project, was: str, now: str, message: str) -> None:
    made.write(PIPELINE.replace(was, now))
    with pytest.raises(PipelineError, match=re.escape(message)):
        make_plan(load(made.pipeline))
    made.write(PIPELINE)


def test_folders_of_other_systems(made: Project, tmp_path: Path) -> None:
    for i in range(4):
        y, sr = soundfile.read(made.root / f"u{i}.wav")
        (tmp_path / "out").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "out" / f"u{i}.wav", 0.5 * y, sr)
    project = Project(tmp_path)
    done = project.called(
        "score", str(made.root), "out", "-o", "report", "-m", "si_sdr,kad,wer", "-j", "1", "--json",
        "--asr", f"{sys.executable} -c 'import sys; [print(len(line), flush=True) for line in sys.stdin]'",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["metric"]: row for row in json.loads(done.stdout)["table"]}
    assert rows["kad_log_mel"]["n"] == 4
    assert rows["kad_log_mel"]["mean"] > 0
    assert (rows["wer"]["n"], rows["wer"]["n_failed"]) == (0, N)  # without texts
    table = melmill.score(made.root, tmp_path / "out", metrics=["si_sdr", "fad"])
    assert {row["metric"] for row in table.attrs["sets"]} == {"fad", "fad_inf"}


def test_a_recogniser_that_fails_blames_no_recording(made: Project, tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.root = made.root
    (made.root / "metadata.csv").write_text("".join(f"u{i}|some words\n" for i in range(N)))
    text = f"""\
name: test
store: {{store}}
stages:
  speech: {{{{uses: audio_folder, root: {{root}}}}}}
  scores:
    uses: score
    from: speech
    metrics: [wer]
    asr: {{{{command: "{sys.executable} -c 'import sys; sys.exit(9)'"}}}}
"""
    project.write(text)
    done = project.called("run", str(project.pipeline), "--executor", "serial")
    assert done.returncode == 1, done.stdout
    assert "ended with exit code 9" in done.stdout + done.stderr
    assert melmill.open(project.store).quarantine().empty
    (made.root / "metadata.csv").unlink()
