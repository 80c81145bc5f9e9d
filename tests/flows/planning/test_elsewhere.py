"""`also:`: what another store of the project has done is read there, and nothing is written there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import melmill
from benchmarks.faults.comparing import differing_contents
from melmill import open as open_store
from melmill.flows.runs.copying import copy_runs
from melmill.flows.runs.prune import Rules, prune
from melmill.flows.runs.usage import usage
from melmill.flows.watching.serving.site import Shown
from melmill.pcm import as_float
from melmill.storage.arrays import ZSTD_CODECS
from melmill.storage.description import ProductDescription
from melmill.storage.store import Store
from melmill.storage.verify import verify
from tests.flows.conftest import Project, add_chapter, flac, voice

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 2}}
  scores: {{uses: score, from: gla, against: speech, metrics: [sc]}}
  report: {{uses: aggregate, from: scores, examples: 1}}
cluster: {{pools: {{cpu: {{workers: 2}}}}}}
"""
SERIAL = ("--executor", "serial")
LISTEN = ("--nodes", "gla", "--test", "mushra", "--n", "2", "-o", "test")
N_SHARDS = 2


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return the team's project after a run."""
    made = Project(tmp_path_factory.mktemp("team"))
    add_chapter(made.root, "dev-clean", "11", [flac(voice(0.8 + 0.1 * i, 110.0 + 10 * i, seed=i)) for i in range(5)])
    made.write(PIPELINE)
    made.run(*SERIAL)
    return made


@pytest.fixture
def team(ready: Project, tmp_path: Path) -> Project:
    """Return a copy of the team's project, to be changed."""
    made = Project(tmp_path / "team")
    shutil.copytree(ready.folder, made.folder)
    made.write(PIPELINE)
    return made


@pytest.fixture
def mine(team: Project, tmp_path: Path) -> Project:
    """Return a project of the same corpus, whose store is new and may read the team's."""
    made = Project(tmp_path / "mine")
    made.folder.mkdir()
    made.root = team.root
    made.write(PIPELINE.replace("stages:", f"also: [{team.store}]\nstages:"))
    return made


