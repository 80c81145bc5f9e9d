"""`melmill lint`: of a folder and of a store, with planted faults, again and strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

import melmill
from tests.flows.conftest import Project
from tests.stages.extract.test_lint import planted, speech_like

SR = 16000
N = 9


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a folder of recordings with texts: nine clean ones, three with faults, and one that is no audio."""
    made = Project(tmp_path_factory.mktemp("lint"))
    made.root.mkdir(parents=True)
    for i in range(N):
        save(made, f"c{i}", speech_like(i))
    for kind in ("clipped", "hum", "band_limited"):
        save(made, kind, planted(kind))
    save(made, "text", speech_like(20), "no")
    (made.root / "broken.wav").write_bytes(b"RIFF no audio")
    return made


def save(project: Project, name: str, y: Any, text: str = "") -> None:
    soundfile.write(project.root / f"{name}.wav", y, SR, subtype="PCM_16")
    (project.root / f"{name}.txt").write_text(text or "hello there people how is it " * 1)


def expect(page: Path) -> None:
    found = pd.read_csv(page / "findings.csv")
    assert set(zip(found["utterance_id"], found["kind"], strict=True)) == {
        ("clipped", "clipped"),
        ("hum", "hum"),
        ("band_limited", "band_limited"),
        ("text", "text"),
        ("broken", "unreadable"),
    }


def test_a_folder_is_linted_and_again_in_no_time(project: Project) -> None:
    done = project.called("lint", str(project.root), "-o", str(project.folder / "page"), "-j", "1")
    assert done.returncode == 0, done.stderr
    assert "14 recordings, 0.01 h" in done.stdout
    assert "page: " in done.stdout
    page = project.folder / "page"
    expect(page)
    html = (page / "index.html").read_text()
    assert html.count("<audio") == 4
    assert "Flat tops" in html
    again = project.called("lint", str(project.root), "-o", str(page), "-j", "1", "--strict", "--json")
    assert again.returncode == 3
    answer = json.loads(again.stdout)
    assert answer["tasks"]["run"] == 0
    assert answer["findings"]["clipped"] == 1
    assert (answer["recordings"], answer["with_text"], answer["with_findings"]) == (14, 13, 5)


def test_a_store_is_linted_and_only_read(project: Project, tmp_path: Path) -> None:
    text = """\
name: mine
store: {store}
shard_duration_s: 10
max_quarantined: 0.5
stages:
  speech: {{uses: audio_folder, root: {root}, sr: 16000}}
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""
    project.write(text)
    project.run("--executor", "serial")
    before = project.bytes()
    done = project.called("lint", str(project.store), "-o", str(tmp_path / "page"), "-j", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tasks"]["reused"] >= 1
    expect(tmp_path / "page")
    assert project.bytes() == before


def test_a_rule_can_be_changed(project: Project, tmp_path: Path) -> None:
    page = tmp_path / "page"
    options = ["--clipped-runs", "100000", "--cliff-db", "200", "--hum-below-db", "-100", "--rate-factor", "1000"]
    done = project.called("lint", str(project.root), "-o", str(page), "-j", "1", "--players", "0", *options)
    assert done.returncode == 0, done.stderr
    assert set(pd.read_csv(page / "findings.csv")["kind"]) == {"unreadable"}


def test_a_card_is_a_node_of_a_pipeline(project: Project, tmp_path: Path) -> None:
    text = """\
name: mine
store: {store}
max_quarantined: 0.5
stages:
  speech: {{uses: audio_folder, root: {root}, sr: 16000}}
  facts: {{uses: inspect, from: speech}}
  card: {{uses: corpus_card, from: facts}}
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""
    store = tmp_path / "store"
    project.write(text, store)
    answer = project.run("--executor", "serial")
    expect(Path(answer["report"]).parent)
    table = melmill.open(str(store)).inspections()
    assert set(table["node"]) == {"facts"}
    assert table.set_index("utterance_id").loc["hum", "hum_hz"] == 50
    np.testing.assert_allclose(table.loc[table["utterance_id"] == "c0", "duration_s"], 3.0)


# What is asked, and what is said.
@pytest.mark.parametrize(
    ("place", "output", "problem"),
    [
        ("{root}/nowhere", "page2", "nowhere"),
        ("{folder}/empty", "page2", "holds neither audio"),
        ("{root}", "other", "holds other files and is no page of `melmill lint`"),
        ("{root}", "corpus/c0.wav", "is a file"),
    ],
)
def test_a_place_that_does_not_fit_is_refused_in_a_line(
    project: Project, place: str, output: str, problem: str
) -> None:
    (project.folder / "empty").mkdir(exist_ok=True)
    other = project.folder / "other"
    other.mkdir(exist_ok=True)
    (other / "mine.txt").write_text("mine")
    asked = place.format(root=project.root, folder=project.folder)
    done = project.called("lint", asked, "-o", str(project.folder / output))
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count("\n") <= 2
