"""`melmill copy`: another store gets products, and a run there finds them done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

import melmill
from melmill import open as open_store
from melmill.flows.runs.copying import copy_runs
from melmill.flows.runs.history import set_tag
from melmill.flows.runs.prune import Rules, prune
from melmill.storage.errors import StoreError
from melmill.storage.store import Store
from melmill.storage.verify import verify
from tests.flows.conftest import NODES, Project, add_chapter, flac, voice

SERIAL = ("--executor", "serial")


@pytest.fixture
def target(done: Project, tmp_path: Path) -> Project:
    """Return a project of the same corpus whose store does not exist."""
    made = Project(tmp_path / "other")
    made.folder.mkdir()
    made.root = done.root
    made.pipeline.write_text(done.pipeline.read_text().replace(str(done.store), str(made.store)))
    return made


def copied(done: Project, target: Project, *arguments: str, expect: int = 0) -> dict[str, object]:
    called = done.called("copy", str(done.store), str(target.store), "--json", *arguments)
    assert called.returncode == expect, called.stderr
    answer: dict[str, object] = json.loads(called.stdout)
    return answer


def test_a_run_there_finds_all_done(done: Project, target: Project) -> None:
    answer = copied(done, target)
    assert answer["problems"] == []
    assert answer["there"] == 0
    store = Store.open(str(target.store))
    assert verify(store) == []
    assert store.project == "test"
    assert not dict(store.nodes)
    assert target.bytes() == done.bytes()
    assert target.run(*SERIAL)["tasks"]["run"] == 0
    again = copied(done, target)
    assert (again["records"], again["there"]) == (0, answer["records"])


def test_some_nodes_bring_their_catalogue(done: Project, target: Project) -> None:
    plain = done.run(*SERIAL)["tasks"]["total"]
    answer = copied(done, target, "--nodes", "mel, admm")
    store = Store.open(str(target.store))
    assert sorted({node for (node, _), _ in store.products()}) == ["admm", "mel", "speech"]
    assert verify(store) == []
    tasks = target.run(*SERIAL)["tasks"]
    assert tasks == {
        "total": plain,
        "run": plain - int(str(answer["records"])),
        "reused": answer["records"],
        "failed": 0,
    }
    assert target.bytes() == done.bytes()


def test_the_record_of_a_run_gives_names_their_meaning(done: Project, target: Project) -> None:
    first = Store.open(str(done.store)).runs()[-1].run_id
    set_tag(Store.open(str(done.store)), "base", first)
    done.run(*SERIAL, "--set", "gla.n_iter=3")
    called = done.called("copy", f"{done.store}@base:gla", str(target.store), "--with-run")
    assert called.returncode == 0, called.stderr
    assert "were there" in called.stdout
    mine, theirs = open_store(str(target.store)), open_store(str(done.store)).at(first)
    assert [run.run_id for run in mine.runs()] == [first]
    assert sorted(mine["gla"]) == sorted(theirs["gla"])
    assert all((mine["gla"][name] == y).all() for name, y in theirs["gla"].items())
    assert mine.runs()[0].outcome == theirs.runs()[0].outcome
    # What the run means is not pruned there.
    assert prune(mine, Rules(grace_s=0)).deleted == ()


def test_what_is_not_copied_is_not_compared(done: Project, target: Project) -> None:
    copied(done, target, "--nodes", "speech,gla,scores[gla]", "--with-run")
    found = melmill.compare(done.store, target.store).comparison
    assert found.overall["node"].unique().tolist() == ["gla"]
    (note,) = found.not_comparable
    assert note.startswith(f"{target.store} has nothing of node 'scores[admm]' any more")


def test_all_runs(done: Project, target: Project) -> None:
    done.run(*SERIAL, "--set", "gla.n_iter=3")
    copied(done, target, "--all", "--with-run")
    assert target.bytes() == done.bytes()
    mine, theirs = (Store.open(str(one.store)) for one in (target, done))
    assert [run.run_id for run in mine.runs()] == [run.run_id for run in theirs.runs()]
    assert dict(mine.nodes) == dict(theirs.nodes)
    assert list(mine.nodes)[: len(NODES)] == NODES


def test_a_copy_that_is_killed_goes_on(done: Project, target: Project) -> None:
    source = Store.open(str(done.store))
    n_kills = 0
    for nth in (1, 6, 40, 90, 150, 300, 500):
        pid = os.fork()
        if not pid:
            left = [nth]

            def count(event: str, _: object, left: list[int] = left) -> None:
                if event in ("os.remove", "os.rename", "os.link"):
                    left[0] -= 1
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            try:
                copy_runs(source, str(target.store), source.runs())
            finally:
                os._exit(0)
        n_kills += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        if (target.store / "melmill.json").exists():
            assert verify(Store.open(str(target.store))) == [], nth
    assert n_kills >= 3
    copied(done, target)
    # Hidden files of the killed are not results.
    mine = {name: sha for name, sha in target.bytes().items() if not Path(name).name.startswith(".")}
    assert mine == done.bytes()
    assert target.run(*SERIAL)["tasks"]["run"] == 0


def test_damage_is_not_copied(done: Project, target: Project) -> None:
    files = [one for one in (done.store / "mel").rglob("data/c/**/*") if one.is_file()]
    data = bytearray(files[0].read_bytes())
    data[len(data) // 2] ^= 1
    files[0].write_bytes(bytes(data))
    answer = copied(done, target, expect=1)
    assert len(answer["problems"]) == 1  # type: ignore[arg-type]
    assert "has checksum" in str(answer["problems"])
    assert verify(Store.open(str(target.store))) == []
    assert target.run(*SERIAL)["tasks"]["run"] == 1


def test_another_catalogue_is_refused(done: Project, target: Project, tmp_path: Path) -> None:
    # The target ran when the corpus had half of its files, so that its shards are others.
    root = tmp_path / "half"
    shutil.copytree(done.root, root)
    shutil.rmtree(root / "dev-clean" / "22")
    target.pipeline.write_text(target.pipeline.read_text().replace(str(done.root), str(root)))
    target.run(*SERIAL, "--until", "mel")
    with pytest.raises(StoreError, match="has another catalogue of speech/"):
        copy_runs(Store.open(str(done.store)), str(target.store), Store.open(str(done.store)).runs())
    assert verify(Store.open(str(target.store))) == []


def test_a_corpus_that_grew_is_copied_after(done: Project, target: Project) -> None:
    copied(done, target)
    add_chapter(done.root, "dev-clean", "11", [flac(voice(0.9, 150.0, seed=9))])
    done.run(*SERIAL)
    answer = copied(done, target)
    assert int(str(answer["records"])) > 0
    assert target.run(*SERIAL)["tasks"]["run"] == 0
    # A store that is behind gives what it has.
    copied(target, done)
    assert verify(Store.open(str(target.store))) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "mell"], "has no node 'mell' to copy; did you mean 'mel'?"),
        (["--nodes", " , "], "must name a node"),
    ],
)
def test_bad_usage_is_one_line(done: Project, target: Project, arguments: list[str], said: str) -> None:
    called = done.called("copy", str(done.store), str(target.store), *arguments)
    assert called.returncode == 2
    assert said in called.stderr
    assert called.stderr.count("\n") == 1
    assert not target.store.exists()


def test_the_wrong_target_is_one_line(done: Project, target: Project) -> None:
    Store.create(str(target.store), "another")
    called = done.called("copy", str(done.store), str(target.store))
    assert (called.returncode, called.stderr.count("\n")) == (2, 1)
    assert "is the store of project 'another', not of 'test'" in called.stderr
    called = done.called("copy", str(done.store), str(done.store))
    assert (called.returncode, called.stderr.count("\n")) == (2, 1)
    assert "is the store to copy from" in called.stderr
