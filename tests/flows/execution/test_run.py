"""A run as a whole: what it makes, that it resumes, and that the executors agree."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import melmill
from melmill.flows.runs.history import runs_of
from melmill.storage.store import Store
from tests.flows.conftest import NODES, PIPELINE, Project, add_chapter, flac, make_project, voice


@pytest.fixture(scope="module")
def on_dask(tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a project after a run on workers, to be read only."""
    made = make_project(tmp_path_factory.mktemp("dask"), corpus_files)
    done = made.melmill("run", str(made.pipeline), "--json", "--executor", "dask")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tasks"]["failed"] == 0
    return made


def test_dask_and_serial_make_the_same_bytes(on_dask: Project, undisturbed: dict[str, str]) -> None:
    assert on_dask.bytes() == undisturbed


def test_a_dask_run_leaves_what_a_serial_one_does(on_dask: Project, finished: Project) -> None:
    serial, dask = (runs_of(Store.open(str(made.store)))[-1].outcome for made in (finished, on_dask))
    assert serial is not None
    assert dask is not None
    assert dask.scores == serial.scores
    assert {name: node.done for name, node in dask.nodes.items()} == {
        name: node.done for name, node in serial.nodes.items()
    }


def test_a_second_run_has_nothing_to_do(project: Project) -> None:
    first = project.run("--executor", "serial")
    n_shards = melmill.open(str(project.store)).product(*_place(project, "speech")).read_catalogue().n_shards
    assert n_shards > 3
    assert first["tasks"] == {
        "total": len(NODES) * n_shards + 1,
        "run": len(NODES) * n_shards + 1,
        "reused": 0,
        "failed": 0,
    }
    assert (first["utterances"], first["quarantined"]) == (16, 0)
    assert Path(first["report"]).is_file()
    second = project.run()
    assert second["tasks"] == {**first["tasks"], "run": 0, "reused": first["tasks"]["total"]}
    assert second["report"] == first["report"]
    shown = project.called("run", str(project.pipeline))
    assert "nothing to run" in shown.stdout
    assert "report: " in shown.stdout


def test_a_changed_parameter_redoes_the_node_and_what_reads_it(done: Project) -> None:
    total = done.run("--executor", "serial")["tasks"]["total"]
    n_shards = (total - 1) // len(NODES)
    plan = json.loads(done.called("plan", str(done.pipeline), "--set", "gla.n_iter=3", "--json").stdout)
    reasons = {node["node"]: node["reasons"] for node in plan["nodes"]}
    assert reasons["gla"] == {"n_iter was 2": n_shards}
    assert reasons["scores[gla]"] == {"its input changed": n_shards}
    assert reasons["report"] == {"its input changed": 1}
    assert not any(reasons[name] for name in ("speech", "mel", "admm", "scores[admm]"))
    plan = json.loads(done.called("plan", str(done.pipeline), "--set", "mel.n_mels=40", "--json").stdout)
    assert {node["node"]: node["reasons"] for node in plan["nodes"]}["mel"] == {"n_mels was 80": n_shards}
    assert done.run("--set", "gla.n_iter=3", "--executor", "serial")["tasks"]["run"] == 2 * n_shards + 1
    # what was made before is still there
    assert done.run("--executor", "serial")["tasks"]["run"] == 0


def test_a_serial_run_leaves_the_process_as_it_was(done: Project) -> None:
    with threadpool_limits(limits=2):
        environment, pools = dict(os.environ), threadpool_info()
        summary = melmill.run(done.pipeline, set={"gla.n_iter": 1}, until="gla", executor="serial")
        assert summary.as_dict()["tasks"]["run"]
        assert dict(os.environ) == environment
        assert [pool for pool in threadpool_info() if pool in pools] == pools


