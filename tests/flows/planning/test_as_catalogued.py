"""A plan of what is catalogued asks nothing of the corpus."""

from __future__ import annotations

import json
import shutil

import pytest

import melmill
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import Plan, make_plan
from melmill.storage.catalogue import Catalogue
from melmill.storage.files.sources import SourceTree
from tests.flows.conftest import Project, add_chapter, flac, voice

SERIAL = ("--executor", "serial")


def shards(plan: Plan) -> dict[str, tuple[int, set[int], dict[str, int]]]:
    return {name: (node.n_shards, set(node.pending), dict(node.reasons)) for name, node in plan.nodes.items()}


def test_it_plans_what_a_look_at_an_unchanged_corpus_plans(done: Project) -> None:
    store = done.store
    for record in [*(store / "gla").glob("*/records/000002.json"), *(store / "mel").glob("*/records/000001.json")]:
        record.unlink()
    looked, stored = (make_plan(load(done.pipeline), as_catalogued=how) for how in (False, True))
    assert shards(stored) == shards(looked)
    assert stored.n_pending == 2
    assert stored.catalogues["speech"].digest == looked.catalogues["speech"].digest
    assert "speech: taken as catalogued; its corpus was not looked at" in stored.notes


def test_a_corpus_that_is_not_there_is_not_missed_by_what_is_ingested(done: Project) -> None:
    shutil.rmtree(done.root)
    for record in (done.store / "gla").glob("*/records/*.json"):
        record.unlink()
    assert done.run(*SERIAL, "--as-catalogued")["tasks"]["run"] > 0
    assert done.run(*SERIAL, "--as-catalogued")["tasks"]["run"] == 0
    refused = done.called("run", str(done.pipeline), *SERIAL)
    assert (refused.returncode, "no corpus at" in refused.stderr) == (2, True)


def test_new_files_wait_for_another_run(done: Project) -> None:
    add_chapter(done.root, "dev-clean", "33", [flac(voice(1.0, 150.0, seed=9))])
    assert json.loads(done.called("plan", str(done.pipeline), "--as-catalogued", "--json").stdout)["tasks"]["run"] == 0
    assert json.loads(done.called("plan", str(done.pipeline), "--json").stdout)["tasks"]["run"] > 0


def test_no_catalogue_is_one_error(project: Project) -> None:
    refused = project.called("run", str(project.pipeline), *SERIAL, "--as-catalogued")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "pipeline.yaml:5: node 'speech': no catalogue of its corpus is stored in" in refused.stderr
    assert "Leave out --as-catalogued once" in refused.stderr
    assert not project.store.exists()


def test_following_needs_a_look(done: Project) -> None:
    refused = done.called("plan", str(done.pipeline), "--as-catalogued", "--follow")
    assert refused.returncode == 2
    assert "--follow looks at the corpora, and --as-catalogued does not: give one of them" in refused.stderr


def test_python_has_it_too(done: Project) -> None:
    shutil.rmtree(done.root)
    assert melmill.run(done.pipeline, executor="serial", as_catalogued=True).tasks.run == 0
    with pytest.raises(melmill.Error, match="as_catalogued must be True or False, got 'yes'"):
        melmill.run(done.pipeline, as_catalogued="yes")  # type: ignore[arg-type]
    with pytest.raises(melmill.Error, match="as_catalogued can't be True with follow, which looks at the corpora"):
        melmill.run(done.pipeline, as_catalogued=True, follow=True)


def test_neither_corpus_nor_rows_are_read(done: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*arguments: object) -> None:
        raise AssertionError("was read")

    monkeypatch.setattr(SourceTree, "walk", read)
    monkeypatch.setattr(Catalogue, "pieces", read)
    plan = make_plan(load(done.pipeline), until="scores", as_catalogued=True)
    assert (plan.n_pending, plan.n_utterances) == (0, 16)
    assert run(plan, "serial", partial=True).tasks.run == 0
