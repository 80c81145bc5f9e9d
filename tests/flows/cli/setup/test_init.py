"""`melmill init` as a person or a script runs it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.flows.conftest import Project


@pytest.fixture
def corpus(project: Project) -> Project:
    """Return a project that has a corpus and no pipeline."""
    project.pipeline.unlink()
    return project


def test_a_script_gets_a_pipeline_that_plans_and_no_question(corpus: Project) -> None:
    done = corpus.called("init", "corpus")
    assert (done.returncode, done.stderr) == (0, "")
    assert "corpus: LibriSpeech, 16 files" in done.stdout
    assert "rates: 16000 Hz (16)" in done.stdout
    assert "texts: 0 of 16; speakers: 2" in done.stdout
    taken = "defaults taken: --for training --preset speecht5 --sr 16000 --store runs/corpus-training"
    assert taken in done.stdout
    planned = corpus.called("plan", "pipeline.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "16 utterances" in planned.stdout
    # the same, said
    assert corpus.called("init", "corpus", *taken.split()[2:], "--output", "said.yaml").returncode == 0
    said, default = ((corpus.folder / name).read_text() for name in ("said.yaml", "pipeline.yaml"))
    assert said.replace("said.yaml", "pipeline.yaml").split("name:")[1] == default.split("name:")[1]


def test_what_is_written_runs_and_is_the_truth(corpus: Project) -> None:
    options = ["--for", "resynthesis", "--preset", "paper", "--store", "st ore", "--yes"]
    assert corpus.called("init", "corpus", *options).returncode == 0
    assert corpus.run("--executor", "serial", "--set", "resynthesis.quality=draft")["tasks"]["failed"] == 0
    assert (corpus.folder / "st ore" / "resynthesis").is_dir()
    # the command that its first lines name
    done = corpus.called("export", "st ore", "resynthesis", "out")
    assert "16 files written" in done.stdout


def test_nothing_is_overwritten_unasked(corpus: Project) -> None:
    corpus.pipeline.write_text("mine")
    done = corpus.called("init", "corpus")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line == ("error: 'pipeline.yaml' exists already: add --force to overwrite it, or --output for another file")
    assert corpus.pipeline.read_text() == "mine"
    assert corpus.called("init", "corpus", "--force").returncode == 0
    assert yaml.safe_load(corpus.pipeline.read_text())["name"] == "corpus"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no corpus at .*nowhere: it does not exist"),
        (["empty"], "'empty' holds neither audio .* nor mels"),
        (["corpus", "--preset", "hifigna"], "'hifigna' does not exist; did you mean 'hifigan'"),
        (["mels", "--for", "evaluation"], "--for evaluation needs recordings"),
        (["corpus", "--output", "nowhere/pipeline.yaml"], "'nowhere/pipeline.yaml' can't be written: No such file"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(corpus: Project, arguments: list[str], message: str) -> None:
    (corpus.folder / "empty").mkdir()
    (corpus.folder / "mels").mkdir()
    np.save(corpus.folder / "mels" / "a.npy", np.zeros((80, 10), dtype=np.float32))
    done = corpus.called("init", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line
    assert not corpus.pipeline.exists()


def test_rates_that_do_not_fit_are_pointed_out(corpus: Project) -> None:
    done = corpus.called("init", "corpus", "--preset", "hifigan", "--sr", "16000", "--yes")
    assert "note: 16 files have less than the 22050 Hz of hifigan: upper bands of their mels stay empty" in done.stdout
    assert "note: hifigan is a mel of audio at 22050 Hz, and the store gets 16000 Hz: " in done.stdout
    assert "note" not in corpus.called("init", "corpus", "--force").stdout


def test_a_person_is_asked(corpus: Project) -> None:
    said, asked = answered(corpus, ["init", "corpus"], "resynthesis\nhifigan\n\nruns/mine\n")
    assert said["store"] == "runs/mine"
    assert (said["stages"]["mel"]["preset"], said["stages"]["speech"]["sr"]) == ("hifigan", 22050)
    assert "What is it for (training, resynthesis, evaluation) [training]:" in asked
    assert "defaults taken" not in asked


def test_a_person_is_not_asked_what_an_option_says(corpus: Project) -> None:
    said, asked = answered(corpus, ["init", "corpus", "--for", "training", "--sr", "8000"], "\n\n")
    assert (said["stages"]["mel"]["preset"], said["stages"]["speech"]["sr"]) == ("speecht5", 8000)
    assert "What is it for" not in asked
    assert "Rate" not in asked
    # and with --yes nothing
    _, asked = answered(corpus, ["init", "corpus", "--yes", "--force"], "")
    assert "[" not in asked.splitlines()[3]


def answered(project: Project, arguments: list[str], answers: str) -> tuple[dict[str, Any], str]:
    """Run a command on a terminal that says `answers`; return the pipeline and what was printed."""
    terminal, other = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "melmill", *arguments],
            cwd=project.folder,
            env=project.environment(),
            stdin=other,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        os.write(terminal, answers.encode())
        printed, _ = process.communicate(timeout=120)
    finally:
        os.close(terminal)
        os.close(other)
    assert process.returncode == 0, printed
    return yaml.safe_load(Path(project.pipeline).read_text()), printed
