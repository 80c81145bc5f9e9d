"""Addresses of runs: how they are read, and what they mean in a store."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from melmill.flows.runs.addresses import Address, parse_address, resolve
from melmill.flows.runs.history import set_tag
from melmill.storage.errors import StoreError
from melmill.storage.runs import Manifest, NodeEntry
from melmill.storage.store import Store

SPEECH = ("speech", "k1")
RUNS = ["20260101T000000000000", "20260102T000000000000", "20260102T000000000001"]


@pytest.mark.parametrize(
    ("text", "store", "at", "node"),
    [
        ("runs/demo", "runs/demo", None, None),
        ("demo@base", "demo", "base", None),
        ("runs/demo:admm", "runs/demo", None, "admm"),
        ("runs/demo@base:admm", "runs/demo", "base", "admm"),
        ("s3://bucket", "s3://bucket", None, None),  # the colon of a scheme names no node
        ("s3://bucket@base:admm", "s3://bucket", "base", "admm"),
        ("s3://me@team/a:b/demo@base", "s3://me@team/a:b/demo", "base", None),  # only the last part is looked at
        ("/data/a@b:c/demo", "/data/a@b:c/demo", None, None),
        ("/data/a@b/", "/data/a@b", None, None),  # a slash keeps the name of the store whole
        ("/data/a@b/@base:admm", "/data/a@b", "base", "admm"),
        ("memory://x/demo@t", "memory://x/demo", "t", None),
        ("file:///x/demo@t", "file:///x/demo", "t", None),
        (r"C:\runs\demo@base:admm", r"C:\runs\demo", "base", "admm"),
        ("C:/runs/demo", "C:/runs/demo", None, None),
        ("demo:admm[n_iter=10]", "demo", None, "admm[n_iter=10]"),
        ("demo@t:voc[checkpoint=a/b:c@d.pt]", "demo", "t", "voc[checkpoint=a/b:c@d.pt]"),  # values hold anything
        ("demo:x[layers=[1, 2]]", "demo", None, "x[layers=[1, 2]]"),
        ("demo[1]", "demo[1]", None, None),
        ("/", "/", None, None),
    ],
)
def test_an_address_is_taken_apart(text: str, store: str, at: str | None, node: str | None) -> None:
    address = parse_address(text)
    assert (address.store, address.at, address.node, address.text) == (store, at, node, text)


@pytest.mark.parametrize(
    ("text", "what"),
    [("", "store"), ("@base", "store"), ("demo@", "run or tag"), ("demo:", "node"), ("demo@:x", "run")],
)
def test_an_address_without_a_part_is_refused(text: str, what: str) -> None:
    with pytest.raises(StoreError, match=rf"address {text!r} has no {what}.*: expected STORE, STORE@TAG"):
        parse_address(text)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store of three runs of an older version, one of them tagged."""
    made = Store.create(str(tmp_path / "store"), "test")
    for at, run_id in enumerate(RUNS):
        entry = NodeEntry(folder="speech", key=f"k{at}", kind="waveform", stage="librispeech", catalogues=(SPEECH,))
        nodes = {"speech": entry} if at else {"speech": entry, "gla": entry}
        made.publish_run(run_id, Manifest(run_id=run_id, project="test", started_at="2026-01-01", nodes=nodes))
    set_tag(made, "base", RUNS[0])
    return made


def test_what_an_address_means(store: Store) -> None:
    url = store.location.url
    for at, expected in (("", 2), ("@base", 0), ("@20260101", 0), (f"@{RUNS[1]}", 1)):
        found = resolve(parse_address(url + at))
        assert found.run_id == RUNS[expected]
        assert found.manifest.run_id == RUNS[expected]
        # The names of the store mean what they meant in that run.
        assert found.store.nodes["speech"].key == f"k{expected}"
        assert (found.tags, found.name) == ((("base",), "base") if expected == 0 else ((), RUNS[expected]))
        assert (found.facts, found.outcome, found.record.state) == (None, None, "unknown")
    assert resolve(parse_address(f"{url}@base:gla")).node == "gla"


def test_a_tag_goes_before_a_run(store: Store) -> None:
    set_tag(store, "20260102", RUNS[0])
    assert resolve(parse_address(f"{store.location.url}@20260102")).run_id == RUNS[0]


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("@bass", "has no tag or run 'bass'; did you mean 'base'?"),
        ("@zzz", f"has no tag or run 'zzz' (its last run: {RUNS[2]})"),
        ("@20260102", f"has 2 runs that begin with '20260102', such as '{RUNS[1]}' and '{RUNS[2]}': write more"),
        (":glaa", "has no node 'glaa' (nodes: speech)"),
        ("@base:glaa", "has no node 'glaa'; did you mean 'gla'?"),
        ("x@base", "is not a store"),
    ],
)
def test_what_is_not_there_is_told_with_the_nearest(store: Store, rest: str, message: str) -> None:
    with pytest.raises(StoreError, match=re.escape(message)):
        resolve(parse_address(f"{store.location.url}{rest}"))


def test_an_empty_name_means_no_run(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path), "test")
    store.publish_run(RUNS[0], Manifest(run_id=RUNS[0], project="test", started_at="2026-01-01", nodes={}))
    with pytest.raises(StoreError, match="has no tag or run ''"):
        resolve(Address(store=str(tmp_path), at=""))


def test_a_tag_of_a_run_that_is_gone_says_so(store: Store) -> None:
    set_tag(store, "newest", RUNS[2])
    shutil.rmtree(f"{store.location.url}/runs/{RUNS[2]}")
    with pytest.raises(StoreError, match=f"tag 'newest' .* means run '{RUNS[2]}', which is gone"):
        resolve(parse_address(f"{store.location.url}@newest"))


def test_a_store_without_runs_says_so(tmp_path: Path) -> None:
    Store.create(str(tmp_path), "test")
    with pytest.raises(StoreError, match="has no runs yet"):
        resolve(parse_address(str(tmp_path)))


@pytest.mark.parametrize("name", ["a@b", "a:b"])
def test_a_store_with_such_a_name_is_found_whole(tmp_path: Path, name: str, store: Store) -> None:
    shutil.copytree(store.location.url, tmp_path / name)
    assert resolve(parse_address(str(tmp_path / name))).run_id == RUNS[2]
