"""A store: its project, what its last run made, and why something is not in it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.storage.arrays import ArraySpec
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus import parts
from melmill.storage.errors import AlreadyThere, CatalogueError, DamagedData, StoreError, StoreMismatch
from melmill.storage.files.location import Location
from melmill.storage.product import Facts, ProductDescription, Quarantined, ShardContents
from melmill.storage.records import sealed, unsealed
from melmill.storage.store import Manifest, NodeEntry, Store

Arrays = Callable[..., dict[str, NDArray[Any]]]
Describe = Callable[..., ProductDescription]

BAD = "a-0"
SPEECH, MEL, SCORES = ("speech", "k0"), ("mel", "k1"), ("scores", "k2")


def manifest(run_id: str = "r1", **fields: Any) -> Manifest:
    def entry(address: tuple[str, str], kind: str, **more: Any) -> NodeEntry:
        folder, key = address
        return NodeEntry(folder=folder, key=key, kind=kind, stage=folder, catalogues=(SPEECH,), **more)

    nodes = {
        "speech": entry(SPEECH, "utterances"),
        "mel": entry(MEL, "mel"),
        "scores[gla]": entry(SCORES, "scores", scored="gla"),
    }
    facts: dict[str, Any] = {"project": "test", "started_at": f"2024-01-01T00:00:0{run_id[-1]}+00:00", "nodes": nodes}
    return Manifest(run_id=run_id, **facts | fields)


@pytest.fixture
def store(
    tmp_path: Path, catalogue: Catalogue, describe: Describe, arrays: Arrays, pcm_spec: ArraySpec, mel_spec: ArraySpec,
    facts: Facts,
) -> Store:  # fmt: skip
    """Return a store with one run, of which the last shard is not done.

    It holds audio, mels without one utterance, and their scores.
    """
    made = Store.create(str(tmp_path / "store"), "test")
    speech, mel, scores = (made.product(*address) for address in (SPEECH, MEL, SCORES))
    made.write_catalogue(*SPEECH, catalogue)
    speech.prepare(describe(pcm_spec, node="speech", key="k0", kind="utterances", inputs={}), catalogue.n_slots)
    mel.prepare(describe(mel_spec), catalogue.n_slots)
    scores.prepare(describe(None, node="scores", key="k2", scored="gla", inputs={"from": [MEL]}), 0)
    for index in range(catalogue.n_shards - 1):
        shard = catalogue.shard(index)
        ids = [u.utterance_id for u in shard.utterances]
        good = [name for name in ids if name != BAD]
        rows: list[dict[str, Any]] = [{"utterance_id": name, "content_sha256": f"hash of {name}"} for name in ids]
        speech.commit(shard, ShardContents(arrays=arrays(pcm_spec, shard), rows=rows), facts)
        mels = {name: M for name, M in arrays(mel_spec, shard).items() if name in good}
        bad = [Quarantined(utterance_id=BAD, node="mel", stage="extract", reason="too short")] if BAD in ids else []
        traces = {good[0]: {"iteration": np.arange(2), "scm_db": np.array([-1.0, -2.0])}}
        mel.commit(shard, ShardContents(arrays=mels, quarantined=bad, traces=traces), facts)
        rows = [{"utterance_id": name, "pesq_wb": 2.5, "status_pesq_wb": "ok", "stoi": 0.9} for name in good]
        absent = [BAD] if BAD in ids else []
        scores.commit(shard, ShardContents(rows=rows, absent=absent), facts)
    made.publish_run("r1", manifest())
    return made


def test_create_open_and_find(tmp_path: Path) -> None:
    url = str(tmp_path / "a/b")
    assert Store.find(url, "test").latest_manifest() is None
    assert not (tmp_path / "a").exists()
    with pytest.raises(StoreError, match=r"a/b is not a store: it has no melmill.json. Is the path right\?"):
        Store.open(url)
    Store.create(url, "test")
    Store.create(url, "test")
    assert unsealed((tmp_path / "a/b/melmill.json").read_bytes()) == {"format": 4, "project": "test"}
    assert Store.open(url).location == Store.find(url, "test").location
    assert (Store.open(url).nodes, list(Store.open(url).products())) == ({}, [])


@pytest.mark.parametrize("method", [Store.create, Store.find])
def test_another_projects_store_is_refused(tmp_path: Path, method: Callable[..., Store]) -> None:
    Store.create(str(tmp_path), "test")
    with pytest.raises(StoreMismatch, match=r"is the store of project 'test', not of 'other'. Set store:"):
        method(str(tmp_path), "other")


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (b'{"format": 7, "project": "test"}', r"has format 7, and this melmill reads 1 to 6"),
        (b"{", r"melmill.json can't be parsed .* not a store"),
        (b'["format"]', r"melmill.json can't be parsed"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, mark: bytes, message: str) -> None:
    (tmp_path / "melmill.json").write_bytes(mark)
    with pytest.raises(StoreMismatch, match=message):
        Store.open(str(tmp_path))
    with pytest.raises(StoreMismatch, match=message):
        Store.create(str(tmp_path), "test")


def test_a_damaged_mark_is_written_anew_where_a_run_tells_the_project(store: Store) -> None:
    whole = store.location.read("melmill.json")
    store.location.replace("melmill.json", whole.replace(b"test", b"tesu"))
    with pytest.raises(StoreMismatch, match=r"melmill.json can't be parsed .* damaged one. `melmill repair`"):
        Store.open(store.location.url)
    store.rewrite_marker()
    assert store.location.read("melmill.json") == whole
    assert Store.open(store.location.url)
    # A mark of a later format is not damaged, so it is left alone.
    store.location.replace("melmill.json", sealed({"format": 7, "project": "test"}))
    with pytest.raises(StoreMismatch, match="has format 7"):
        store.rewrite_marker()


def test_a_damaged_mark_without_a_run_stays(tmp_path: Path) -> None:
    (tmp_path / "melmill.json").write_bytes(b"{")
    with pytest.raises(StoreMismatch, match="can't be parsed"):
        Store(Location(str(tmp_path))).rewrite_marker()
    assert (tmp_path / "melmill.json").read_bytes() == b"{"


def test_the_last_run_is_the_last_whatever_clocks_say(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path), "test")
    assert store.new_run_id() < "3"
    ahead = "30000101T000000000000"
    store.publish_run(ahead, manifest(ahead))
    now = store.new_run_id()
    assert now == "30000101T000000000001"
    store.publish_run(now, manifest(now, started_at="2024-01-01T00:00:00+00:00"))
    latest = store.latest_manifest()
    assert latest is not None
    assert latest.run_id == now


@pytest.mark.parametrize("name", ["runs", "", ".hidden", "a/b"])
def test_names_that_no_product_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match=f"no product can be called '{name}'"):
        Store.create(str(tmp_path), "test").product(name, "k")


def test_products(store: Store) -> None:
    assert sorted(address for address, _ in store.products()) == sorted([SPEECH, MEL, SCORES])


def test_manifests_are_kept_and_the_latest_counts(store: Store) -> None:
    store.publish_run("r2", manifest("r2", nodes={"mel": manifest().nodes["mel"]}, pipeline={"name": "test"}))
    latest = store.latest_manifest()
    assert latest is not None
    assert (latest.run_id, list(latest.nodes), latest.pipeline) == ("r2", ["mel"], {"name": "test"})
    assert list(store.nodes) == ["mel"]
    assert store.manifest("r1") == manifest()
    with pytest.raises(AlreadyThere, match=r"runs/r1/manifest.json exists and holds other bytes"):
        store.publish_run("r1", manifest("r2"))


def test_one_shard_is_read_without_the_others(store: Store, catalogue: Catalogue) -> None:
    for index in range(catalogue.n_shards):
        assert store.read_shard(*SPEECH, index) == catalogue.shard(index)
    with pytest.raises(CatalogueError, match=r"there is no shard 99 in the catalogue"):
        store.read_shard(*SPEECH, 99)
    assert store.catalogue(*MEL) is None


def test_arrays_by_utterance(store: Store, catalogue: Catalogue, arrays: Arrays, mel_spec: ArraySpec) -> None:
    mels = store["mel"]
    stored = {n: M for i in range(catalogue.n_shards - 1) for n, M in arrays(mel_spec, catalogue.shard(i)).items()}
    del stored[BAD]
    assert list(mels) == list(stored)
    assert len(mels) == len(stored)
    assert repr(mels) == "<mel 'mel': 11 of 13 utterances>"
    for name, M in stored.items():
        np.testing.assert_array_equal(mels[name], M)
        np.testing.assert_array_equal(mels.part(name, slice(-7, None)), M[:, -7:])
    assert BAD not in mels
    assert store["speech"][BAD].dtype == np.int16


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (BAD, r"'a-0' was quarantined at 'mel': too short"),
        ("nobody", r"no utterance is called 'nobody' among the 13 of 'mel'"),
        ("long", r"'long' is not in 'mel' yet: its shard 000007 is not done. Run the pipeline."),
    ],
    ids=["quarantined", "unknown", "not done"],
)
def test_what_is_not_there_says_why(store: Store, name: str, message: str) -> None:
    with pytest.raises(KeyError, match=message):
        store["mel"][name]


def test_quarantine_before_the_node_is_found(
    store: Store, catalogue: Catalogue, describe: Describe, arrays: Arrays, pcm_spec: ArraySpec, facts: Facts
) -> None:
    folder = store.product("gla", "k3")
    folder.prepare(describe(pcm_spec, node="gla", key="k3", inputs={"from": [MEL]}), catalogue.n_slots)
    shard = catalogue.shard(catalogue.shard_of(BAD))
    made = {name: y for name, y in arrays(pcm_spec, shard).items() if name != BAD}
    folder.commit(shard, ShardContents(arrays=made, absent=[BAD]), facts)
    entry = NodeEntry(folder="gla", key="k3", kind="waveform", stage="griffin_lim", catalogues=(SPEECH,))
    store.publish_run("r2", manifest("r2", nodes={"gla": entry}))
    with pytest.raises(KeyError, match="'a-0' was quarantined at 'mel': too short"):
        store["gla"][BAD]


def test_nodes_that_hold_no_arrays(store: Store) -> None:
    with pytest.raises(KeyError, match=r"the last run has no node 'mle'; did you mean 'mel'\? \(nodes: speech, mel"):
        store["mle"]
    with pytest.raises(StoreError, match=r"node 'scores\[gla\]' makes scores: it has no arrays"):
        store["scores[gla]"]


def test_tables_of_a_run(store: Store, catalogue: Catalogue) -> None:
    scores = store.scores()
    key = ["utterance_id", "subset", "speaker_id", "node", "duration_s"]
    assert scores.columns.tolist() == [*key, "pesq_wb", "stoi", "status_pesq_wb"]
    assert len(scores) == 11
    assert set(scores["node"]) == {"gla"}
    row = scores.set_index("utterance_id").loc["b-1"]
    assert (row["subset"], row["speaker_id"], row["duration_s"]) == ("dev", "b", pytest.approx((8000 + 3601) / 16000))
    utterances = store.utterances().set_index("utterance_id")
    assert utterances.loc["b-1", "content_sha256"] == "hash of b-1"
    assert utterances.loc["b-1", "path"] == "dev/b-1.flac"
    assert len(utterances) == catalogue.n_utterances
    quarantine = store.quarantine()
    assert quarantine[["utterance_id", "node", "reason"]].values.tolist() == [[BAD, "mel", "too short"]]
    traces = store.traces()
    assert traces["scm_db"].tolist() == [-1.0, -2.0] * (catalogue.n_shards - 1)
    assert set(traces["node"]) == {"mel"}


def test_tables_of_no_run(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path), "test")
    for table in (store.scores(), store.utterances(), store.quarantine(), store.traces()):
        assert len(table) == 0
        assert {"utterance_id", "node"} <= set(table.columns)


def test_a_damaged_manifest_is_told(store: Store) -> None:
    store.location.replace("runs/r1/manifest.json", b"{}")
    with pytest.raises(DamagedData, match=r"runs/r1/manifest.json: can't be parsed"):
        store.latest_manifest()


def test_the_catalogue_is_read_once(aligned_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    opened: list[str] = []
    check, open_file = parts.StoredPart.check, parts._opened

    def checked(part: parts.StoredPart) -> None:
        reads.append(part._name)
        check(part)

    def counted(path: str) -> object:
        opened.append(path)
        return open_file(path)

    # All rows are read where they are checked.
    monkeypatch.setattr(parts.StoredPart, "check", checked)
    monkeypatch.setattr(parts, "_opened", counted)
    store = Store.open(aligned_store.location.url)
    ids = list(store["mel"])
    n_opened = []
    for name in ids:
        assert len(store["mel"][name].T) <= len(store["speech"][name])
        n_opened.append(len(opened))
    assert len(ids) > 3
    assert n_opened[0] == n_opened[-1]
    assert len(reads) == 1
    # A copy in another process reads the catalogue again, and a new run may have another corpus.
    assert list(pickle.loads(pickle.dumps(store))["mel"]) == ids
    assert len(reads) == 2
    manifest = store.latest_manifest()
    assert manifest is not None
    store.publish_run(store.new_run_id(), replace(manifest, run_id="later"))
    assert list(store["mel"]) == ids
    assert len(reads) == 3