def test_until_runs_no_further_and_forgets_nothing(done: Project) -> None:
    done.run("--executor", "serial", "--until", "mel", "--set", "mel.n_mels=40")
    store = melmill.open(str(done.store))
    assert store["mel"]["11-1-0000"].shape[0] == 40
    assert store["admm"]["11-1-0000"].ndim == 1
    assert len(store.scores()) == 32


def test_new_utterances_make_new_shards_and_leave_the_old(done: Project) -> None:
    first = done.run("--executor", "serial")
    before = done.bytes()
    add_chapter(done.root, "dev-clean", "33", [flac(voice(1.0, 150.0, 9))])
    second = done.run("--executor", "serial")
    assert second["tasks"]["run"] == len(NODES) + 1
    assert second["tasks"]["reused"] == first["tasks"]["total"] - 1
    after = done.bytes()
    grown = {name for name in before if after.get(name) != before[name]}
    assert all(name.endswith("zarr.json") for name in grown), grown
    assert second["report"] != first["report"]
    assert "33-1-0000" in set(melmill.open(str(done.store)).scores()["utterance_id"])


def test_the_store_reads_back_what_was_made(finished: Project) -> None:
    store = melmill.open(str(finished.store))
    y, M, y_hat = (store[name]["22-1-0003"] for name in ("speech", "mel", "admm"))
    assert y.dtype == np.int16
    assert y_hat.dtype == np.float32
    assert y_hat.shape == y.shape
    np.testing.assert_array_equal(M, melmill.mel(y, preset="paper"))
    scores = store.scores()
    assert list(scores.columns[:5]) == ["utterance_id", "subset", "speaker_id", "node", "duration_s"]
    assert set(scores["node"]) == {"gla", "admm"}
    assert {"sc_db", "scm_db", "status_sc_db", "status_scm_db"} <= set(scores.columns)
    assert (scores["status_sc_db"] == "ok").all()
    assert "content_sha256" in store.utterances().columns


def test_two_tables_of_scores_of_one_node_stand_side_by_side(project: Project) -> None:
    more = "  more: {{uses: score, from: gla, against: speech, metrics: [lsd, sc]}}\n  report:"
    project.write(PIPELINE.replace("  report:", more).replace("from: scores,", "from: [scores, more],"))
    project.run("--executor", "serial")
    scores = melmill.open(str(project.store)).scores()
    assert len(scores) == 32
    of_gla = scores["node"] == "gla"
    assert (scores.loc[of_gla, "status_lsd_db"] == "ok").all()
    assert scores.loc[~of_gla, "lsd_db"].isna().all()
    assert "LSD [dB]" in project.called("report", str(project.store)).stdout


def test_an_utterance_longer_than_a_shard_and_an_all_silent_shard(project: Project) -> None:
    silent = flac(np.zeros(16000, dtype=np.int16))
    add_chapter(project.root, "dev-clean", "44", [flac(voice(7.5, 120.0, 3)), silent])
    answer = project.run("--executor", "serial", "--set", "max_quarantined=0.5")
    assert answer["quarantined"] == 1
    store = melmill.open(str(project.store))
    assert store["admm"]["44-1-0000"].shape == (120000,)
    with pytest.raises(KeyError, match="was quarantined at 'speech': silent"):
        store["admm"]["44-1-0001"]


