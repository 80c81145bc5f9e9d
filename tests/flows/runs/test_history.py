"""Every run leaves its facts and its outcome, however it ends; and tags name runs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

import melmill
from melmill.flows.runs.history import remove_tag, runs_of, set_tag, tags_of
from melmill.storage.errors import DamagedData, StoreError
from melmill.storage.runs import RunRecord
from melmill.storage.store import Store
from melmill.storage.verify import repair, verify
from tests.flows.conftest import Project
from tests.flows.processes import running

SERIAL = ("--executor", "serial")


def last(project: Project) -> RunRecord:
    return runs_of(Store.open(str(project.store)))[-1]


def test_a_finished_run_leaves_all_that_it_did(finished: Project) -> None:
    run = last(finished)
    assert run.facts is not None
    assert run.outcome is not None
    assert (run.state, run.facts.executor, run.facts.overrides, run.facts.partial) == ("done", "serial", (), False)
    assert run.facts.command[1:] == ("run", str(finished.pipeline), "--json", *SERIAL)
    assert run.facts.versions["melmill"] == melmill.__version__
    assert run.manifest.pipeline["name"] == "test"
    assert (run.outcome.exit_code, run.outcome.utterances, run.outcome.quarantined) == (0, 16, 0)
    assert run.outcome.reason == ""
    n_shards = run.outcome.nodes["speech"].done
    assert n_shards > 3
    for name, node in run.outcome.nodes.items():
        assert (node.done, node.reused, node.failed) == (1 if name == "report" else n_shards, 0, 0)
        assert node.task_s > node.compute_s > 0


def test_scores_are_summed_up_with_intervals(finished: Project) -> None:
    store = melmill.open(str(finished.store))
    outcome, scores = last(finished).outcome, store.scores()
    assert outcome is not None
    assert {(one.scored, one.metric) for one in outcome.scores} == {
        (node, metric) for node in ("gla", "admm") for metric in ("sc_db", "scm_db")
    }
    for one in outcome.scores:
        values = scores.loc[scores["node"] == one.scored, one.metric].to_numpy()
        assert (one.n, one.n_failed, one.node) == (16, 0, f"scores[{one.scored}]")
        low, high = stats.t.interval(0.95, 15, values.mean(), stats.sem(values))
        expected = (values.mean(), low, high, values.std(ddof=1))
        assert (one.mean, one.low, one.high, one.std) == pytest.approx(expected, rel=1e-9)


def test_each_run_is_listed_and_says_what_it_reused(done: Project) -> None:
    done.run(*SERIAL, "--set", "gla.n_iter=3", "--until", "mel")
    melmill.run(done.pipeline, set={"gla.n_iter": 3}, executor="serial")
    done.run("--set", "gla.n_iter=3")
    first, until, python, repeated = runs_of(Store.open(str(done.store)))
    assert first.outcome is not None
    assert until.outcome is not None
    assert python.outcome is not None
    assert repeated.outcome is not None
    assert python.facts is not None
    assert repeated.facts is not None
    assert until.facts is not None
    n_shards = first.outcome.nodes["speech"].done
    assert (until.facts.partial, python.facts.partial) == (True, False)
    assert until.outcome.scores == ()
    assert python.facts.overrides == ("gla.n_iter=3",)
    assert (python.outcome.nodes["gla"].done, python.outcome.nodes["gla"].reused) == (n_shards, 0)
    assert (python.outcome.nodes["admm"].done, python.outcome.nodes["admm"].reused) == (0, n_shards)
    # A run with nothing to do says again how the scores are, without reading them.
    assert (repeated.state, repeated.facts.executor) == ("done", "dask")
    assert sum(node.done for node in repeated.outcome.nodes.values()) == 0
    assert repeated.outcome.scores == python.outcome.scores
    means = [{one.scored: one.mean for one in run.outcome.scores} for run in (first, python) if run.outcome]
    assert means[0]["admm"] == means[1]["admm"]
    assert means[0]["gla"] != means[1]["gla"]


def test_a_run_with_failed_tasks_says_so(project: Project) -> None:
    project.run(*SERIAL, "--until", "mel")
    victim = next(project.store.glob("mel/*/data/c/2/0"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    project.run(*SERIAL, expect=1)
    outcome = last(project).outcome
    assert outcome is not None
    assert (outcome.state, outcome.exit_code) == ("failed", 1)
    assert (outcome.nodes["gla"].failed, outcome.nodes["admm"].failed) == (1, 1)
    assert all(0 < one.n < 16 for one in outcome.scores)


def test_a_run_that_stops_early_says_why(project: Project) -> None:
    (project.root / "dev-clean" / "11" / "1" / "11-1-0000.flac").write_bytes(b"no audio at all")
    stopped = project.called("run", str(project.pipeline), *SERIAL)
    outcome = last(project).outcome
    assert outcome is not None
    assert (stopped.returncode, outcome.state, outcome.exit_code) == (1, "failed", 1)
    assert "are in quarantine" in outcome.reason
    assert (outcome.utterances, outcome.scores) == (None, ())
    assert outcome.nodes["speech"].quarantined == 1


def test_an_interrupted_run_says_so_and_a_killed_one_is_lost(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = (*SERIAL, "--set", f"admm.n_iter={10**6}")
    with running(project, *endless) as client:
        client.until(lambda: bool(list(project.store.glob("runs/*/state.json"))))
        with pytest.raises(StoreError, match=r"is still running: tag it when it is done"):
            set_tag(Store.open(str(project.store)), "now", last(project).run_id)
        refused = project.called("tag", str(project.store), "now")
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert "is still running: tag it when it is done" in refused.stderr
        assert last(project).state == "running"
        client.signal(signal.SIGINT)
        assert client.exit_code() == 130
    interrupted = last(project)
    assert interrupted.outcome is not None
    assert (interrupted.state, interrupted.outcome.exit_code) == ("interrupted", 130)
    with running(project, *endless) as client:
        client.until(lambda: len(list(project.store.glob("runs/*/state.json"))) == 2)
        client.process.kill()
        client.process.wait()
    assert last(project).outcome is None
    monkeypatch.setattr("melmill.storage.runs.SILENT_S", -1.0)
    assert last(project).state == "lost"
    assert "lost" in project.called("runs", str(project.store)).stdout


def test_the_commit_of_the_working_directory_is_kept(done: Project) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@y.z")
        command = ["git", "-C", str(done.folder), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    done.run(*SERIAL)
    facts = last(done).facts
    assert facts is not None
    assert (facts.git_commit, facts.git_dirty) == (None, None)
    git("init", "--quiet")
    git("add", "pipeline.yaml")
    git("commit", "--quiet", "--message", "one")
    for text, dirty in (("", False), ("# more\n", True)):
        done.pipeline.write_text(done.pipeline.read_text() + text)
        done.run(*SERIAL)
        facts = last(done).facts
        assert facts is not None
        assert (facts.git_commit, facts.git_dirty) == (git("rev-parse", "HEAD"), dirty)


def test_runs_of_an_older_version_are_listed(done: Project) -> None:
    done.run(*SERIAL)
    first, second = sorted((done.store / "runs").iterdir())
    for name in ("facts.json", "outcome.json"):
        (first / name).unlink()
        (second / name).unlink()
    # An older version left no manifest where the run before it said the same.
    (second / "manifest.json").unlink()
    (second / "state.json").write_bytes(
        (first / "state.json").read_bytes().replace(first.name.encode(), second.name.encode())
    )
    runs = runs_of(Store.open(str(done.store)))
    assert [(run.run_id, run.state, run.facts, run.outcome) for run in runs] == [
        (folder.name, "done", None, None) for folder in (first, second)
    ]
    assert runs[1].manifest == runs[0].manifest
    (first / "state.json").unlink()
    assert [run.state for run in runs_of(Store.open(str(done.store)))] == ["unknown", "done"]
    assert first.name in done.called("runs", str(done.store)).stdout
    assert "nothing is known of how it ended" in done.called("runs", "show", f"{done.store}@{first.name}").stdout


def test_tags_move_only_when_they_are_forced(done: Project) -> None:
    done.run(*SERIAL)
    store = Store.open(str(done.store))
    first, second = (run.run_id for run in runs_of(store))
    made = set_tag(store, "base", first)
    assert set_tag(store, "base", first) == made  # once more changes nothing
    with pytest.raises(StoreError, match=rf"tag 'base' .* means run '{first}' since .*: give --force to move it"):
        set_tag(store, "base", second)
    assert tags_of(store)["base"].run_id == first
    set_tag(store, "base", second, force=True)
    set_tag(store, "also", second)
    assert [run.tags for run in runs_of(store)] == [(), ("also", "base")]
    with pytest.raises(StoreError, match=r"has no tag 'bas'; did you mean 'base'\?"):
        remove_tag(store, "bas")
    remove_tag(store, "base")
    assert list(tags_of(store)) == ["also"]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a@b", "a:b", "-x", "..", "x" * 101, "20260101T000000000000"])
def test_names_that_no_tag_can_have(finished: Project, name: str) -> None:
    with pytest.raises(StoreError, match=r"^a tag .*got " + re.escape(repr(name))):
        set_tag(Store.open(str(finished.store)), name, last(finished).run_id)


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data.replace(b"20", b"21")])
def test_a_damaged_file_is_told_and_repaired(done: Project, damage: Callable[[bytes], bytes]) -> None:
    store = Store.open(str(done.store))
    set_tag(store, "base", last(done).run_id)
    folder = done.store / "runs" / last(done).run_id
    files = [folder / "facts.json", folder / "outcome.json", done.store / "tags" / "base.json"]
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedData, match=r"can't be parsed .* Run `melmill repair`"):
        runs_of(store)
    found = verify(store)
    assert sorted(one.file for one in found) == ["base.json", "facts.json", "outcome.json"]
    repair(store, found)
    assert (verify(store), last(done).state, tags_of(store)) == ([], "done", {})


def test_a_page_of_trends_that_fails_hides_no_outcome(done: Project) -> None:
    facts = done.store / "runs" / last(done).run_id / "facts.json"
    whole = facts.read_bytes()
    facts.write_bytes(whole[:-20])
    (note,) = done.run(*SERIAL, "--set", "gla.n_iter=3")["notes"]
    assert note.startswith("the page of trends can't be made anew: ")
    facts.write_bytes(whole)
    outcome = last(done).outcome
    assert outcome is not None
    assert outcome.scores != ()


def test_the_record_of_a_run_is_written_once(done: Project) -> None:
    run = last(done)
    assert run.facts is not None
    assert run.outcome is not None
    store = Store.open(str(done.store))
    store.publish_facts(run.facts)
    store.publish_outcome(run.outcome)
    with pytest.raises(StoreError, match=r"facts.json exists and holds other bytes"):
        store.publish_facts(type(run.facts)(run_id=run.run_id, started_at=run.facts.started_at))


def test_a_command_of_another_process_is_kept(done: Project, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import melmill\nmelmill.run({str(done.pipeline)!r}, executor='serial')\n")
    subprocess.run([sys.executable, str(script), "--night"], check=True, env=done.environment(), cwd=tmp_path)
    facts = last(done).facts
    assert facts is not None
    assert facts.command == (str(script), "--night")
    assert json.loads(json.dumps(last(done).as_dict()))["facts"]["command"] == [str(script), "--night"]
