"""Files in quarantine that are mended are made, with or without --follow."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

import melmill
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.readers.librispeech import LibriSpeech
from melmill.storage.files.sources import SourceTree
from melmill.storage.utterance import SourceFile
from tests.flows.conftest import NODES, Project, make_project, voice
from tests.flows.following import (
    FOLDER,
    FOLLOW,
    SERIAL,
    check_as_fresh,
    file,
    kept,
)


@pytest.fixture
def project(tmp_path: Path, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a project of a few recordings, in three shards."""
    return make_project(tmp_path, {"11": corpus_files["11"][:5], "22": corpus_files["22"][:1]})


def test_an_empty_file_that_is_fetched_again_is_made_at_once(project: Project) -> None:
    whole = file(project, 2).read_bytes()
    file(project, 2).write_bytes(b"")
    assert project.run(*SERIAL)["quarantined"] == 1
    before = project.bytes()
    file(project, 2).write_bytes(whole)
    answer = project.run(*SERIAL)
    assert (answer["tasks"]["run"], answer["quarantined"]) == (len(NODES) + 1, 0)
    assert answer["notes"] == [f"speech: 1 mended, to be made for the first time: {FOLDER}/11-1-0002.flac"]
    assert json.loads(project.called("quarantine", str(project.store), "--json").stdout)["quarantined"] == []
    kept(project, before)
    # Nothing is left to retry.
    assert json.loads(project.called("quarantine", str(project.store), "--retry", "--json").stdout)["dropped"] == 0
    check_as_fresh(project)


def test_an_empty_file_that_is_fetched_again_after_a_retry(project: Project) -> None:
    whole = file(project, 2).read_bytes()
    file(project, 2).write_bytes(b"")
    project.run(*SERIAL)
    file(project, 2).write_bytes(whole)
    project.called("quarantine", str(project.store), "--retry")
    answer = project.run(*SERIAL)
    assert (answer["tasks"]["failed"], answer["quarantined"]) == (0, 0)
    check_as_fresh(project)


def test_a_file_that_could_not_be_read_is_taken_by_the_next_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = SourceTree.head

    def locked(tree: SourceTree, path: str, n: int) -> bytes:
        if path.endswith("11-1-0002.flac"):
            raise PermissionError(13, "Permission denied")
        return head(tree, path, n)

    with monkeypatch.context() as patch:
        patch.setattr(SourceTree, "head", locked)
        patch.setattr("melmill.storage.files.sources.READ_PAUSES_S", ())
        assert project.run(*SERIAL)["quarantined"] == 1
        assert project.run(*SERIAL)["tasks"]["run"] == 0
    assert project.run(*SERIAL)["quarantined"] == 0
    check_as_fresh(project)


