"""A corpus that is repaired, and what its store must be like after that."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import melmill
from melmill.storage.catalogue import Catalogue
from melmill.storage.store import Store
from tests.flows.conftest import Project

SERIAL = ("--executor", "serial", "--set", "max_quarantined=1.0")
FOLLOW = (*SERIAL, "--follow")
FOLDER = "dev-clean/11/1"
# Node by node: what a table of a run is sorted by.
SCORED = ["node", "utterance_id"]


def file(project: Project, number: int) -> Path:
    return project.root / FOLDER / f"11-1-{number:04d}.flac"


def name(number: int) -> str:
    return f"11-1-{number:04d}"


def refused(project: Project, *arguments: str) -> str:
    done = project.called("run", str(project.pipeline), *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


def corpus(project: Project) -> Catalogue:
    store = Store.open(str(project.store))
    return store.catalogue_of(store.nodes["speech"])


def tables(store: Path) -> dict[str, pd.DataFrame]:
    """Return all tables of a store's last run, in an order of their own."""
    opened = melmill.open(str(store))
    utterances = opened.utterances().drop(columns=["shard", "slot", "n_slots", "start", "mtime_ns"])
    return {
        "scores": opened.scores().sort_values(SCORED, ignore_index=True),
        "traces": opened.traces().sort_values([*SCORED, "iteration"], ignore_index=True),
        "quarantine": opened.quarantine().sort_values(SCORED, ignore_index=True).drop(columns="detail"),
        "utterances": utterances.sort_values(SCORED, ignore_index=True),
    }


def reported(project: Project, store: Path) -> dict[str, object]:
    """Return the lines of each table of a store's last report, sorted."""
    answer = json.loads(project.called("report", str(store), "--json").stdout)
    folder = Path(answer["report"]).parent
    lines = {path.name: sorted(path.read_text().splitlines()) for path in folder.glob("*.csv")}
    # It says how long everything took.
    timed = lines.pop("throughput.csv")
    counts = [Counter(line.split(",")[0] for line in timed)]
    return {**lines, "nodes": counts}


def check_as_fresh(project: Project, notes: Sequence[str] = ()) -> None:
    """Check that a followed store shows what a new store of the same corpus shows, and these notes."""
    fresh = project.folder / "fresh"
    project.run(*SERIAL, "--store", str(fresh))
    for (what, followed), expected in zip(tables(project.store).items(), tables(fresh).values(), strict=True):
        pd.testing.assert_frame_equal(followed, expected, check_dtype=False, obj=what)
    assert reported(project, project.store) == reported(project, fresh)
    mine, theirs = melmill.open(str(project.store)), melmill.open(str(fresh))
    for node in ("speech", "mel", "gla", "admm"):
        assert set(mine[node]) == set(theirs[node])
        assert all(np.array_equal(mine[node][one], theirs[node][one]) for one in theirs[node])
    status = [
        {
            node["node"]: (node["quarantined"], round(node["audio_s"], 6), node["done"] == node["shards"])
            for node in nodes
        }
        for nodes in (
            json.loads(project.called("status", str(store), "--json").stdout)["nodes"]
            for store in (project.store, fresh)
        )
    ]
    assert status[0] == status[1]
    plans = [
        json.loads(project.called("plan", str(project.pipeline), "--store", str(store), "--json").stdout)
        for store in (project.store, fresh)
    ]
    assert plans[0]["utterances"] == plans[1]["utterances"]
    assert [made["tasks"]["run"] for made in plans] == [0, 0]
    assert [made["notes"] for made in plans] == [[*notes], [*notes]]
    assert project.called("verify", str(project.store)).returncode == 0


def kept(project: Project, before: dict[str, str]) -> None:
    """Check that no file of before has changed, but for arrays' metadata, which grow."""
    now = project.bytes()
    assert {one: now.get(one) for one in before if not one.endswith(("zarr.json", "melmill.json"))} == {
        one: digest for one, digest in before.items() if not one.endswith(("zarr.json", "melmill.json"))
    }
