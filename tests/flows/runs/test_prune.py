"""`melmill prune` keeps what runs need, whatever happens to it or beside it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.flows.runs.history import set_tag
from melmill.flows.runs.prune import Rules, look, prune
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.files.location import Location
from melmill.storage.files.owner import Owner
from melmill.storage.product import Address
from melmill.storage.proof.claims import CLAIMS, FOLDER, latest, taken
from melmill.storage.records import record_file
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
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""
NOW = Rules(keep=1, grace_s=0.0)
OTHER = ("--set", "speech.sr=8000", "--set", "mel.sr=8000", "--set", "mel.fmax=4000")
SERIAL = ("--executor", "serial")
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def thrice(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project that ran with two, three and four iterations, to be read only."""
    made = Project(tmp_path_factory.mktemp("thrice"))
    add_chapter(made.root, "dev-clean", "11", [flac(voice(0.8 + 0.1 * i, 110.0 + 10 * i, seed=i)) for i in range(5)])
    made.write(PIPELINE)
    for n_iter in (2, 3, 4):
        made.run(*SERIAL, "--set", f"gla.n_iter={n_iter}")
    return made


@pytest.fixture
def project(thrice: Project, tmp_path: Path) -> Project:
    """Return a project of the same corpus that has not run yet."""
    made = Project(tmp_path)
    made.root = thrice.root
    made.write(PIPELINE)
    return made


@pytest.fixture
def store(thrice: Project, project: Project) -> Store:
    """Return the project's store after the three runs."""
    shutil.copytree(thrice.store, project.store)
    return Store.open(str(project.store))


def nodes(store: Store) -> list[str]:
    """Return the node of every product that has files."""
    return [node for (node, _), folder in store.products() if folder.location.everything()]


def plan_of(project: Project, *overrides: str) -> Any:
    return make_plan(load(project.pipeline, overrides))


def test_what_the_last_runs_need_stays(project: Project, store: Store) -> None:
    assert nodes(store) == ["gla", "gla", "gla", "mel", "speech"]
    assert look(store, Rules()).candidates == ()
    [candidate] = look(store, Rules(keep=2)).candidates
    assert (candidate.usage.node, candidate.mark, candidate.usage.n_records) == ("gla", None, 2)
    assert candidate.usage.compute_s > 0
    first = store.runs()[0].run_id
    assert candidate.usage.runs == (first,)
    before = {name: size for name, size in store.location.everything().items() if not name.startswith(FOLDER)}
    assert prune(store, Rules(keep=2, grace_s=0.0)).deleted == (candidate.usage,)
    after = {name: size for name, size in store.location.everything().items() if not name.startswith(FOLDER)}
    gone = before.keys() - after.keys()
    assert {name.rpartition("/")[0].split("/")[:2][1] for name in gone} == {candidate.usage.key}
    assert sum(before[name] for name in gone) == candidate.usage.n_bytes
    assert not (project.store / "gla" / candidate.usage.key).exists()
    # The record of the run stays, and the run can be had again.
    assert store.runs()[0].run_id == first
    assert verify(store) == []
    assert project.run(*SERIAL)["tasks"] == {"total": 6, "run": 2, "reused": 4, "failed": 0}


def test_a_tag_keeps_a_run(store: Store) -> None:
    set_tag(store, "base", store.runs()[0].run_id)
    [candidate] = look(store, NOW).candidates
    assert candidate.usage.runs == (store.runs()[1].run_id,)


def test_young_runs_and_products_stay(project: Project, store: Store) -> None:
    (project.store / "gla" / "halfmade" / "data").mkdir(parents=True)
    (project.store / "gla" / "halfmade" / "data" / "c").write_bytes(b"12")
    assert look(store, Rules(keep=1, older_than_s=3600)).candidates == ()
    old = time.time() - 7200
    os.utime(project.store / "gla" / "halfmade" / "data" / "c", (old, old))
    [candidate] = look(store, Rules(keep=1, older_than_s=3600)).candidates
    assert (candidate.usage.key, candidate.usage.n_bytes, candidate.usage.stage) == ("halfmade", 2, "")
    assert len(look(store, Rules(keep=1, older_than_s=0)).candidates) == 3


