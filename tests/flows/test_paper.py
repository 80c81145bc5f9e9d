"""The paper's experiments, run in small on made corpora."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner

import melmill
from benchmarks.quality import main as quality
from tests.flows.conftest import ROOT, SR, Project, add_chapter, flac, voice

pytestmark = pytest.mark.slow

ITERATED = ("griffin_lim", "fast_griffin_lim", "admm_gla", "ipalm", "admm", "admm_pghi", "swing", "prior")
SMALL = {
    **{f"{name}.n_iter": "[1,2,3]" for name in ITERATED},
    "map.n_iter": "1",
    "map.lam": "[1.0,10.0,100.0]",
    "map.rho": "[0.1,1.0]",
    "sounds_ipalm.n_iter": "2",
    "sounds_admm.n_iter": "2",
    "sounds_swing.n_iter": "2",
    "scores.metrics": "[estoi,scm,sc]",  # PESQ is slow
    "map_scores.metrics": "[scm]",
    "report.baseline": '"ipalm[n_iter=3]"',
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[str]]:
    """Return a project after a run of the paper's pipeline, and the reports that it named."""
    made = Project(tmp_path_factory.mktemp("paper"))
    for speaker, f0 in (("11", 110.0), ("22", 190.0)):
        add_chapter(made.root, "test-other", speaker, [flac(voice(1.0, f0 + 5 * i, seed=i)) for i in range(5)])
    for kind in ("Dog", "Rain"):
        (made.folder / "sounds" / kind).mkdir(parents=True)
        for i in range(2):
            data = io.BytesIO()
            soundfile.write(data, voice(1.0, 300.0 + 50 * i, seed=i), SR, format="OGG")
            (made.folder / "sounds" / kind / f"{i}.ogg").write_bytes(data.getvalue())
    made.pipeline = ROOT / "benchmarks" / "paper.yaml"
    roots = {"speech.root": str(made.root), "sounds.root": str(made.folder / "sounds")}
    words = [word for name, value in {**roots, **SMALL}.items() for word in ("--set", f"{name}={value}")]
    answer = made.run("--store", str(made.store), "--executor", "serial", *words)
    assert answer["tasks"]["failed"] == 0
    assert answer["report"] == answer["reports"][-1]
    return made, answer["reports"]


def test_two_corpora_are_scored_in_one_run(done: tuple[Project, list[str]]) -> None:
    scores = melmill.open(str(done[0].store)).scores()
    assert set(scores["utterance_id"]) == {"11-1-0003", "11-1-0004", "22-1-0003", "22-1-0004"} | {
        f"{kind}--{i}" for kind in ("Dog", "Rain") for i in range(2)
    }
    assert scores["node"].nunique() == 8 * 3 + 1 + 6 + 3
    assert set(scores.loc[scores["node"].str.startswith("sounds"), "subset"]) == {"Dog", "Rain"}


def test_every_experiment_has_its_page(done: tuple[Project, list[str]]) -> None:
    of_map, of_sounds, of_speech = (Path(name).read_text() for name in done[1])
    assert "map: lam and rho" in of_map
    assert "Against n_iter" in of_speech
    assert 'id="convergence"' in of_speech
    assert "9 of 25 nodes" in of_speech
    assert "Against sounds_ipalm" in of_sounds
    assert "t test p" in of_sounds
    assert 'id="convergence"' in of_sounds


def test_the_table_of_quality_has_a_row_a_method_and_number_of_iterations(done: tuple[Project, list[str]]) -> None:
    answer = CliRunner().invoke(quality, [str(done[0].store)])
    assert answer.exit_code == 0, answer.output
    assert "4 utterances" in answer.output
    assert "| method | iterations | SCM dB | SC dB | ESTOI | failed |" in answer.output
    assert len(re.findall(r"^\| `(\w+)` \| [123] \|", answer.output, flags=re.MULTILINE)) == 24
    assert re.search(r"\| `pghi` \|  \| -?\d+\.\d\d ± ", answer.output)
    assert "map" not in answer.output
    assert "sounds" not in answer.output
