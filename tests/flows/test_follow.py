"""A store follows a corpus that is repaired: nothing else is computed, and nothing old is shown."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import soundfile

import melmill
from melmill.flows.execution.prepare import prepare_store
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import Plan, make_plan
from melmill.storage.corpus.revisions import Revisions
from melmill.storage.files.location import Location
from melmill.storage.files.sources import SourceTree
from tests.flows.conftest import NODES, Project, add_chapter, flac, make_project, voice
from tests.flows.following import (
    FOLDER,
    FOLLOW,
    SERIAL,
    check_as_fresh,
    corpus,
    file,
    kept,
    name,
    refused,
    tables,
)


@pytest.fixture(scope="module")
def corpus_files(corpus_files: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    """Return the recordings of a speaker, and two of another one."""
    return {**corpus_files, "22": corpus_files["22"][:2]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a project of them after a run, to be read only."""
    made = make_project(tmp_path_factory.mktemp("finished"), corpus_files)
    made.run(*SERIAL)
    return made


def test_what_is_gone_leaves_the_results(done: Project) -> None:
    before = done.bytes()
    file(done, 3).unlink()
    file(done, 5).unlink()
    error = refused(done)
    assert f"gone since it was catalogued: {FOLDER}/11-1-0003.flac, {FOLDER}/11-1-0005.flac" in error
    assert "--follow" in error
    planned = done.called("plan", str(done.pipeline), "--follow")
    assert "tasks to run; 8 utterances" in planned.stdout
    assert f"note: speech: 2 removed, left out of all results: {FOLDER}/11-1-0003.flac" in planned.stdout
    assert done.bytes() == before
    answer = done.run(*FOLLOW)
    # Only the report is made anew.
    assert (answer["tasks"]["run"], answer["utterances"], answer["quarantined"]) == (1, 8, 0)
    assert any("2 removed" in note for note in answer["notes"])
    kept(done, before)
    assert done.run(*SERIAL)["tasks"]["run"] == 0
    view = melmill.open(str(done.store))["mel"]
    assert name(3) not in view
    with pytest.raises(KeyError, match="no utterance is called '11-1-0003' among the 8"):
        view[name(3)]
    check_as_fresh(done)