def files(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_what_the_team_has_done_is_read_there(team: Project, mine: Project) -> None:
    before = files(team.store)
    planned = json.loads(mine.called("plan", str(mine.pipeline), "--json").stdout)
    assert planned["tasks"] == {"total": 9, "run": 1, "reused": 8}
    assert any(note == f"mel: {N_SHARDS} done in {team.store}, read there" for note in planned["notes"])
    assert not mine.store.exists()
    # The report is made here, of what lies there.
    assert mine.run(*SERIAL)["tasks"] == {"total": 9, "run": 1, "reused": 8, "failed": 0}
    assert files(team.store) == before
    assert not list(mine.store.rglob("data/c/*"))
    store = Store.open(str(mine.store))
    assert verify(store) == []
    assert store.format == 5
    assert differing_contents(str(mine.store), team.store) == {}
    reports = [
        {name.partition("/report/")[2]: data for name, data in files(one.store).items() if "/report/" in name}
        for one in (mine, team)
    ]
    assert reports[0].keys() == reports[1].keys()
    # Now it is its own, and needs to be told no more.
    assert mine.run(*SERIAL)["tasks"]["run"] == 0
    mine.write(PIPELINE)
    assert mine.run(*SERIAL)["tasks"]["run"] == 0


def test_python_names_such_a_store_too(team: Project, mine: Project) -> None:
    mine.write(PIPELINE)
    tasks = melmill.run(mine.pipeline, also=[team.store], executor="serial").tasks
    assert (tasks.run, tasks.reused) == (1, 8)


def test_parts_are_read_there(team: Project, mine: Project) -> None:
    mine.run(*SERIAL)
    ours, theirs = open_store(str(mine.store)), open_store(str(team.store))
    for node in ("speech", "mel", "gla"):
        for name, array in theirs[node].items():
            assert (ours[node].part(name, slice(3, 9)) == array[..., 3:9] if array.ndim == 1 else array[3:9]).all() or (
                ours[node].part(name, slice(3, 9)) == theirs[node].part(name, slice(3, 9))
            ).all()
    assert ours.scores().equals(theirs.scores())


def test_players_comparisons_gates_and_tests_find_what_lies_there(team: Project, mine: Project) -> None:
    summary = mine.run(*SERIAL)
    pages = [Path(one).read_text() for one in (summary["report"], team.run(*SERIAL)["report"])]
    players = [re.findall(r'<audio [^>]*src="([^"]+)"', page) for page in pages]
    assert players[0] == players[1] != []
    # Another method here is compared with the one there, with players of both.
    mine.run(*SERIAL, "--set", "gla.n_iter=3")
    first = Store.open(str(mine.store)).run_ids()[0]
    for b in (f"{mine.store}@{first}", str(team.store)):
        found = melmill.compare(mine.store, b)
        (test,) = found.as_dict()["tests"]
        assert (test["n"], found.comparison.not_comparable) == (5, ())
        examples, problems = found.examples()
        assert problems == []
        for _, example in examples:
            wanted = open_store(str(team.store))["gla"][example.utterance_id]
            assert (example.reconstructions["B: gla"] == as_float(wanted)).all()
            assert example.reference.size
    assert len(found.examples()[0]) > 0
    (mine.folder / "gate.yaml").write_text("rules: [{metric: sc, not_worse_than: 9}, {disk: 1, node: mel}]")
    assert mine.called("gate", f"{mine.store}@{first}", "--rules", "gate.yaml", "--baseline", first).returncode == 0
    made = [Shown(store=Store.open(str(one.store)), name="0").audio("speech", "11-1-0003") for one in (mine, team)]
    assert made[0] == made[1]
    for one in (mine, team):
        one.called("listen", f"{one.store}@{first}" if one is mine else str(one.store), *LISTEN)
    heard = [files(one.folder / "test") for one in (mine, team)]
    assert {name: data for name, data in heard[0].items() if "trials" in name} == {
        name: data for name, data in heard[1].items() if "trials" in name
    }
    assert "index.html" in heard[0]


def test_all_may_lie_there(team: Project, mine: Project) -> None:
    tasks = mine.run(*SERIAL, "--until", "scores")["tasks"]
    assert (tasks["run"], tasks["reused"]) == (0, 8)
    assert open_store(str(mine.store)).scores().equals(open_store(str(team.store)).scores())
    assert verify(Store.open(str(mine.store))) == []


def test_files_in_other_codecs_are_not_copied_as_if_in_ours(team: Project, mine: Project) -> None:
    mine.run(*SERIAL)
    (path,) = mine.store.glob("mel/*/node.json")
    # As if an older version had begun it here.
    older = ProductDescription.from_json(path.read_bytes()).with_codecs(ZSTD_CODECS)
    path.write_bytes(older.to_json())
    assert len(open_store(str(mine.store))["mel"]["11-1-0003"])
    source = Store.open(str(mine.store))
    done = copy_runs(source, str(mine.folder / "copy"), source.runs()[-1:])
    assert len(done.problems) == N_SHARDS
    assert f"are in other codecs in {team.store}" in done.problems[0]
    assert verify(Store.open(str(mine.folder / "copy"))) == []


def test_another_method_is_computed_here_on_workers(team: Project, mine: Project) -> None:
    before = files(team.store)
    tasks = mine.run("--set", "gla.n_iter=3")["tasks"]
    assert tasks == {"total": 9, "run": 5, "reused": 4, "failed": 0}
    assert files(team.store) == before
    team.run(*SERIAL, "--set", "gla.n_iter=3")
    assert differing_contents(str(mine.store), team.store) == {}


def test_a_corpus_that_grew_here(team: Project, mine: Project) -> None:
    root = mine.folder / "corpus"
    shutil.copytree(team.root, root)
    mine.root = root
    mine.write(PIPELINE.replace("stages:", f"also: {team.store}\nstages:"))
    add_chapter(root, "dev-clean", "11", [flac(voice(0.9, 150.0, seed=9))])
    tasks = mine.run(*SERIAL)["tasks"]
    assert tasks == {"total": 13, "run": 5, "reused": 8, "failed": 0}
    # There it grew otherwise, so that the new shards are others.
    add_chapter(team.root, "dev-clean", "11", [flac(voice(0.7, 250.0, seed=8))])
    team.run(*SERIAL)
    assert mine.run(*SERIAL, "--set", "gla.n_iter=3")["tasks"]["run"] == 7
    alone = Project(mine.folder / "alone")
    alone.folder.mkdir()
    alone.root = root
    alone.write(PIPELINE)
    alone.run(*SERIAL, "--set", "gla.n_iter=3")
    assert differing_contents(str(mine.store), alone.store) == {}


def test_other_catalogues_share_nothing(team: Project, mine: Project) -> None:
    mine.write(PIPELINE)
    root = mine.folder / "half"
    shutil.copytree(team.root, root)
    next(root.rglob("*-0000.flac")).unlink()
    mine.root = root
    mine.write(PIPELINE)
    mine.run(*SERIAL, "--until", "mel")
    mine.root = team.root
    mine.write(PIPELINE)
    tasks = mine.run(*SERIAL, "--also", str(team.store))["tasks"]
    assert tasks["reused"] == 2 * N_SHARDS
    assert verify(Store.open(str(mine.store))) == []


def test_what_the_team_removes_is_made_here(team: Project, mine: Project) -> None:
    mine.run(*SERIAL)
    gone = next(iter((team.store / "mel").glob("*/data")))
    shutil.rmtree(gone)
    damages = verify(Store.open(str(mine.store)))
    assert {damage.node for damage in damages} == {"mel"}
    assert all(str(team.store) in damage.problem for damage in damages)
    assert mine.called("verify", str(mine.store)).returncode == 1
    mine.called("repair", str(mine.store))
    shutil.rmtree(team.store)
    mine.write(PIPELINE)
    assert mine.run(*SERIAL)["tasks"]["run"] == 9 - 1
    assert verify(Store.open(str(mine.store))) == []


def test_du_prune_and_copy_tell_them_apart(team: Project, mine: Project) -> None:
    mine.run(*SERIAL)
    used = usage(Store.open(str(mine.store)))
    assert sum(one.n_elsewhere for one in used.products) == 4 * N_SHARDS
    assert {one.node for one in used.products if one.n_records} == {"report"}
    assert "further records are of files in other stores" in mine.called("du", str(mine.store)).stdout
    before = files(team.store)
    mine.run(*SERIAL, "--set", "gla.n_iter=3")
    gone = prune(Store.open(str(mine.store)), Rules(keep=1, grace_s=0.0)).deleted
    assert sorted(one.node for one in gone) == ["gla", "report", "scores"]
    assert files(team.store) == before
    source = Store.open(str(mine.store))
    copy_runs(source, str(mine.folder / "copy"), source.runs()[-1:], with_runs=True)
    shutil.rmtree(team.store)
    copied = Store.open(str(mine.folder / "copy"))
    assert verify(copied) == []
    assert len(copied["gla"]) == 5


@pytest.mark.parametrize(
    ("also", "said"),
    [
        ("{mine}", "is the pipeline's own store: name another one"),
        ("{other}", "is the store of project 'other', not of 'test': name a store of the same project"),
        ("{none}", "is not a store: it has no melmill.json"),
        ("", "also must be a path or URL, got ''"),
    ],
)
def test_a_wrong_store_is_one_line(team: Project, mine: Project, also: str, said: str) -> None:
    Store.create(str(mine.folder / "other"), "other")
    mine.write(PIPELINE)
    mine.run(*SERIAL, "--until", "speech")
    place = also.format(mine=mine.store, other=mine.folder / "other", none=mine.folder / "none")
    done = mine.called("run", str(mine.pipeline), *SERIAL, "--also", place)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
