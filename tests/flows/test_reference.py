"""Recordings that stay in their corpus: what reads them gets the very samples that a copy would give."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile

import melmill
from melmill.flows.execution.prepare import prepare_store
from melmill.flows.execution.run import JobMaker, run
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.recordings import recordings_of
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.flows.tasks.job import Held
from melmill.flows.tasks.judging import machine_failure
from melmill.flows.tasks.task import Task
from melmill.stages.blame import Blame
from melmill.stages.contract import Outcome
from melmill.stages.ingest.decode import AudioReader
from melmill.storage.files import sources
from melmill.storage.files.sources import SourceTree
from melmill.storage.reading.recordings import Recordings
from melmill.storage.store import Store
from tests.flows.conftest import NODES, PIPELINE, SR, Project, add_chapter, flac, make_project, voice
from tests.flows.following import FOLDER, FOLLOW, SERIAL, check_as_fresh, file, kept, name, refused
from tests.flows.processes import running

REFERENCE = PIPELINE.replace("root: {root}}}", "root: {root}, audio: reference}}")
NOTE = "speech: recordings stay in '{root}' (audio: reference) and are read again where they are needed"
# Folders of the nodes after the ingest node.
MADE = ("mel", "gla", "admm", "scores")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a project after a serial run, to be read only."""
    made = make_project(tmp_path_factory.mktemp("reference"), corpus_files, REFERENCE)
    made.run("--executor", "serial")
    return made