def test_a_product_is_marked_and_then_deleted(project: Project, store: Store) -> None:
    rules = Rules(keep=2, grace_s=3600)
    done = prune(store, rules)
    assert (done.deleted, len(done.marked)) == ((), 1)
    assert 3590 < done.marked[0].due_in_s <= 3600
    [candidate] = look(store, rules).candidates
    assert candidate.mark is not None
    assert len(nodes(store)) == 5
    # A run that uses it takes the mark away.
    assert project.run(*SERIAL)["tasks"]["run"] == 0
    project.run(*SERIAL, "--set", "gla.n_iter=4")
    project.run(*SERIAL, "--set", "gla.n_iter=3")
    marks = {one.usage.runs[0]: one.mark for one in look(store, rules).candidates}
    assert marks == {store.runs()[0].run_id: None}
    assert prune(store, rules).marked[0].due_in_s > 3590
    assert len(prune(store, Rules(keep=2, grace_s=0)).deleted) == 1


def test_leftovers_of_killed_writers_go(project: Project, store: Store) -> None:
    names = [project.store / "mel" / f".{i:032x}.writing" for i in range(2)]
    for name in names:
        name.write_bytes(bytes(5))
    old = time.time() - 7200
    os.utime(names[0], (old, old))
    assert look(store, NOW).leftovers == {f"mel/{names[0].name}": 5}
    assert prune(store, NOW).leftovers == {f"mel/{names[0].name}": 5}
    assert [name.exists() for name in names] == [False, True]


def test_a_catalogue_stays_while_anything_is_made_of_it(project: Project, store: Store) -> None:
    project.run(*SERIAL, *OTHER)
    project.run(*SERIAL)
    assert sorted(one.usage.node for one in look(store, NOW).candidates) == ["gla", "gla", "gla", "mel", "speech"]
    # Its description can't be read, so that nothing says which catalogue it needs.
    stray = Location(str(project.store / "gla" / "stray"))
    stray.put("node.json", b"?")
    stray.put(record_file("000000"), b"?")
    rules = Rules(keep=1, older_than_s=0.0, grace_s=0.0)
    deleted = [one.node for one in prune(store, rules).deleted]
    assert sorted(deleted) == ["gla", "gla", "gla", "gla", "mel", "speech"]
    assert nodes(store) == ["gla", "mel", "speech"]