def test_quarantine_names_the_reason_and_fails_the_run_above_the_threshold(project: Project) -> None:
    good = flac(voice(1.0, 140.0, 5))
    add_chapter(project.root, "test-clean", "55", [b"", good[: len(good) // 2], b"no audio at all"])
    allowed = ["--executor", "serial", "--set", "max_quarantined=20 %"]
    passed = project.run(*allowed)
    assert passed["quarantined"] == 3
    failed = project.called("run", str(project.pipeline), "--executor", "serial")
    assert failed.returncode == 1
    assert "3 of 19 utterances are in quarantine (15.8%), more than max_quarantined = 1.0% allows" in failed.stderr
    listed = json.loads(project.called("quarantine", str(project.store), "--json").stdout)["quarantined"]
    assert {row["utterance_id"]: row["node"] for row in listed} == {f"55-1-000{i}": "speech" for i in range(3)}
    assert any("empty" in row["reason"] for row in listed)
    shown = project.called("quarantine", str(project.store), "--detail").stdout
    assert "Traceback" in shown
    passed = project.run(*allowed)
    assert (passed["tasks"]["run"], passed["quarantined"]) == (0, 3)


@pytest.mark.parametrize("executor", ["serial", "dask"])
def test_too_many_in_quarantine_stop_the_run_at_once(project: Project, executor: str) -> None:
    # Bad files claim no length, so that the first shard has them all.
    add_chapter(project.root, "test-clean", "55", [b"no audio at all"] * 3)
    command = ["run", str(project.pipeline), "--executor", executor]
    stopped = project.called(*command)
    (error,) = [line for line in stopped.stderr.splitlines() if line.startswith("error:")]
    assert stopped.returncode == 1
    assert re.match(r"error: \d of 19 utterances are in quarantine \(\d+\.\d%\), more than max_quarantined", error)
    n_done = len(list(project.store.glob("*/*/records/*.json")))
    assert 0 < n_done < 20
    # It stops again before anything is done, and goes on where more is allowed.
    again = project.called(*command)
    assert (again.returncode, again.stdout) == (1, "")
    assert error in again.stderr or executor == "dask"
    assert len(list(project.store.glob("*/*/records/*.json"))) == n_done
    passed = project.run("--executor", "serial", "--set", "max_quarantined=20 %")
    assert (passed["tasks"]["reused"], passed["tasks"]["failed"], passed["quarantined"]) == (n_done, 0, 3)


def test_quarantined_utterances_are_retried_on_request(project: Project, undisturbed: dict[str, str]) -> None:
    victim = project.root / "dev-clean" / "11" / "1" / "11-1-0003.flac"
    good, before = victim.read_bytes(), victim.stat()
    plan = json.loads(project.called("plan", str(project.pipeline), "--json").stdout)
    assert plan["utterances"] == 16
    # The file goes bad after the plan: its catalogue was made while it was good.
    project.run("--executor", "serial", "--until", "speech")
    speech = melmill.open(str(project.store)).product(*_place(project, "speech"))
    for name in speech.record_names():
        speech.drop(name)
    victim.write_bytes(good[: len(good) // 2].ljust(len(good), b"x"))
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert project.run("--executor", "serial", "--set", "max_quarantined=1.0")["quarantined"] == 1
    victim.write_bytes(good)
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert project.run("--set", "max_quarantined=1.0")["tasks"]["run"] == 0
    retried = project.called("quarantine", str(project.store), "--retry", "--json")
    # all nodes lack it in that shard, and the report was made without it
    assert json.loads(retried.stdout)["dropped"] == len(NODES) + 1
    assert project.run("--executor", "serial")["quarantined"] == 0
    assert {name: digest for name, digest in project.bytes().items() if "/report/" not in name} == {
        name: digest for name, digest in undisturbed.items() if "/report/" not in name
    }


def test_records_say_with_what_they_were_computed(finished: Project) -> None:
    records = [json.loads(path.read_text()) for path in finished.store.glob("*/*/records/*.json")]
    assert records
    for record in records:
        assert record["versions"].keys() == {"python", "melmill", "numba", "numpy", "scipy", "torch", "zarr"}


@pytest.mark.parametrize("command", ["status", "report", "scores", "verify", "repair", "quarantine"])
def test_commands_on_a_store_answer(finished: Project, command: str) -> None:
    done = finished.called(command, str(finished.store))
    assert done.returncode == 0, done.stderr
    assert done.stdout
    missing = finished.called(command, str(finished.folder / "nowhere"))
    assert missing.returncode == 2
    assert "is not a store" in missing.stderr


def _place(project: Project, name: str) -> tuple[str, str]:
    entry = Store.open(str(project.store)).nodes[name]
    return entry.folder, entry.key
