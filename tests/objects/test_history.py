"""The history of a store of objects: runs and tags are what they are on a disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from melmill.flows.runs.history import runs_of, set_tag, tags_of
from melmill.storage.errors import StoreError
from melmill.storage.store import Store
from tests.flows.conftest import Project, add_chapter, flac, voice
from tests.objects.test_runs import PIPELINE, melmill


@pytest.fixture
def project(bucket: str, tmp_path: Path) -> Project:
    """Return a project whose store is in a bucket, after two runs."""
    made = Project(tmp_path)
    add_chapter(made.root, "dev-clean", "11", [flac(voice(1.0, 110.0, seed=i)) for i in range(3)])
    made.pipeline.write_text(PIPELINE.format(store=f"{bucket}/a@b/store", root=made.root))
    for n_iter in (1, 2):
        melmill("run", str(made.pipeline), "--executor", "serial", "--set", f"gla.n_iter={n_iter}")
    return made


def test_runs_and_tags_of_objects(project: Project, bucket: str) -> None:
    url = f"{bucket}/a@b/store"
    store = Store.open(url)
    first, second = runs_of(store)
    assert (first.state, second.state) == ("done", "done")
    assert first.outcome is not None
    assert [(one.scored, one.metric, one.n) for one in first.outcome.scores] == [("gla", "sc_db", 3)]
    melmill("tag", f"{url}@{first.run_id}", "base")
    with pytest.raises(StoreError, match="give --force to move it"):
        set_tag(store, "base", second.run_id)
    set_tag(store, "base", second.run_id, force=True)
    assert {name: tag.run_id for name, tag in tags_of(store).items()} == {"base": second.run_id}
    listed = json.loads(melmill("runs", url, "--json").stdout)["runs"]
    assert [(run["run"], run["tags"]) for run in listed] == [(first.run_id, []), (second.run_id, ["base"])]
    shown = json.loads(melmill("runs", "diff", f"{url}@{first.run_id}", f"{url}@base", "--json").stdout)
    assert {one["node"]: one["reasons"] for one in shown["nodes"]}["gla"] == ["n_iter 1 -> 2"]
    melmill("tag", url, "--remove", "base")
    assert tags_of(store) == {}
