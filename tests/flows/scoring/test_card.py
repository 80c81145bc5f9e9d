"""`melmill score` and `melmill.score` on folders: reports, resuming, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import melmill
from tests.flows.conftest import Project
from tests.flows.test_other_systems import NAMES, generated, recording, write

METRICS = "sc,si_sdr"


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return recordings, what two systems made of them, and folders that can't be scored; nobody changes them."""
    folder = tmp_path_factory.mktemp("folders")
    made = Project(folder)
    for i, name in enumerate(NAMES):
        write(folder / "ref" / "clean" / f"{name}.flac", recording(i))
        write(folder / "out" / "good" / f"{name}.wav", generated(i))
        write(folder / "out" / "bad" / "wavs" / f"{name}.wav", np.asarray(generated(i) // 64 * 64, dtype=np.int16))
    for name in ("empty", "noise", "mels"):
        (folder / name).mkdir()
    (folder / "file").write_text("")
    (folder / "noise" / "u0.wav").write_text("no audio")
    np.save(folder / "mels" / "u0.npy", np.zeros((80, 50), dtype=np.float32))
    write(folder / "renamed" / "x0.wav", generated(0))
    return made


@pytest.fixture
def folders(standing: Project, tmp_path: Path) -> Project:
    """Return recordings, and what two systems made of them, to be changed."""
    for name in ("ref", "out"):
        shutil.copytree(standing.folder / name, tmp_path / name)
    return Project(tmp_path)


def scored(project: Project, *arguments: str) -> dict[str, Any]:
    done = project.called("score", "ref", *arguments, "-o", "report", "-m", METRICS, "-j", "1", "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def refusal(project: Project, *arguments: str) -> str:
    done = project.called("score", *arguments, "-m", METRICS, "-j", "1")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


def test_systems_are_compared_in_one_report(folders: Project) -> None:
    answer = scored(folders, "out/good", "coarse=out/bad")
    assert answer["systems"] == {"good": "out/good", "coarse": "out/bad"}
    assert answer["tasks"]["failed"] == 0
    assert [(row["node"], row["metric"], row["n"], row["n_failed"]) for row in answer["table"]] == [
        (node, metric, 8, 0) for node in ("good", "coarse") for metric in ("sc_db", "si_sdr_db")
    ]
    report = folders.folder / "report"
    table = pd.read_csv(report / "scores.csv").set_index(["node", "utterance_id"])
    for i, name in enumerate(NAMES):
        expected = melmill.score(recording(i), generated(i), 16000, metrics=["sc", "si_sdr"])
        assert table.loc[("good", f"clean--{name}"), "sc_db"] == pytest.approx(expected["sc"].value)
        assert table.loc[("good", f"clean--{name}"), "si_sdr_db"] == pytest.approx(expected["si_sdr"].value)
    mean = next(row for row in answer["table"] if (row["node"], row["metric"]) == ("good", "sc_db"))
    assert mean["mean"] == pytest.approx(table.xs("good")["sc_db"].mean())
    assert mean["ci_low"] < mean["mean"] < mean["ci_high"]
    paired = pd.read_csv(report / "paired.csv")
    assert set(zip(paired["node"], paired["baseline"], strict=True)) == {("coarse", "good")}
    # The recordings stay where they are.
    assert not list((report / "store").rglob("c/0"))
    assert (report / "index.html").read_text().count("<audio") == 5 * 3


def test_a_second_call_scores_what_changed(folders: Project) -> None:
    scored(folders, "out/good")
    assert scored(folders, "out/good")["tasks"]["run"] == 0
    # Another system: its files, its scores, the report.
    more = scored(folders, "out/good", "out/bad/wavs")
    assert (more["systems"], more["tasks"]["run"]) == ({"good": "out/good", "wavs": "out/bad/wavs"}, 3)
    report = folders.folder / "report"
    assert 'href="store/runs/trends.html"' in (report / "index.html").read_text()
    assert (report / "store" / "runs" / "trends.html").is_file()
    changed = folders.folder / "out" / "good" / "u3.wav"
    write(changed, generated(3) // np.int16(2))
    os.utime(changed, (1_700_000_100, 1_700_000_100))
    # The file in a shard of its own, the scores of its recording's shard, the report.
    assert scored(folders, "out/good", "out/bad/wavs")["tasks"]["run"] == 3
    before = pd.read_csv(folders.folder / "report" / "scores.csv")
    (folders.folder / "out" / "good" / "u5.wav").unlink()
    answer = scored(folders, "out/good", "out/bad/wavs")
    assert any("1 of 8 utterances of 'speech' have no file in 'good'" in note for note in answer["notes"])
    after = pd.read_csv(folders.folder / "report" / "scores.csv")
    lost = (after["node"] == "good") & (after["utterance_id"] == "clean--u5")
    assert after.loc[lost, "status_sc_db"].tolist() == ["missing_estimate"]
    pd.testing.assert_frame_equal(after[~lost], before[~lost])


def test_the_pipeline_that_it_stands_for_goes_on_from_there(folders: Project) -> None:
    scored(folders, "out/good")
    own = folders.folder / "own.yaml"
    shutil.copy(folders.folder / "report" / "pipeline.yaml", own)
    folders.pipeline = own
    assert folders.run("--executor", "serial")["tasks"]["run"] == 0
    assert folders.run("--executor", "serial", "--set", "scores.metrics=[sc, si_sdr, mcd]")["tasks"]["run"] > 0


def test_files_of_a_report_that_are_made_no_more_are_removed(folders: Project) -> None:
    scored(folders, "out/good", "out/bad")
    assert (folders.folder / "report" / "paired.csv").exists()
    kept = folders.folder / "report" / "remarks.txt"
    kept.write_text("mine")
    scored(folders, "out/good")
    assert not (folders.folder / "report" / "paired.csv").exists()
    assert kept.read_text() == "mine"


def test_python_returns_the_table(folders: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders.folder)
    table = melmill.score("ref", {"a": Path("out/good"), "b": "out/bad"}, metrics=["sc"])
    assert len(table) == 16
    assert table.groupby("node")["sc_db"].mean()["a"] < table.groupby("node")["sc_db"].mean()["b"]
    assert any("are paired by file name" in note for note in table.attrs["notes"])
    kept = melmill.score(Path("ref"), ["out/good"], metrics=["sc"], output="report", jobs=1)
    assert Path("report/index.html").is_file()
    pd.testing.assert_frame_equal(kept, melmill.open("report/store").scores())
    assert kept["sc_db"].tolist() == table.loc[table["node"] == "a", "sc_db"].tolist()


def test_python_refuses_what_is_for_the_other(standing: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(standing.folder)
    y = recording(0)
    with pytest.raises(melmill.ParameterError, match="sr must be the rate of both signals in Hz, got None"):
        melmill.score(y, y)  # type: ignore[call-overload]
    with pytest.raises(melmill.ParameterError, match="output is for folders, got 'x' with signals"):
        melmill.score(y, y, 16000, output="x")  # type: ignore[call-overload]
    with pytest.raises(melmill.ParameterError, match="spec is for signals: name a preset"):
        melmill.score("ref", "out/good", spec=melmill.preset("paper"))  # type: ignore[call-overload]
    with pytest.raises(melmill.ParameterError, match="y_hat must be folders, as y is one, got ndarray"):
        melmill.score("ref", y)  # type: ignore[call-overload]
    with pytest.raises(melmill.ParameterError, match="jobs must be at least 1, got 0"):
        melmill.score("ref", "out/good", jobs=0)
    with pytest.raises(melmill.ParameterError, match="lengths must be 'same' or 'cut', got 'any'"):
        melmill.score("ref", "out/good", lengths="any")  # type: ignore[call-overload]


def test_several_processes_give_the_same(folders: Project) -> None:
    scored(folders, "out/good", "out/bad")
    alone = pd.read_csv(folders.folder / "report" / "scores.csv")
    done = folders.melmill("score", "ref", "out/good", "out/bad", "-o", "elsewhere", "-m", METRICS, "-j", "2")
    assert done.returncode == 0, done.stderr
    assert "report: elsewhere/index.html" in done.stdout
    pd.testing.assert_frame_equal(pd.read_csv(folders.folder / "elsewhere" / "scores.csv"), alone)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nosuch", "out/good"), "no corpus at"),
        (("ref", "nosuch"), "no corpus at"),
        (("ref", "empty"), "'empty' holds neither audio"),
        (("ref", "file"), "'file' is a file: name the folder that holds it"),
        (("ref", "noise"), "none of the 1 files in 'noise' is audio that can be read"),
        (("ref", "mels"), "'mels' holds 1 mels and no audio: invert them first"),
        (("ref", "out/good", "out/bad/../good/"), "'out/bad/../good/' is given twice"),
        (("ref", "ref/"), "'ref/' is given twice: name each folder once, the recordings first"),
        (("ref", "ref/clean"), "'ref/clean' lies in 'ref'"),
        (("ref", "out/good", "out"), "'out/good' lies in 'out'"),
        (("ref", "renamed"), "no file of 'renamed' has the id or the name of an utterance of 'speech'"),
        (("ref", "out/good", "-m", "estio"), "metrics has no metric 'estio'; did you mean 'estoi'?"),
        (("ref", "out/good", "--preset", "hifgan"), "preset 'hifgan' does not exist; did you mean 'hifigan'?"),
        (("ref", "out/good", "--pairs", "nosuch.csv"), "pairs must be a file that can be read"),
    ],
)
def test_what_cant_be_scored_is_one_line(standing: Project, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refusal(standing, *arguments, "-o", "report")


def test_other_peoples_folders_are_left_alone(folders: Project) -> None:
    assert "'out' holds other files and is no report of `melmill score`" in refusal(
        folders, "ref", "out/good", "-o", "out"
    )
    (folders.folder / "note.txt").write_text("mine")
    assert "is a file" in refusal(folders, "ref", "out/good", "-o", "note.txt")
    assert (folders.folder / "note.txt").read_text() == "mine"


def test_a_file_that_is_no_audio_is_told_and_counted(folders: Project) -> None:
    (folders.folder / "out" / "good" / "u2.wav").write_bytes(b"RIFF and nothing more")
    answer = scored(folders, "out/good")
    (note,) = [note for note in answer["notes"] if note.startswith("good: 1 left out, as they can't be processed")]
    assert "u2 (" in note
    assert {(row["n"], row["n_failed"]) for row in answer["table"]} == {(7, 1)}


def test_files_of_other_rates_are_told(folders: Project) -> None:
    write(folders.folder / "out" / "good" / "u0.wav", generated(0), 22050)
    notes = scored(folders, "out/good")["notes"]
    assert "good: 1 of 8 files are resampled to 16000 Hz (1 of 22050 Hz)" in notes
    lower = scored(folders, "out/good", "--sr", "8000")["notes"]
    assert "speech: 8 of 8 files are resampled to 8000 Hz (8 of 16000 Hz)" in lower


def test_lengths_that_differ_are_cut_where_asked_for(folders: Project) -> None:
    write(folders.folder / "out" / "good" / "u1.wav", generated(1)[:8000])
    first = scored(folders, "out/good")
    assert {(row["n"], row["n_failed"]) for row in first["table"]} == {(7, 1)}
    assert any("lengths: cut compares what both have" in note for note in first["notes"])
    cut = scored(folders, "out/good", "--lengths", "cut")
    assert {(row["n"], row["n_failed"]) for row in cut["table"]} == {(8, 0)}


def test_a_table_of_pairs_is_used(folders: Project) -> None:
    good = folders.folder / "out" / "good"
    for name in NAMES:
        (good / f"{name}.wav").rename(good / f"{name}_gen.wav")
    (folders.folder / "pairs.csv").write_text("".join(f"{name}_gen.wav,{name}\n" for name in NAMES))
    answer = scored(folders, "out/good", "--pairs", "pairs.csv")
    assert {(row["n"], row["n_failed"]) for row in answer["table"]} == {(8, 0)}
