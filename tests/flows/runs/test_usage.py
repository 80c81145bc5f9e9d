"""`melmill du` counts every file once, and says what a run shares and what is its own."""

from __future__ import annotations

import json

import pytest

from melmill.flows.runs.history import set_tag
from melmill.flows.runs.usage import usage
from melmill.storage.store import Store
from tests.flows.conftest import Project

SERIAL = ("--executor", "serial")


@pytest.fixture
def store(done: Project) -> Store:
    """Return a store of two runs, of which each has an inverter of its own. The first has a tag."""
    done.run(*SERIAL, "--until", "gla", "--set", "gla.n_iter=3")
    store = Store.open(str(done.store))
    set_tag(store, "base", store.runs()[0].run_id)
    (done.store / "mel" / "stray").mkdir()
    (done.store / "mel" / "stray" / ".0.writing").write_bytes(b"123")
    return Store.open(str(done.store))


def test_every_file_counts_once(done: Project, store: Store) -> None:
    used = usage(store)
    files = [path.stat().st_size for path in done.store.rglob("*") if path.is_file()]
    assert (used.n_files, used.n_bytes) == (len(files), sum(files))
    assert sum(one.n_bytes for one in used.by_node()) + used.other_bytes == used.n_bytes
    assert [one.name for one in used.by_node()] == ["admm", "gla", "mel", "report", "scores", "speech"]
    [stray] = [one for one in used.products if not one.runs]
    assert (stray.key, stray.n_bytes, stray.n_files, stray.n_records, stray.stage) == ("stray", 3, 1, 0, "")
    assert used.unreached.n_bytes == 3


def test_what_is_shared_and_what_is_exclusive(store: Store) -> None:
    used = usage(store)
    first, second = used.by_run()
    assert first.tags == ("base",)
    by_address = {one.address: one for one in used.products}
    nodes = [run.manifest.nodes for run in store.runs()]
    old, new = (by_address[run["gla"].folder, run["gla"].key] for run in nodes)
    # The second run left out what is made of the inverter, and so still means the first one's.
    assert (first.exclusive_bytes, second.exclusive_bytes) == (old.n_bytes, new.n_bytes)
    assert first.exclusive_compute_s == old.compute_s > 0
    assert first.n_bytes - first.exclusive_bytes == first.shared_bytes == second.shared_bytes
    assert (old.n_utterances, new.n_utterances) == (16, 16)
    assert (old.names, old.stage) == (("gla",), "griffin_lim")
    [tag] = used.by_tag()
    assert (tag.name, tag.state, tag.exclusive_bytes) == ("base", store.runs()[0].run_id, old.n_bytes)


def test_records_say_what_it_takes_to_compute_again(store: Store) -> None:
    used = usage(store)
    for one in used.products:
        records = store.product(one.node, one.key).records().values()
        assert one.compute_s == pytest.approx(sum(record.compute_s for record in records))
        assert one.audio_s == pytest.approx(sum(record.duration_s for record in records))
    assert used.compute_s == pytest.approx(sum(one.compute_s for one in used.by_node()))


def test_the_command(done: Project, store: Store) -> None:
    del store
    answer = json.loads(done.called("du", str(done.store), "--json").stdout)
    assert answer["bytes"] == sum(one["bytes"] for one in answer["products"]) + answer["other"]["bytes"]
    assert [one["node"] for one in answer["nodes"]] == ["admm", "gla", "mel", "report", "scores", "speech"]
    assert [one["tags"] for one in answer["runs"]] == [["base"], []]
    assert answer["tags"][0]["tag"] == "base"
    for by, shown in (("node", "speech"), ("key", "griffin_lim"), ("run", "exclusive"), ("tag", "base")):
        said = done.called("du", str(done.store), "--by", by)
        assert said.returncode == 0
        assert shown in said.stdout
        assert "1 products, 3 B, are of no run" in said.stdout
    assert "is not a store" in done.called("du", str(done.root)).stderr
