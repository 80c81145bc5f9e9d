"""`melmill runs` and `melmill tag`: what they print, and what they say of wrong arguments."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.cli.test_startup import loaded_after
from tests.flows.conftest import Project, make_project


@pytest.fixture(scope="module")
def history(
    finished: Project, tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]
) -> Project:
    """Return a project with two runs, the first of them tagged."""
    made = make_project(tmp_path_factory.mktemp("history"), corpus_files)
    shutil.copytree(finished.store, made.store)
    made.called("tag", str(made.store), "base")
    made.run("--executor", "serial", "--set", "gla.n_iter=3", "--set", "stages.admm.rho=0.2", "--until", "scores")
    return made


def runs(project: Project) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(project.called("runs", str(project.store), "--json").stdout)["runs"]
    return listed


def test_runs_are_listed(history: Project) -> None:
    first, second = runs(history)
    assert (first["tags"], second["tags"]) == (["base"], [])
    assert first["outcome"]["state"] == second["state"] == "done"
    assert second["facts"]["overrides"] == ["gla.n_iter=3", "stages.admm.rho=0.2"]
    shown = history.called("runs", str(history.store), "--metric", "scm").stdout
    assert [shown.count(run["run"]) for run in (first, second)] == [1, 1]
    for run in (first, second):
        for score in run["outcome"]["scores"]:
            assert (f"{score['mean']:.4g} ±" in shown) == (score["metric"] == "scm_db")
    assert first["run"] not in history.called("runs", str(history.store), "--last", "1").stdout


def test_several_stores_are_listed(history: Project, finished: Project) -> None:
    shown = history.called("runs", str(history.store), str(finished.store))
    assert [shown.stdout.count(str(store)) for store in (history.store, finished.store)] == [1, 1]
    both = json.loads(history.called("runs", str(history.store), str(finished.store), "--json").stdout)["runs"]
    assert [Path(run["store"]) for run in both] == [history.store, history.store, finished.store]


def test_listing_loads_no_heavy_package(history: Project) -> None:
    for command in (["runs"], ["runs", "show"], ["tag"]):
        said, loaded = loaded_after(history, *command, str(history.store))
        assert said
        assert loaded == []


def test_a_run_is_shown(history: Project) -> None:
    shown = history.called("runs", "show", f"{history.store}@base").stdout
    run = runs(history)[0]
    for text in (run["run"], "tags:       base", "state:      done", "16, 0 quarantined", run["nodes"]["gla"]["key"]):
        assert text in shown
    assert json.loads(history.called("runs", "show", f"{history.store}@base", "--json").stdout)["run"] == run["run"]


def test_the_pipeline_of_a_run_can_be_run_again(history: Project, tmp_path: Path) -> None:
    text = history.called("runs", "show", str(history.store), "--pipeline").stdout
    assert yaml.safe_load(text)["stages"]["gla"]["n_iter"] == 3
    (tmp_path / "again.yaml").write_text(text)
    again = history.called("plan", str(tmp_path / "again.yaml"), "--until", "scores", "--json")
    assert json.loads(again.stdout)["tasks"]["run"] == 0


def test_a_difference_says_why(history: Project) -> None:
    command = ("runs", "diff", f"{history.store}@base", str(history.store))
    found = json.loads(history.called(*command, "--json").stdout)
    fields = {one["name"]: (one["before"], one["after"]) for one in found["fields"]}
    # The first run was in another folder.
    assert fields.keys() - {"store", "stages.speech.root"} == {"stages.gla.n_iter", "stages.admm.rho"}
    assert (fields["stages.gla.n_iter"], fields["stages.admm.rho"]) == ((2, 3), (None, 0.2))
    nodes = {one["node"]: (one["change"], one["reasons"]) for one in found["nodes"]}
    assert nodes == {
        "gla": ("changed", ["n_iter 2 -> 3"]),
        "admm": ("changed", ["rho 0.1 -> 0.2"]),
        "scores[gla]": ("changed", ["input gla differs"]),
        "scores[admm]": ("changed", ["input admm differs"]),
    }
    assert found["n_same"] == 3  # the recordings, the mels, and the report that the second run left out
    shown = history.called(*command).stdout
    for text in ("stages.gla.n_iter", "n_iter 2 -> 3", "3 nodes mean the same products in both"):
        assert text in shown


def test_a_difference_of_stages_nodes_and_shards(history: Project, tmp_path: Path) -> None:
    other = Project(tmp_path)
    other.root = history.root
    text = history.pipeline.read_text().replace("shard_duration_s: 3", "shard_duration_s: 60")
    text = text.replace("uses: griffin_lim, from: mel, n_iter: 2", "uses: pghi, from: mel")
    text = (
        text.replace("  admm:", "  more:")
        .replace("[gla, admm]", "[gla, more]")
        .replace(str(history.store), str(other.store))
    )
    other.pipeline.write_text(text)
    other.run("--executor", "serial", "--until", "gla")
    found = json.loads(history.called("runs", "diff", f"{history.store}@base", str(other.store), "--json").stdout)
    nodes = {one["node"]: (one["change"], one["reasons"]) for one in found["nodes"]}
    assert nodes["speech"] == ("changed", ["shard_duration_s 3 -> 60"])
    assert nodes["mel"] == ("changed", ["input speech differs"])
    assert nodes["gla"][1][0] == "stage griffin_lim -> pghi"
    assert nodes["admm"][0] == "removed"


def test_tags_by_command(done: Project) -> None:
    store = str(done.store)
    (run,) = runs(done)
    assert "has no tags" in done.called("tag", store).stdout
    assert done.called("tag", store, "base").stdout == f"base: run {run['run']}\n"
    assert done.called("tag", store, run["run"][:8], "too").returncode == 0
    assert done.called("tag", store, "base", "three").returncode == 0  # a tag names a run too
    assert done.called("tag", f"{store}@base", "four").returncode == 0
    listed = json.loads(done.called("tag", store, "--json").stdout)["tags"]
    assert {one["name"]: one["run_id"] for one in listed} == dict.fromkeys(("base", "four", "three", "too"), run["run"])
    assert all("@" in one["by"] for one in listed)
    assert done.called("tag", store, "--remove", "too").returncode == 0
    done.run("--executor", "serial")
    refused = done.called("tag", store, "base")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert f"tag 'base' of store '{store}' means run '{run['run']}'" in refused.stderr
    moved = json.loads(done.called("tag", store, "base", "--force", "--json").stdout)["tag"]
    assert moved["run_id"] == runs(done)[1]["run"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("runs", "--json"), "Missing argument 'STORE...'"),
        (("runs", "{store}x"), "is not a store"),
        (("runs", "{store}", "--metric", "sc_bd"), "did you mean 'sc_db'?"),
        (("runs", "show", "{store}@bass"), "has no tag or run 'bass'; did you mean 'base'?"),
        (("runs", "show", "{store}:glaa"), "has no node 'glaa'; did you mean 'gla'?"),
        (("runs", "show", "{store}:gla"), "which names the node 'gla': leave it out"),
        (("runs", "diff", "{store}", "{store}:gla"), "which names the node 'gla': leave it out"),
        (("runs", "diff", "{store}", "{store}@"), "has no run or tag: expected STORE, STORE@TAG"),
        (("tag", "{store}", "a", "b", "c"), "expected STORE [RUN] NAME"),
        (("tag", "{store}", "a b"), "got 'a b'"),
        (("tag", "{store}", "2025", "new"), "has no tag or run '2025'"),
        (("tag", "{store}", "--remove", "bass"), "has no tag 'bass'; did you mean 'base'?"),
        (("tag", "{store}@base:gla", "new"), "expected a store"),
    ],
)
def test_wrong_arguments_get_one_line(history: Project, arguments: tuple[str, ...], message: str) -> None:
    answer = history.called(*(one.format(store=history.store) for one in arguments))
    assert (answer.returncode, answer.stdout) == (2, "")
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