def test_a_claimed_product_keeps_its_catalogue(project: Project, store: Store) -> None:
    project.run(*SERIAL, *OTHER)
    other = store.runs()[-1].manifest.nodes
    project.run(*SERIAL)
    code = (
        "import time\nfrom melmill.storage.files.location import Location\n"
        "from melmill.storage.proof.claims import Claim\nwith Claim(None, None) as claim:\n"
        f"  claim.take(Location({str(project.store)!r}), [({other['gla'].folder!r}, {other['gla'].key!r})])\n"
        "  print('ready', flush=True)\n  time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], env=project.environment(), stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        done = prune(store, NOW)
        holder.kill()
    assert sorted(one.node for one in done.deleted) == ["gla", "gla", "mel"]
    assert sorted(one.node for one in done.in_use) == ["gla", "speech"]
    assert sorted(one.node for one in prune(store, NOW).deleted) == ["gla", "speech"]
    assert verify(store) == []


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_run_in_progress_keeps_what_it_uses(project: Project, store: Store) -> None:
    before = project.bytes()
    claims = project.store / FOLDER / CLAIMS
    command = project.command("run", str(project.pipeline), "--json", *SERIAL, "--set", "gla.n_iter=[2,3,5]")
    with subprocess.Popen(
        command, cwd=project.folder, env=project.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as runner:
        wait_for(lambda: any(claims.glob("*.json")))
        runner.send_signal(signal.SIGSTOP)
        done = prune(store, NOW)
        runner.send_signal(signal.SIGCONT)
        said, _ = runner.communicate(timeout=PATIENCE_S)
    assert runner.returncode == 0
    assert done.deleted == ()
    assert json.loads(said)["tasks"] == {"total": 10, "run": 2, "reused": 8, "failed": 0}
    assert {name: sha for name, sha in project.bytes().items() if name in before} == before
    assert not any(claims.glob("*.json"))


def test_a_plan_that_was_overtaken_is_made_anew(project: Project, store: Store) -> None:
    before = project.bytes()
    plan = plan_of(project, "gla.n_iter=[2,3]")
    assert plan.n_pending == 0
    assert len(prune(store, NOW).deleted) == 2
    summary = run(plan, "serial")
    assert (summary.tasks.run, summary.tasks.reused) == (4, 4)
    assert project.bytes() == before


def half_deleted(store: Store, products: list[Address], last: Address) -> None:
    """Delete products as one does that is interrupted when the last has no records any more."""
    with suppress(KeyboardInterrupt), taken(store.location) as lock:
        lock.begin(products)
        for address in sorted(set(products) - {last}):
            store.product(*address).delete(lock.check)
            lock.settle(address)
        for name in store.product(*last).record_names():
            store.product(*last).drop(name)
        raise KeyboardInterrupt


def test_a_plan_waits_for_a_deletion(project: Project, store: Store) -> None:
    """A killed process has begun to delete a catalogue that a plan needs: the plan finishes that."""
    project.run(*SERIAL, *OTHER)
    entries = [(entry.folder, entry.key) for entry in store.latest_manifest().nodes.values()]  # type: ignore[union-attr]
    before = project.bytes()
    doomed = max(entries)
    assert doomed[0] == "speech"
    half_deleted(store, entries, doomed)
    assert project.run(*SERIAL, *OTHER)["tasks"]["run"] == 6
    assert project.bytes() == before
    held = latest(store.location)
    assert held is not None
    assert held.deleting == frozenset()


def killed_at(store: Store, nth: int) -> bool:
    """Prune in a child that kills itself before its nth change of a file; return whether it came so far."""
    pid = os.fork()
    if not pid:
        left = [nth]

        def count(event: str, _: object) -> None:
            if event in ("os.remove", "os.rename", "os.link", "os.rmdir"):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            prune(store, NOW)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_no_kill_does_harm(project: Project) -> None:
    project.run(*SERIAL, *OTHER)
    project.run(*SERIAL)
    store = Store.open(str(project.store))
    before = project.bytes()
    nth, n_killed = 1, 0
    while killed_at(store, nth):
        n_killed += 1
        assert verify(store) == [], nth
        if n_killed % 3 == 1:
            # It may use what is half deleted.
            assert project.run(*SERIAL, *OTHER)["tasks"]["failed"] == 0
            assert project.bytes() == before, nth
            project.run(*SERIAL)
        nth += 3
    assert n_killed > 10
    assert nodes(store) == ["gla", "mel", "speech"]
    assert Owner.me().runs
    assert project.run(*SERIAL, *OTHER)["tasks"]["run"] == 6
    assert project.bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keep", "0"], "keep must be at least 1, got 0: the last run is what the names of a store mean"),
        (["--grace", "soon"], "'soon' is not a time such as 30d, 12h, 90m, 45s or 2w"),
        (["--older-than", "30"], "'30' is not a time such as 30d"),
    ],
)
def test_bad_usage_is_one_line(project: Project, store: Store, arguments: list[str], said: str) -> None:
    done = project.called("prune", str(project.store), *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_prune_while_another_prunes_is_one_line(project: Project, store: Store) -> None:
    with taken(store.location):
        done = project.called("prune", str(project.store), "--yes")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {project.store}: another `melmill prune` is at work here (process ")
    assert done.stderr.count("\n") == 1


def test_what_the_command_says(project: Project, store: Store) -> None:
    place = str(project.store)
    assert "nothing to prune: the runs that are kept need all 5 products" in project.called("prune", place).stdout
    said = project.called("prune", place, "--keep", "1").stdout
    assert "nothing was changed: add --yes" in said
    assert said.count("griffin_lim") == 2
    assert "marked: 2 products" in project.called("prune", place, "--keep", "1", "--yes").stdout
    answer = json.loads(project.called("prune", place, "--keep", "1", "--json").stdout)
    assert [one["marked"] for one in answer["candidates"]] == [True, True]
    assert answer["bytes"] == sum(one["bytes"] for one in answer["candidates"])
    answer = json.loads(project.called("prune", place, "--keep", "1", "--yes", "--grace", "0", "--json").stdout)
    assert [one["node"] for one in answer["deleted"]] == ["gla", "gla"]
    assert "is whole" in project.called("verify", place).stdout


def test_rules_are_checked() -> None:
    with pytest.raises(ParameterError, match="grace_s must be a time of 0 or more"):
        Rules(grace_s=-1.0)
