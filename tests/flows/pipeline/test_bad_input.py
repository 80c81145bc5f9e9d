"""Bad input is one clear error and exit code 2 before anything runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from melmill.cluster.types import address
from tests.flows.conftest import NODES, PIPELINE, Project


def refused(project: Project, *arguments: str) -> str:
    """Run, expect exit code 2 and one line of error; return it."""
    done = project.called("run", str(project.pipeline), *arguments)
    assert done.returncode == 2, (done.returncode, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert not done.stdout
    return line


# What is wrong by itself, which the JSON Schema refuses too.
BAD_FORM = [
    ("uses: extract", "uses: extrct", "no stage is called 'extrct'; did you mean 'extract'?"),
    ("n_iter: 2}}\n  admm", "n_itr: 2}}\n  admm", "griffin_lim has no field 'n_itr'; did you mean 'n_iter'?"),
    ("n_iter: 2}}\n  admm", "n_iter: two}}\n  admm", "n_iter of griffin_lim must be a whole number, got 'two'"),
    ("extract, from: speech", "extract", "node 'mel' needs the input 'from'"),
]

# What only the graph can know.
BAD_MEANING = [
    ("extract, from: speech", "extract, from: gla", "cycle: mel -> gla -> mel"),
    ("baseline: gla", "baseline: gal", "baseline must be a scored node, got 'gal' (scored: admm, gla)"),
    # the mel contract: what can't be inverted, and a start at another rate
    ("from: speech}}", "from: speech, pcen: {{gain: 1.0}}}}", "node 'gla': "),
    (
        "from: mel, n_iter: 2}}\n  scores",
        "from: mel22, n_iter: 2, start: gla}}\n  mel22: {{uses: extract, from: speech, preset: hifigan}}\n  scores",
        "'start' is at 16000 Hz but the mel is of audio at 22050 Hz",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), [*BAD_FORM, *BAD_MEANING])
def test_a_bad_pipeline_is_refused_with_its_line(project: Project, old: str, new: str, message: str) -> None:
    assert old in PIPELINE
    project.write(PIPELINE.replace(old, new, 1))
    error = refused(project)
    assert message in error
    assert f"{project.pipeline}:" in error
    assert not project.store.exists()


def test_a_missing_pipeline_and_bad_usage_are_refused(project: Project) -> None:
    done = project.melmill("run", "nowhere.yaml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pipeline 'nowhere.yaml' can't be read: No such file or directory" in done.stderr
    for arguments, message in [
        (["run", "--no-such-option"], "error: No such option '--no-such-option'"),
        (["run", "--executor", "x"], "error: Invalid value for '--executor': 'x' is not one of"),
        (["report"], "error: Missing argument 'STORE' (see `melmill report -h`)"),
        (["runn"], "error: No such command 'runn'"),
        (["report", "a\nb"], "/a b is not a store"),
    ]:
        used = project.called(*arguments)
        assert (used.returncode, used.stderr.count("\n"), used.stdout) == (2, 1, "")
        assert used.stderr.startswith("error: ")
        assert message in used.stderr
    assert "the pipeline has no node 'scors'; did you mean 'scores'?" in refused(project, "--until", "scors")


def test_a_missing_or_empty_corpus_is_refused(project: Project) -> None:
    missing = project.folder / "nowhere"
    assert str(missing) in refused(project, "--set", f"speech.root={missing}")
    empty = project.folder / "empty"
    empty.mkdir()
    error = refused(project, "--set", f"speech.root={empty}")
    assert "must hold a corpus" in error
    assert str(empty) in error
    assert "subsets must be in" in refused(project, "--set", "speech.subsets=[tset-clean]")


def test_a_store_of_another_project_or_format_is_refused(project: Project) -> None:
    project.run("--executor", "serial", "--until", "mel")
    before = project.bytes()
    assert "is the store of project 'test', not of 'other'" in refused(project, "--set", "name=other")
    mark = project.store / "melmill.json"
    whole = mark.read_bytes()
    mark.write_text(json.dumps({"format": 99, "project": "test"}))
    assert "has format 99, and this melmill reads 1" in refused(project)
    mark.write_text("no json")
    assert "not a store" in refused(project)
    mark.write_bytes(whole)
    assert project.bytes() == before


def test_a_store_that_cannot_be_written_is_refused(project: Project) -> None:
    in_the_way = project.folder / "file"
    in_the_way.write_text("not a folder")
    error = refused(project, "--store", str(in_the_way / "store"))
    assert str(in_the_way) in error


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_a_corpus_that_changed_under_a_finished_store_is_refused(project: Project, what: str) -> None:
    project.run("--executor", "serial", "--until", "mel")
    before = project.bytes()
    victim = project.root / "dev-clean" / "11" / "1" / "11-1-0002.flac"
    other = project.root / "dev-clean" / "22" / "1" / "22-1-0002.flac"
    original = victim.read_bytes()
    if what == "gone":
        victim.unlink()
    else:
        shutil.copy(other, victim)
    error = refused(project)
    assert f"{what} since it was catalogued: dev-clean/11/1/11-1-0002.flac" in error
    assert "run with another store" in error
    # put back, it is the same corpus again, though the file is newer than the catalogue
    victim.write_bytes(original)
    assert project.run("--executor", "serial", "--until", "mel")["tasks"]["run"] == 0
    assert project.bytes() == before


def test_a_refused_file_that_was_only_touched_has_not_changed(project: Project) -> None:
    bad = project.root / "dev-clean" / "11" / "1" / "11-1-0099.flac"
    bad.write_bytes(b"no audio")
    project.run("--executor", "serial", "--until", "mel", "--set", "max_quarantined=1.0")
    os.utime(bad)
    assert project.run("--executor", "serial", "--until", "mel", "--set", "max_quarantined=1.0")["tasks"]["run"] == 0


def test_a_mended_file_is_taken_when_quarantine_is_retried(project: Project, undisturbed: dict[str, str]) -> None:
    bad = project.root / "dev-clean" / "11" / "1" / "11-1-0002.flac"
    whole = bad.read_bytes()
    # A download that broke off: its header still says how long it should be.
    bad.write_bytes(whole[: len(whole) // 2])
    serial = ["--executor", "serial", "--set", "max_quarantined=1.0"]
    answer = project.run(*serial)
    assert answer["quarantined"] == 1
    bad.write_bytes(whole)
    assert project.run(*serial)["tasks"]["run"] == 0
    retried = project.called("quarantine", str(project.store), "--retry", "--json")
    # the shard at every node, and the report, which was made without it
    assert json.loads(retried.stdout)["dropped"] == len(NODES) + 1
    answer = project.run(*serial)
    assert (answer["tasks"]["run"], answer["quarantined"]) == (len(NODES) + 1, 0)
    # but for the size that the catalogue has of the broken file
    stored = {name: digest for name, digest in project.bytes().items() if "catalogue" not in name}
    assert stored == {name: digest for name, digest in undisturbed.items() if "catalogue" not in name}


def test_an_unreachable_cluster_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "CONNECT_TIMEOUT_S", 1)
    project.write(PIPELINE.replace("{{pools: {{cpu: {{workers: 2}}}}}}", "{{type: address, address: 'nowhere:1'}}"))
    assert "'nowhere:1'" in refused(project)


def test_mel_commands_explain(project: Project, tmp_path: Path) -> None:
    shown = project.called("mel", "show", "hifigan")
    assert "22050" in shown.stdout
    listed = project.called("mel", "show")
    assert "vocos_24khz" in listed.stdout
    explained = project.called("mel", "explain", "hifigan", f"{project.pipeline}:mel")
    assert explained.returncode == 0
    assert "sr" in explained.stdout
    wrong = project.called("mel", "explain", "hifigan", "hifigna")
    assert wrong.returncode == 2
    assert "hifigan" in wrong.stderr


def test_a_missing_device_ends_the_run_in_a_line(project: Project) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    project.write(PIPELINE.replace("n_iter: 2}}\n  admm", "n_iter: 2, device: cuda}}\n  admm", 1))
    done = project.called("run", str(project.pipeline), "--executor", "serial")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("device 'cuda' needs a CUDA device") == 1
    assert "quarantined" not in done.stdout + done.stderr
    project.write()
    assert project.run("--executor", "serial")["tasks"]["failed"] == 0


def test_commands_take_a_quoted_home(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project.folder))
    project.run("--executor", "serial", "--until", "mel", "--store", "~/store")
    for command in (["status"], ["verify"], ["quarantine"], ["repair"], ["scores"]):
        assert project.called(*command, "~/store").returncode == 0
    assert project.called("export", "~/store", "mel", "~/mels", "--utterances", "11-1-0000").returncode == 0
    assert project.called("scores", "~/store", "--format", "csv", "--output", "~/scores.csv").returncode == 0
    assert project.called("plan", "~/pipeline.yaml").returncode == 0
    assert {"store", "mels", "scores.csv"} <= {path.name for path in project.folder.iterdir()}
    assert not (project.folder / "~").exists()


@pytest.mark.parametrize("command", ["status", "verify", "quarantine", "repair", "scores", "report"])
@pytest.mark.parametrize("place", ["s4://bucket", "s3:/bucket", "", "~nobody-of-this-name"])
def test_commands_refuse_what_is_no_place(project: Project, command: str, place: str) -> None:
    done = project.called(command, place)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")
    assert "a path or URL" in done.stderr