@pytest.fixture
def fresh(tmp_path: Path, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a project that has not run."""
    return make_project(tmp_path, corpus_files, REFERENCE)


@pytest.fixture
def few(tmp_path: Path, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a project of a few recordings that has not run."""
    return make_project(tmp_path, {"11": corpus_files["11"][:6], "22": corpus_files["22"][:1]}, REFERENCE)


@pytest.fixture
def ready(fresh: Project, whole: Project) -> Project:
    """Return a project after a run, to be changed."""
    shutil.copytree(whole.store, fresh.store)
    fresh.run(*SERIAL)  # the corpus has moved
    return fresh


def unkeyed(project: Project, *folders: str) -> dict[str, str]:
    """Return the hashes of what nodes made, by path without the key."""
    parts = ((path.split("/"), digest) for path, digest in project.bytes().items())
    data = {"data", "table", "trace"}
    return {
        "/".join([where[0], *where[2:]]): digest for where, digest in parts if where[0] in folders and where[2] in data
    }


def planned_then(project: Project, happens: Any) -> str:
    """Plan a run, let something happen to the corpus, and execute the plan; return why that ended."""
    plan = make_plan(load(project.pipeline))
    happens()
    with pytest.raises(melmill.RunFailed) as caught:
        run(plan, "serial")
    assert "\n" not in str(caught.value)
    assert melmill.open(str(project.store)).quarantine().empty
    return str(caught.value)


def test_all_results_are_those_of_a_copy(whole: Project, finished: Project) -> None:
    made = unkeyed(whole, *MADE)
    assert {path.split("/")[0] for path in made} == set(MADE)
    assert made == unkeyed(finished, *MADE)
    mine, theirs = melmill.open(str(whole.store)), melmill.open(str(finished.store))
    assert list(mine["speech"]) == list(theirs["speech"])
    for one, y in theirs["speech"].items():
        again = mine["speech"][one]
        assert (again.dtype, again.flags.c_contiguous) == (np.dtype(np.int16), True)
        np.testing.assert_array_equal(again, y)
    np.testing.assert_array_equal(mine["speech"].part(name(3), slice(50, 70)), theirs["speech"][name(3)][50:70])
    # The examples of the report are the same sounds.
    players = {
        path.name: path.read_bytes()
        for path in Path(finished.store).glob("report/*/report/*/*")
        if path.suffix != ".html"
    }
    assert players
    same = [path for path in Path(whole.store).glob("report/*/report/*/*") if path.name in players]
    assert len(same) == len(players)


def test_the_store_has_hashes_and_no_samples(whole: Project, finished: Project) -> None:
    files = {path.relative_to(whole.store).parts[2] for path in whole.store.glob("speech/*/*")}
    assert files == {"node.json", "catalogue", "table", "records"}
    utterances = melmill.open(str(whole.store)).utterances().set_index("utterance_id")
    others = melmill.open(str(finished.store)).utterances().set_index("utterance_id")
    assert (utterances["content_sha256"] == others["content_sha256"]).all()
    assert utterances["samples_sha256"].map(len).unique() == [64]
    assert "samples_sha256" not in others
    # An older melmill would take the node for damaged.
    assert json.loads((whole.store / "melmill.json").read_text())["format"] == 4
    assert "recordings" not in (next(finished.store.glob("runs/*/manifest.json"))).read_text()
    assert "referenced" not in (next(finished.store.glob("speech/*/node.json"))).read_text()


def test_a_copy_keeps_its_key_and_a_reference_has_its_own(whole: Project, finished: Project) -> None:
    nodes, others = (build_graph(load(one.pipeline)) for one in (whole, finished))
    assert "audio" not in others["speech"].parameters
    assert nodes["speech"].parameters == {**others["speech"].parameters, "audio": "reference"}
    assert nodes["speech"].key != others["speech"].key
    answer = json.loads(
        finished.called("plan", str(finished.pipeline), "--set=speech.audio=reference", "--json").stdout
    )
    assert answer["nodes"][0]["reasons"] == {"audio was null": answer["nodes"][0]["shards"]}


@pytest.mark.parametrize("given", ["refer", "[reference, none]", "true"])
def test_another_word_is_refused(fresh: Project, given: str) -> None:
    done = fresh.called("plan", str(fresh.pipeline), f"--set=speech.audio={given}")
    assert done.returncode == 2
    assert "audio of librispeech must be 'stored' or 'reference', got" in done.stderr
    with pytest.raises(melmill.ParameterError, match="audio must be 'stored' or 'reference', got 'refer'"):
        type(build_graph(load(fresh.pipeline))["speech"].stage)(root="x", audio="refer")  # type: ignore[call-arg]


def test_mels_alone_have_no_such_choice(fresh: Project) -> None:
    fresh.pipeline.write_text(
        f"name: test\nstore: {fresh.store}\nstages:\n"
        f"  made: {{uses: mel_folder, root: {fresh.root}, preset: hifigan, audio: reference}}\n"
    )
    done = fresh.called("plan", str(fresh.pipeline))
    assert (done.returncode, "audio of 'made' has no node 'reference'" in done.stderr) == (2, True)


def test_a_chain_decodes_each_file_once(fresh: Project, whole: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(load(fresh.pipeline))
    prepare_store(plan)
    make_job, decoded = JobMaker(plan), Counter[str]()
    ingest = AudioReader.ingest

    def counted(stage: AudioReader, utterance: Any, data: bytes) -> Outcome:
        decoded[utterance.utterance_id] += 1
        return ingest(stage, utterance, data)

    monkeypatch.setattr(AudioReader, "ingest", counted)
    for shard in plan.nodes["speech"].pending:
        jobs = [make_job(Task(node, "speech", shard), 1, False) for node in NODES]
        held = Held()
        for i, job in enumerate(jobs):
            held.keep({address for later in jobs[i:] for address in later.reads})
            job.run_holding(held)
    assert (len(decoded), set(decoded.values())) == (16, {1})
    assert unkeyed(fresh, "speech", *MADE) == unkeyed(whole, "speech", *MADE)


def test_a_killed_run_goes_on_from_the_files_and_dask_makes_the_same_bytes(fresh: Project, whole: Project) -> None:
    with running(fresh) as client:
        client.until(lambda: bool(list(fresh.store.glob("mel/*/records/*.json"))))
        children = client.children()
        client.process.kill()
        # Its workers end with it, and store nothing later.
        assert not psutil.wait_procs(children, timeout=10)[1]
    n_done = len(list(fresh.store.glob("*/*/records/*.json")))
    answer = fresh.run()
    assert NOTE.format(root=fresh.root) in answer["notes"]
    tasks = answer["tasks"]
    assert (tasks["run"], tasks["failed"]) == (tasks["total"] - n_done, 0)
    made = {path: digest for path, digest in unkeyed(fresh, "speech", *MADE).items() if "/." not in path}
    assert made == unkeyed(whole, "speech", *MADE)


def test_a_change_between_ingest_and_extract_is_refused_and_followed(few: Project) -> None:
    few.run(*SERIAL, "--until", "speech")
    before = few.bytes()
    other = flac(voice(0.8, 140.0, seed=60))
    error = planned_then(few, lambda: file(few, 3).write_bytes(other))
    assert f"node 'speech': '{FOLDER}/11-1-0003.flac' of the corpus at '{few.root}' has changed" in error
    for said in ("SHA-256 ", ", expected ", "holds no copy of its samples", "--follow, which makes it anew"):
        assert said in error
    # No shard with the file was made, and none with other samples.
    assert "changed since it was catalogued" in refused(few)
    with pytest.raises(melmill.SourceChanged, match=r"11-1-0003.flac' .* has changed"):
        melmill.open(str(few.store))["speech"][name(3)]
    few.run(*FOLLOW)
    kept(few, before)
    np.testing.assert_array_equal(melmill.open(str(few.store))["speech"][name(3)], voice(0.8, 140.0, seed=60))
    check_as_fresh(few, notes=[NOTE.format(root=few.root)])


def test_a_file_that_is_gone_is_refused_and_followed(few: Project) -> None:
    few.run(*SERIAL, "--until", "speech")
    error = planned_then(few, file(few, 5).unlink)
    assert f"'{FOLDER}/11-1-0005.flac' of the corpus at '{few.root}' is gone since it was ingested" in error
    assert "run with --follow, which leaves it out of the results" in error
    assert "gone since it was catalogued" in refused(few)
    few.run(*FOLLOW)
    check_as_fresh(few, notes=[NOTE.format(root=few.root)])


@pytest.mark.parametrize("executor", ["serial", "dask"])
def test_a_flipped_bit_that_no_plan_sees_is_found(few: Project, executor: str) -> None:
    few.run(*SERIAL, "--until", "speech")
    path = file(few, 3)
    data, seen = bytearray(path.read_bytes()), path.stat()
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert few.called("plan", str(few.pipeline)).returncode == 0
    done = few.called("run", str(few.pipeline), "--executor", executor)
    assert (done.returncode, "has changed since it was ingested" in done.stderr) == (1, True)
    # Another worker may see the right file.
    assert ("(tried on " in done.stderr) == (executor == "dask")
    assert "If it has its old size and time, touch it before you do" in done.stderr
    assert melmill.open(str(few.store)).quarantine().empty
    # What the message says.
    path.touch()
    done = few.called("run", str(few.pipeline), *FOLLOW)
    assert "1 changed, to be made anew" in done.stdout


def test_what_happens_to_the_files_is_no_utterances_fault() -> None:
    for error in (melmill.SourceChanged("gone"), melmill.SourceError("no corpus")):
        failure = machine_failure(error)
        assert failure is not None
        assert (failure.verdict.blame, failure.utterances, str(failure)) == (Blame.MACHINE, (), str(error))


def test_a_disk_that_is_not_mounted_is_no_fault_of_the_files(fresh: Project, whole: Project) -> None:
    fresh.run(*SERIAL, "--until", "speech")
    away = fresh.root.with_name("away")
    error = planned_then(fresh, lambda: fresh.root.rename(away))
    assert f"no corpus at {fresh.root}: it does not exist" in error
    away.rename(fresh.root)
    fresh.run(*SERIAL)
    assert unkeyed(fresh, *MADE) == unkeyed(whole, *MADE)


def test_a_disk_that_fails_is_no_fault_of_the_files(few: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    few.run(*SERIAL, "--until", "speech")
    monkeypatch.setattr(sources, "READ_PAUSES_S", (0.0, 0.0))
    tries = Counter[str]()

    def failing(tree: SourceTree, path: str) -> bytes:
        tries[path] += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    error = planned_then(few, lambda: monkeypatch.setattr(SourceTree, "read", failing))
    assert "can't be read here: Input/output error" in error
    assert set(tries.values()) == {3}
    monkeypatch.undo()
    assert few.run(*SERIAL)["quarantined"] == 0


def test_another_decoder_never_gives_other_samples(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest, view = AudioReader.ingest, melmill.open(str(ready.store))["speech"]

    def other(stage: AudioReader, utterance: Any, data: bytes) -> Outcome:
        outcome = ingest(stage, utterance, data)
        assert outcome.array is not None
        return Outcome(array=outcome.array ^ (np.arange(outcome.array.size) == 100), row=outcome.row)

    monkeypatch.setattr(AudioReader, "ingest", other)
    with pytest.raises(melmill.SourceError, match=r"the file that was ingested, but it has other samples here than"):
        view[name(3)]

    def failing(stage: AudioReader, utterance: Any, data: bytes) -> Outcome:
        raise melmill.Unusable("undecodable")

    monkeypatch.setattr(AudioReader, "ingest", failing)
    with pytest.raises(melmill.SourceError, match=r"can't be decoded here: undecodable. Use the versions of melmill"):
        view[name(3)]

    def lacking(stage: AudioReader, utterance: Any, data: bytes) -> Outcome:
        raise melmill.PackageMissing("install it")

    monkeypatch.setattr(AudioReader, "ingest", lacking)
    with pytest.raises(melmill.PackageMissing, match="install it"):
        view[name(3)]


def test_a_corpus_that_moved_is_read_after_its_root_is_set(ready: Project) -> None:
    new, before = ready.folder / "elsewhere", ready.bytes()
    ready.root.rename(new)
    with pytest.raises(
        melmill.SourceError, match=r"node 'speech' keeps its recordings .* no corpus at .* set root: of"
    ):
        melmill.open(str(ready.store))["speech"][name(3)]
    ready.root = new
    ready.write(REFERENCE)
    assert ready.run(*SERIAL)["tasks"]["run"] == 0
    assert ready.bytes() == before
    np.testing.assert_array_equal(
        melmill.open(str(ready.store))["speech"][name(3)], soundfile.read(file(ready, 3), dtype="int16")[0]
    )


def test_a_relative_root_is_read_from_anywhere(fresh: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.pipeline.write_text(fresh.pipeline.read_text().replace(str(fresh.root), "corpus"))
    fresh.run(*SERIAL, "--until", "mel")
    monkeypatch.chdir("/")
    assert melmill.open(str(fresh.store))["speech"][name(0)].size == 14400


def test_commands_work_on_it(ready: Project) -> None:
    verified = ready.called("verify", str(ready.store))
    assert (verified.returncode, "is whole\nrecordings of speech stay in the corpus:" in verified.stdout) == (0, True)
    nodes = json.loads(ready.called("status", str(ready.store), "--json").stdout)["nodes"]
    assert (nodes[0]["node"], nodes[0]["done"]) == ("speech", nodes[0]["shards"])
    # A table that is damaged is found, and its shard alone is ingested again.
    table = sorted(ready.store.glob("speech/*/table/*.parquet"))[1]
    whole = table.read_bytes()
    table.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    shard = Store.open(str(ready.store)).catalogue_of(Store.open(str(ready.store)).nodes["speech"]).shard(1)
    with pytest.raises(melmill.DamagedData, match="melmill repair"):
        melmill.open(str(ready.store))["speech"][shard.utterances[0].utterance_id]
    assert ready.called("verify", str(ready.store)).returncode == 1
    assert ready.called("repair", str(ready.store)).returncode == 0
    assert ready.run(*SERIAL)["tasks"]["run"] == 1
    assert table.read_bytes() == whole
    # So is a catalogue, with the corpus at hand, and the mark of the store keeps its format.
    part = next(ready.store.glob("speech/*/catalogue/part-*.parquet"))
    catalogue = part.read_bytes()
    part.write_bytes(b"?")
    (ready.store / "melmill.json").write_text("{")
    done = ready.called("repair", str(ready.store), "--pipeline", str(ready.pipeline))
    assert done.returncode == 0, done.stderr
    assert json.loads((ready.store / "melmill.json").read_text())["format"] == 4
    assert part.read_bytes() == catalogue
    assert ready.run(*SERIAL)["tasks"]["run"] == 0


def test_a_mended_file_is_taken_after_a_retry(few: Project) -> None:
    whole = flac(voice(1.0, 150.0, seed=9))
    (path,) = add_chapter(few.root, "dev-clean", "33", [whole[:-3000]])
    assert few.run(*SERIAL)["quarantined"] == 1
    path.write_bytes(whole)
    assert few.called("quarantine", str(few.store), "--retry").returncode == 0
    assert few.run(*SERIAL)["quarantined"] == 0
    np.testing.assert_array_equal(melmill.open(str(few.store))["speech"]["33-1-0000"], voice(1.0, 150.0, seed=9))
    check_as_fresh(few, notes=[NOTE.format(root=few.root)])


def test_an_export_writes_what_a_copy_gives(ready: Project, finished: Project) -> None:
    out, other = ready.folder / "out", ready.folder / "other"
    export = ("export", str(ready.store), "speech", str(out), "--format", "wav", "--json")
    assert json.loads(ready.called(*export).stdout)["written"] == 16
    finished.called("export", str(finished.store), "speech", str(other), "--format", "wav")
    files = {path.relative_to(other): path.read_bytes() for path in other.rglob("*.wav")}
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*.wav")} == files
    assert json.loads(ready.called(*export).stdout)["kept"] == 16
    # A file that was exported is kept; another one can't be made of a file that has changed.
    file(ready, 3).write_bytes(flac(voice(0.7, 140.0, seed=60)))
    (out / FOLDER / "11-1-0003.wav").unlink()
    done = ready.called(*export)
    assert (done.returncode, "11-1-0003.flac' of the corpus" in done.stderr) == (1, True)
    ready.run(*FOLLOW)
    assert json.loads(ready.called(*export).stdout)["written"] == 1
    y, _ = soundfile.read(out / FOLDER / "11-1-0003.wav", dtype="int16")
    np.testing.assert_array_equal(y, voice(0.7, 140.0, seed=60))


def test_an_estimate_knows_how_little_is_stored(fresh: Project) -> None:
    done = fresh.called("plan", str(fresh.pipeline), "--estimate", "--json", "--set=cluster.pools.cpu.workers=1")
    assert done.returncode == 0, done.stderr
    sizes = {node["node"]: node["disk_bytes"] for node in json.loads(done.stdout)["nodes"]}
    fresh.run(*SERIAL)
    files = [path for path in fresh.store.glob("speech/*/*/*") if path.parent.name in ("table", "records")]
    assert sizes["speech"] == pytest.approx(sum(path.stat().st_size for path in files), rel=0.2)
    samples = sum(y.nbytes for y in melmill.open(str(fresh.store))["speech"].values())
    assert sizes["speech"] < samples / 5


def test_trainings_and_datasets_draw_the_same_segments(whole: Project, finished: Project) -> None:
    torch = pytest.importorskip("torch")
    from melmill.storage.reading.segments import Segments

    mine, theirs = (melmill.torch_dataset(str(one.store), segment_frames=16) for one in (whole, finished))
    travelled = pickle.loads(pickle.dumps(mine))
    for i in range(len(theirs)):
        for expected, got, again in zip(theirs[i], mine[i], travelled[i], strict=True):
            assert torch.equal(expected, got)
            assert torch.equal(expected, again)
    workers = torch.utils.data.DataLoader(mine, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    for (_, y), (_, expected) in zip(workers, torch.utils.data.DataLoader(theirs, batch_size=4), strict=True):
        assert torch.equal(y, expected)
    batches = []
    for project in (whole, finished):
        store = melmill.open(str(project.store))
        segments = Segments(store["mel"], store["speech"])
        drawn = segments.batches(
            [one.utterance_id for one in segments.utterances], segment_frames=16, batch_size=4, seed=0
        )
        batches.append([next(drawn) for _ in range(8)])
        drawn.close()  # type: ignore[attr-defined]
    for one, other in zip(*batches, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_channels_rates_and_levels_are_converted_as_by_ingest(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.root.mkdir()
    left, right = voice(1.0, 120.0, seed=1), voice(1.0, 200.0, seed=2)
    soundfile.write(project.root / "stereo.wav", np.stack([left, right], axis=1), 44100, subtype="PCM_16")
    soundfile.write(project.root / "swapped.ogg", np.stack([right, left], axis=1) / 32768, 48000)
    loud = right / 32768
    loud[500:520] = 1.2
    soundfile.write(project.root / "loud.wav", loud, SR, subtype="FLOAT")
    soundfile.write(project.root / "mono.mp3", left / 32768, 22050)
    soundfile.write(project.root / "silent.wav", np.zeros(SR, np.int16), SR)
    stages = {}
    for audio in ("stored", "reference"):
        project.store = tmp_path / audio
        project.pipeline.write_text(
            f"name: test\nstore: {project.store}\nshard_duration_s: 3\nmax_quarantined: 1.0\nstages:\n"
            f"  speech: {{uses: audio_folder, root: {project.root}, files: ['*'], sr: 22050, channel: loudest, "
            f"audio: {audio}}}\n  mel: {{uses: extract, from: speech, preset: hifigan}}\n"
        )
        assert project.run("--executor", "serial")["quarantined"] == 1
        stages[audio] = melmill.open(str(project.store))
    assert len(stages["reference"]["speech"]) == 4
    for node in ("speech", "mel"):
        for one, array in stages["stored"][node].items():
            np.testing.assert_array_equal(stages["reference"][node][one], array)


def test_recordings_of_another_corpus_are_scored_with(fresh: Project, finished: Project) -> None:
    done = finished.called("export", str(finished.store), "gla", str(fresh.folder / "gen"), "--format", "wav")
    assert done.returncode == 0
    tables: list[pd.DataFrame] = []
    for text in (PIPELINE, REFERENCE):
        fresh.store = fresh.folder / f"store-{len(tables)}"
        added = "  gen:    {{uses: audio_folder, root: gen, audio: reference}}\n  scores:"
        fresh.write(text.replace("  scores:", added).replace("[gla, admm]", "[gla, gen]"))
        fresh.run(*SERIAL, "--until", "scores")
        table = melmill.open(str(fresh.store)).scores()
        tables.append(table.sort_values(["node", "utterance_id"], ignore_index=True))
    assert set(tables[0]["node"]) == {"gla", "gen"}
    assert tables[0].equals(tables[1])


def test_what_reads_them_travels_as_plain_values(whole: Project) -> None:
    recordings = recordings_of(build_graph(load(whole.pipeline))["speech"])
    assert recordings == Recordings(
        node="speech", root=str(whole.root), stage="librispeech", fields={"audio": "reference"}
    )
    entries = Store.open(str(whole.store)).nodes
    assert entries["speech"].recordings == recordings
    assert entries["mel"].recordings is None


def test_without_a_run_nothing_says_where_they_are(whole: Project) -> None:
    store = Store.open(str(whole.store))
    entry = store.nodes["speech"]
    shard = store.read_shard(entry.folder, entry.key, 0)
    with pytest.raises(melmill.StoreError, match=r"stay in the corpus .* the last run does not say where"):
        store.product(entry.folder, entry.key).read_arrays(shard)


def test_a_reader_must_hash_its_files(fresh: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest = AudioReader.ingest
    monkeypatch.setattr(
        AudioReader, "ingest", lambda stage, utterance, data: Outcome(array=ingest(stage, utterance, data).array)
    )
    done = fresh.called("run", str(fresh.pipeline), *SERIAL)
    assert (done.returncode, "has no content_sha256. A reader must give it" in done.stderr) == (1, True)