def test_every_kind_of_change_at_once(project: Project) -> None:
    file(project, 0).write_bytes(b"")
    whole = file(project, 1).read_bytes()
    file(project, 1).write_bytes(whole[: len(whole) // 2])
    project.run(*SERIAL)
    before, n_shards = project.bytes(), corpus(project).n_shards
    file(project, 0).write_bytes(flac(voice(0.9, 130.0, seed=50)))  # was empty
    file(project, 1).write_bytes(whole)  # was cut
    file(project, 2).write_bytes(flac(voice(1.1, 130.0, seed=51)))  # as long as before
    file(project, 4).write_bytes(flac(voice(1.3, 130.0, seed=52)))  # shorter than before
    file(project, 6).unlink()
    add_chapter(project.root, "dev-clean", "33", [flac(voice(1.0, 150.0, seed=9))])
    assert "changed since it was catalogued" in refused(project)
    answer = project.run(*FOLLOW)
    notes = " ".join(answer["notes"])
    for said in (
        "1 new: dev-clean/33/1",
        "2 changed, to be made anew",
        "1 removed",
        "2 mended, to be made for the first time",
    ):
        assert said in notes
    new = corpus(project).n_shards - n_shards
    assert new > 1
    assert answer["tasks"]["run"] == new * len(NODES) + 1
    assert answer["quarantined"] == 0
    kept(project, before)
    check_as_fresh(project)


def test_a_changed_file_may_change_again_go_and_come_back(done: Project) -> None:
    for seed in (60, 61):
        file(done, 3).write_bytes(flac(voice(0.8, 140.0, seed=seed)))
        assert done.run(*FOLLOW)["tasks"]["run"] == len(NODES) + 1
    data = file(done, 3).read_bytes()
    file(done, 3).unlink()
    assert done.run(*FOLLOW)["tasks"]["run"] == 1
    file(done, 3).write_bytes(data)
    answer = done.run(*SERIAL)
    assert answer["tasks"]["run"] == len(NODES) + 1
    assert answer["notes"] == [f"speech: 1 new: {FOLDER}/11-1-0003.flac"]
    check_as_fresh(done)


def test_another_file_may_take_the_id(done: Project) -> None:
    text = done.pipeline.read_text().replace("librispeech", "audio_folder")
    done.pipeline.write_text(text)
    done.run(*SERIAL, "--until", "mel")
    file(done, 3).unlink()
    soundfile.write(file(done, 3).with_suffix(".wav"), voice(1.0, 150.0, seed=3), 16000)
    assert "gone since it was catalogued" in refused(done, "--until", "mel")
    answer = done.run(*FOLLOW, "--until", "mel")
    assert answer["tasks"]["run"] == 2
    assert len(melmill.open(str(done.store))["mel"]) == answer["utterances"] == 10


def test_a_shorter_manifest(project: Project) -> None:
    listed = [str(path.relative_to(project.root)) for path in sorted(project.root.rglob("*.flac"))]
    manifest = project.root / "list.txt"
    manifest.write_text("\n".join(listed))
    project.pipeline.write_text(
        project.pipeline.read_text().replace("uses: librispeech,", "uses: audio_folder, manifest: list.txt,")
    )
    project.run(*SERIAL)
    manifest.write_text("\n".join(listed[1:]))
    assert f"gone since it was catalogued: {listed[0]}" in refused(project)
    answer = project.run(*FOLLOW)
    assert (answer["tasks"]["run"], answer["utterances"]) == (1, 9)
    check_as_fresh(project)


@pytest.mark.parametrize(
    ("field", "gone"),
    [
        ("files: ['11-1-0000.flac', '11-1-0001.flac', '22*']", ["11-1-0000.flac"]),
        ("subsets: ['11', '22'], folders: [subset]", [f"11-1-{number:04d}.flac" for number in range(8)]),
    ],
)
def test_a_choice_that_is_gone(project: Project, field: str, gone: list[str]) -> None:
    text = project.pipeline.read_text().replace("uses: librispeech,", f"uses: audio_folder, {field},")
    if "subsets" in field:
        project.root = project.root / "dev-clean"
        text = text.replace("corpus", "corpus/dev-clean")
    else:
        text = text.replace("'11-", "'dev-clean/11/1/11-").replace("'22", "'dev-clean/22")
    project.pipeline.write_text(text)
    project.run(*SERIAL, "--until", "mel")
    before = project.bytes()
    for path in project.root.rglob("*.flac"):
        if path.name in gone:
            path.unlink()
    error = refused(project, "--until", "mel")
    assert "gone since it was catalogued" in error
    assert gone[0] in error
    answer = project.run(*FOLLOW, "--until", "mel")
    assert (answer["tasks"]["run"], answer["utterances"]) == (0, 3 if "files" in field else 2)
    kept(project, before)
    # A mistake in a name still is one.
    project.pipeline.write_text(text.replace("'22", "'2x"))
    assert "must" in refused(project, "--until", "mel", *FOLLOW)


def test_what_is_gone_is_not_missed_by_what_is_still_to_be_done(project: Project) -> None:
    """Shards may lie undone at some nodes, or at all, when the files of a few utterances go."""
    prepare_store(make_plan(load(project.pipeline)))
    file(project, 0).unlink()
    file(project, 7).write_bytes(flac(voice(0.5, 120.0, seed=70)))
    # Nothing was made of it, so that a new length changes nothing that is stored.
    (note,) = (note for note in [refused(project)])
    assert "gone since" in note
    assert "changed since" not in note
    assert project.run(*FOLLOW, "--until", "mel")["tasks"]["failed"] == 0
    file(project, 1).unlink()
    for path in (project.root / "dev-clean/22/1").glob("*"):
        path.unlink()
    answer = project.run(*FOLLOW)
    assert (answer["tasks"]["failed"], answer["utterances"], answer["quarantined"]) == (0, 6, 0)
    check_as_fresh(project)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that the paths of files are added to which are read whole."""
    found: list[str] = []
    read = SourceTree.read

    def noted(tree: SourceTree, path: str) -> bytes:
        found.append(path)
        return read(tree, path)

    monkeypatch.setattr(SourceTree, "read", noted)
    return found


def test_other_times_are_checked_once(done: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before, whole = done.bytes(), reads(monkeypatch)
    plan = ("plan", str(done.pipeline), "--json")
    for path in done.root.rglob("*.flac"):
        os.utime(path, (1_800_000_000, 1_800_000_000))
    # A plan writes nothing.
    for _ in range(2):
        assert json.loads(done.called(*plan).stdout)["tasks"]["run"] == 0
        assert len({path for path in whole if path.endswith(".flac")}) == 10
        whole.clear()
    assert done.run(*SERIAL)["tasks"]["run"] == 0
    whole.clear()
    assert json.loads(done.called(*plan).stdout)["notes"] == []
    assert done.run(*SERIAL)["tasks"]["run"] == 0
    assert [path for path in whole if path.endswith(".flac")] == []
    assert done.bytes() == before
    # What was seen is no proof of what comes after.
    file(done, 3).write_bytes(flac(voice(0.8, 140.0, seed=60)))
    os.utime(file(done, 3), (1_800_000_000, 1_800_000_001))
    assert "changed since it was catalogued" in refused(done)
    # A damaged note of what was seen costs the check, and nothing else.
    shutil.copy(file(done, 4), file(done, 3))
    (seen,) = done.store.glob("speech/*/catalogue/seen.parquet")
    seen.write_bytes(seen.read_bytes()[:-9])
    assert done.called("verify", str(done.store)).returncode == 0
    assert "11-1-0003" in refused(done)


class Killed(BaseException):
    """What stands for SIGKILL between two writes."""


def test_a_run_that_is_killed_between_any_two_writes(done: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    file(done, 0).unlink()
    file(done, 3).write_bytes(flac(voice(0.8, 140.0, seed=60)))
    unfollowed = shutil.copytree(done.store, done.folder / "unfollowed")
    put, replace = Location.put, Location.replace
    writes: list[str] = []

    def counted(write: Callable[[Location, str, bytes], None], left: int) -> Callable[[Location, str, bytes], None]:
        def written(location: Location, name: str, data: bytes) -> None:
            if len(writes) == left:
                raise Killed
            writes.append(name)
            write(location, name, data)

        return written

    for left in range(1000):
        shutil.rmtree(done.store)
        shutil.copytree(unfollowed, done.store)
        plan = make_plan(load(done.pipeline), until="mel", follow=True)
        writes.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Location, "put", counted(put, left))
            patch.setattr(Location, "replace", counted(replace, left))
            try:
                run(plan, "serial", partial=True)
                break
            except Killed:
                pass
        retired = any("retired-" in one for one in writes)
        again = make_plan(load(done.pipeline), until="mel", follow=not retired)
        assert again.catalogues["speech"].n_utterances == 9
        summary = run(again, "serial", partial=True)
        assert summary.tasks.failed == 0
        view = melmill.open(str(done.store))["mel"]
        assert (len(view), name(0) in view, view[name(3)].shape) == (9, False, plan_shape(again, name(3)))
    assert {"retired-000000.parquet", "part-000001.parquet"} <= set(writes)
    assert left == len(writes)
    done.run(*FOLLOW)
    check_as_fresh(done)


def plan_shape(plan: Plan, utterance_id: str) -> tuple[int, int]:
    catalogue = plan.catalogues["speech"]
    shard = catalogue.shard(catalogue.shard_of(utterance_id))
    (n_samples,) = (one.n_samples for one in shard.current if one.utterance_id == utterance_id)
    return 80, 1 + n_samples // 256


@pytest.mark.parametrize("changes_between", [False, True])
def test_two_runs_that_follow(done: Project, monkeypatch: pytest.MonkeyPatch, *, changes_between: bool) -> None:
    file(done, 0).unlink()
    file(done, 3).write_bytes(flac(voice(0.8, 140.0, seed=60)))
    write, others = Revisions.write, [True]

    def overtaken(revisions: Revisions, location: Location) -> None:
        if others:
            others.pop()
            if changes_between:
                file(done, 5).unlink()
            done.run(*FOLLOW)
        write(revisions, location)

    monkeypatch.setattr(Revisions, "write", overtaken)
    if changes_between:
        assert "another run has changed the catalogue" in refused(done, *FOLLOW)
    assert done.run(*FOLLOW)["tasks"]["failed"] == 0
    check_as_fresh(done)


def test_a_damaged_list_is_found_and_made_anew(done: Project) -> None:
    file(done, 0).unlink()
    file(done, 3).write_bytes(flac(voice(0.8, 140.0, seed=60)))
    done.run(*FOLLOW)
    scores = tables(done.store)["scores"]
    (path,) = done.store.glob("speech/*/catalogue/retired-000000.parquet")
    for damaged in (path.read_bytes()[:-7], None):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        assert "catalogue" in done.called("verify", str(done.store)).stdout
        assert "Run `melmill repair`" in refused(done)
        assert done.called("repair", str(done.store), "--pipeline", str(done.pipeline)).returncode == 0
        pd.testing.assert_frame_equal(tables(done.store)["scores"], scores)
        assert done.run(*SERIAL)["tasks"]["run"] == 0


def test_a_damaged_part_is_made_anew_beside_retired_rows(done: Project) -> None:
    file(done, 0).unlink()
    file(done, 3).write_bytes(flac(voice(0.8, 140.0, seed=60)))
    done.run(*FOLLOW)
    before = done.bytes()
    (path,) = done.store.glob("speech/*/catalogue/part-000001.parquet")
    path.write_bytes(path.read_bytes()[:-7])
    done.called("repair", str(done.store), "--pipeline", str(done.pipeline))
    assert done.bytes() == before
    assert done.run(*SERIAL)["tasks"]["run"] == 0


def test_a_damaged_mark_keeps_its_format(done: Project) -> None:
    file(done, 0).unlink()
    done.run(*FOLLOW)
    (done.store / "melmill.json").write_text("{")
    assert done.called("repair", str(done.store)).returncode == 0
    assert json.loads((done.store / "melmill.json").read_text())["format"] == 4


def test_an_export_follows_too(done: Project) -> None:
    out = done.folder / "out"
    export = ("export", str(done.store), "speech", str(out), "--format", "wav", "--json")
    assert json.loads(done.called(*export).stdout)["written"] == 10
    (out / FOLDER / "mine.wav").write_bytes(b"not of the export")
    file(done, 0).unlink()
    file(done, 3).write_bytes(flac(voice(0.7, 140.0, seed=60)))
    done.run(*FOLLOW)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    answer = json.loads(done.called(*export).stdout)
    assert (answer["written"], answer["kept"], answer["removed"], answer["missing"]) == (1, 8, 1, 0)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    changed, gone = (out / FOLDER / f"11-1-{number:04d}.wav" for number in (3, 0))
    assert before.keys() - after.keys() == {gone}
    assert {path for path in after if after[path] != before[path]} == {changed}
    np.testing.assert_array_equal(soundfile.read(changed, dtype="int16")[0], voice(0.7, 140.0, seed=60))
    answer = json.loads(done.called(*export).stdout)
    assert (answer["written"], answer["kept"], answer["removed"]) == (0, 9, 0)


def test_a_dataset_follows_too(done: Project) -> None:
    file(done, 0).unlink()
    file(done, 3).write_bytes(flac(voice(0.8, 140.0, seed=60)))
    done.run(*FOLLOW)
    dataset = melmill.torch_dataset(str(done.store), segment_frames=8)
    assert len(dataset) == 9
    assert name(0) not in dataset.ids
    M, y = dataset[list(dataset.ids).index(name(3))]
    assert (M.shape, y.shape) == ((80, 8), (8 * 256,))


def test_a_python_run_follows(done: Project) -> None:
    file(done, 0).unlink()
    with pytest.raises(melmill.PipelineError, match="--follow"):
        melmill.run(done.pipeline, executor="serial")
    assert melmill.run(done.pipeline, executor="serial", follow=True).utterances == 9
    with pytest.raises(melmill.Error, match="follow must be True or False, got 'yes'"):
        melmill.run(done.pipeline, follow="yes")  # type: ignore[arg-type]


def test_a_catalogue_without_retired_rows_is_as_it_was(done: Project) -> None:
    assert not corpus(done).retired
    assert sorted(path.name for path in done.store.glob("speech/*/catalogue/*")) == ["part-000000.parquet"]