@pytest.mark.parametrize("believed", [2.0, 0.5])
@pytest.mark.parametrize("retry", [False, True])
def test_a_length_that_an_older_version_believed_is_measured_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch, believed: float, retry: bool
) -> None:
    claims = LibriSpeech.claims

    def estimated(stage: LibriSpeech, tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
        sr, n_samples = claims(stage, tree, file)
        return sr, int(n_samples * believed) if file.path.endswith("11-1-0002.flac") else n_samples

    with monkeypatch.context() as patch:
        patch.setattr(LibriSpeech, "claims", estimated)
        assert project.run(*SERIAL)["quarantined"] == 1
        # Nothing is measured otherwise, so nothing is to do.
        assert project.run(*SERIAL)["tasks"]["run"] == 0
    (row,) = json.loads(project.called("quarantine", str(project.store), "--json").stdout)["quarantined"]
    assert row["reason"].startswith("catalogued with ")
    assert row["reason"].endswith(" now: run again, and the file is measured anew")
    before = project.bytes()
    if retry:
        project.called("quarantine", str(project.store), "--retry")
    answer = project.run(*SERIAL)
    assert (answer["quarantined"], answer["tasks"]["failed"]) == (0, 0)
    assert answer["notes"] == [f"speech: 1 mended, to be made for the first time: {FOLDER}/11-1-0002.flac"]
    if not retry:
        assert answer["tasks"]["run"] == len(NODES) + 1
        kept(project, before)
    check_as_fresh(project)


def test_a_damaged_file_is_measured_anew_and_nothing_follows(project: Project) -> None:
    whole = file(project, 2).read_bytes()
    file(project, 2).write_bytes(whole[: len(whole) // 2])
    project.run(*SERIAL)
    before = project.bytes()
    for _ in range(2):
        answer = project.run(*SERIAL)
        assert (answer["tasks"]["run"], answer["notes"]) == (0, [])
    assert project.bytes() == before
    project.called("quarantine", str(project.store), "--retry")
    answer = project.run(*SERIAL)
    assert (answer["quarantined"], answer["tasks"]["failed"], answer["notes"]) == (1, 0, [])
    assert project.run(*SERIAL)["tasks"]["run"] == 0


def test_a_mended_file_of_the_length_that_it_claimed_waits_for_a_retry(project: Project) -> None:
    whole = file(project, 2).read_bytes()
    file(project, 2).write_bytes(whole[: len(whole) // 2])
    project.run(*SERIAL)
    file(project, 2).write_bytes(whole)
    for _ in range(2):
        answer = project.run(*SERIAL)
        assert answer["tasks"]["run"] == 0
        (note,) = answer["notes"]
        assert f"1 in quarantine changed, and `melmill quarantine {project.store} --retry` tries them again" in note
    answer = project.run(*FOLLOW)
    assert (answer["tasks"]["run"], answer["quarantined"]) == (len(NODES) + 1, 0)
    check_as_fresh(project)


def test_a_silent_file_that_is_recorded_again(project: Project) -> None:
    """It may have its old size, so that only its hash tells."""
    folder = file(project, 0).parent
    soundfile.write(folder / "11-1-0009.wav", np.zeros(16000, dtype=np.int16), 16000)
    project.pipeline.write_text(project.pipeline.read_text().replace("librispeech", "audio_folder"))
    assert project.run(*SERIAL)["quarantined"] == 1
    os.utime(folder / "11-1-0009.wav", (1_800_000_000, 1_800_000_000))
    assert project.run(*FOLLOW)["tasks"]["run"] == 0
    assert project.run(*SERIAL)["notes"] == []
    soundfile.write(folder / "11-1-0009.wav", voice(1.0, 150.0, seed=3), 16000)
    for _ in range(2):
        (note,) = project.run(*SERIAL)["notes"]
        assert "--retry` tries them again: dev-clean/11/1/11-1-0009.wav" in note
    project.called("quarantine", str(project.store), "--retry")
    assert project.run(*SERIAL)["quarantined"] == 0
    assert set(melmill.open(str(project.store)).quarantine().columns) == {
        "utterance_id",
        "node",
        "stage",
        "reason",
        "detail",
    }
    check_as_fresh(project)


def pcm(n_samples: int, n_bytes: int) -> bytes:
    """Return a WAV file of a size, whose last chunk is padding."""
    y = io.BytesIO()
    soundfile.write(y, voice(n_samples / 16_000, 120.0, seed=3)[:n_samples], 16_000, format="WAV", subtype="PCM_16")
    padding = n_bytes - len(y.getvalue()) - 8
    data = y.getvalue() + b"pad " + padding.to_bytes(4, "little") + bytes(padding)
    return data[:4] + (n_bytes - 8).to_bytes(4, "little") + data[8:]


@pytest.mark.parametrize("before", [pcm(8000, 20_000), bytes(20_000)])
def test_a_file_whose_row_has_no_room_gets_another(tmp_path: Path, before: bytes) -> None:
    project = Project(tmp_path)
    project.write(
        "name: x\nstore: {store}\nmax_quarantined: 1.0\nstages:\n  speech: {{uses: audio_folder, root: {root}}}\n"
    )
    project.root.mkdir()
    (project.root / "b.wav").write_bytes(pcm(8000, 20_000))
    path = project.root / "a.wav"
    path.write_bytes(before)
    plan = make_plan(load(project.pipeline))
    seen = path.stat()
    # As an earlier version catalogued it, or as it was before somebody mended it unseen.
    path.write_bytes(pcm(9000, 20_000))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    run(plan, "serial")
    (row,) = json.loads(project.called("quarantine", str(project.store), "--json").stdout)["quarantined"]
    assert row["reason"].startswith("catalogued with")
    assert "9,000 at 16,000 Hz now" in row["reason"]
    assert row["reason"].endswith("run again, and the file is measured anew")
    answer = project.run(*SERIAL)
    assert (answer["tasks"]["failed"], answer["quarantined"]) == (0, 0)
    view = melmill.open(str(project.store))["speech"]
    assert {name: len(view[name]) for name in view} == {"a": 9000, "b": 8000}
