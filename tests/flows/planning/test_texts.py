"""Texts that change after the first run reach the store, and nothing but reports is made anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import melmill
from tests.flows.conftest import Project

LABELLED = """\
name: test
store: {store}
shard_duration_s: 3
stages:
  speech: {{uses: librispeech, root: {root}}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 1}}
  mel:    {{uses: extract, from: speech}}
  scores: {{uses: score, from: gla, against: speech, metrics: [sc]}}
  report: {{uses: aggregate, from: scores, examples: 1}}
"""
FOLDER = """\
name: test
store: {store}
stages:
  speech: {{uses: audio_folder, root: {root}/dev-clean, folders: [speaker]}}
"""


def transcribe(project: Project, speaker: str, *texts: str) -> Path:
    path = project.root / "dev-clean" / speaker / "1" / f"{speaker}-1.trans.txt"
    path.write_text("".join(f"{speaker}-1-{i:04d} {text}\n" for i, text in enumerate(texts)))
    return path


def run(project: Project) -> tuple[int, list[str]]:
    """Return how many tasks a run did, and its notes."""
    answer = project.run("--executor", "serial")
    return answer["tasks"]["run"], answer["notes"]


def plan(project: Project) -> tuple[int, list[str]]:
    answer = json.loads(project.called("plan", str(project.pipeline), "--json").stdout)
    return answer["tasks"]["run"], answer["notes"]


def texts(project: Project) -> dict[str, str]:
    table = melmill.open(str(project.store)).utterances()
    return {name: text for name, text in zip(table["utterance_id"], table["text"], strict=True) if text}


@pytest.fixture
def labelled(project: Project) -> Project:
    project.write(LABELLED)
    return project


def test_texts_follow_the_corpus(labelled: Project) -> None:
    n_tasks, notes = run(labelled)
    assert (n_tasks > 5, notes, texts(labelled)) == (True, [], {})
    before = labelled.bytes()
    # Added later: the plan says so, and changes nothing.
    path = transcribe(labelled, "11", "ONE", "TWO", "THREE")
    expected = (
        1,
        [
            "speech: 3 texts changed (3 added); the catalogue follows",
            "speech: 3 of 16 utterances have texts; first without: 'dev-clean/11/1/11-1-0003.flac'",
        ],
    )
    assert plan(labelled) == expected
    assert labelled.bytes() == before
    assert run(labelled) == expected  # the report, which shows texts
    assert texts(labelled) == {"11-1-0000": "ONE", "11-1-0001": "TWO", "11-1-0002": "THREE"}
    assert plan(labelled) == (0, expected[1][1:])
    # Mended and taken away. What was stored stays as it was.
    transcribe(labelled, "11", "ONE", "MENDED")
    assert run(labelled)[1][0] == "speech: 2 texts changed (1 gone); the catalogue follows"
    assert texts(labelled) == {"11-1-0000": "ONE", "11-1-0001": "MENDED"}
    path.unlink()
    assert run(labelled) == (0, ["speech: 2 texts changed (2 gone); the catalogue follows"])  # the first report
    assert texts(labelled) == {}
    after = labelled.bytes()
    assert {name: after[name] for name in before} == before


def test_a_report_shows_the_new_text(labelled: Project) -> None:
    run(labelled)
    for speaker in ("11", "22"):
        transcribe(labelled, speaker, *["WORDS SAID"] * 8)
    report = Path(labelled.run("--executor", "serial")["report"])
    assert "WORDS SAID" in report.read_text()


def test_touched_files_are_read_again_but_change_nothing(labelled: Project) -> None:
    path = transcribe(labelled, "11", "ONE")
    run(labelled)
    os.utime(path, (1, 1))
    count = ["speech: 1 of 16 utterances have texts; first without: 'dev-clean/11/1/11-1-0001.flac'"]
    assert run(labelled) == (0, count)
    assert run(labelled) == (0, count)
    # The second run has seen the file. So the third part is none.
    assert len(list(labelled.store.glob("speech/*/catalogue/texts-*"))) == 2


def test_a_table_follows_too_and_new_utterances_with_it(project: Project) -> None:
    project.write(FOLDER)
    table = project.root / "dev-clean" / "metadata.csv"
    hidden = project.root / "dev-clean" / "22"
    hidden.rename(project.folder / "aside")
    assert run(project)[1] == []
    table.write_text("11-1-0000|one\n22-1-0000|two\n")
    (project.folder / "aside").rename(hidden)
    assert run(project)[1] == [
        "speech: 1 text changed (1 added); the catalogue follows",
        "speech: 2 of 16 utterances have texts; first without: '11/1/11-1-0001.flac'",
    ]
    assert texts(project) == {"11--1--11-1-0000": "one", "22--1--22-1-0000": "two"}
    table.write_text("id,text,speaker\n11-1-0000,one,ann\n22-1-0000,two,22\n")
    assert run(project)[1][0] == "speech: 1 speaker changed; the catalogue follows"
    speakers = melmill.open(str(project.store)).utterances()["speaker_id"]
    assert sorted(set(speakers)) == ["11", "22", "ann"]


def test_a_table_that_is_refused_points_at_the_pipeline(project: Project) -> None:
    project.write(FOLDER)
    (project.root / "dev-clean" / "metadata.csv").write_text("11-1-0000|one|225\n")
    done = project.called("plan", str(project.pipeline))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "columns must say what is in 'metadata.csv': line 1 is '11-1-0000', 'one', '225'" in done.stderr
    fields = ("--set", "speech.columns=[path,text,speaker]", "--set", "speech.encoding=latin-1")
    plans = [project.called("plan", str(project.pipeline), "--json", *more) for more in (fields, ())]
    (project.root / "dev-clean" / "metadata.csv").unlink()
    plans[1] = project.called("plan", str(project.pipeline), "--json")
    keys = [json.loads(one.stdout)["nodes"][0]["key"] for one in plans]
    assert keys[0] == keys[1]


def test_damaged_texts_are_repaired_from_the_corpus(labelled: Project) -> None:
    transcribe(labelled, "11", "ONE")
    run(labelled)
    transcribe(labelled, "11", "TWO")
    run(labelled)
    (path,) = labelled.store.glob("speech/*/catalogue/texts-000001.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    assert labelled.called("plan", str(labelled.pipeline)).returncode == 2
    verified = labelled.called("verify", str(labelled.store))
    assert (verified.returncode, "catalogue/texts-000001.parquet" in verified.stdout) == (1, True)
    assert labelled.called("repair", str(labelled.store)).returncode == 0
    assert run(labelled)[1][0] == "speech: 1 text changed; the catalogue follows"
    assert texts(labelled) == {"11-1-0000": "TWO"}
    assert labelled.called("verify", str(labelled.store)).returncode == 0
