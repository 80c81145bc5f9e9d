"""The folder of a product: round trips, errors, and one winner among writers."""

from __future__ import annotations

import json
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
from melmill.storage.errors import DamagedData, StoreError
from melmill.storage.files.location import Location
from melmill.storage.product import Facts, ProductDescription, ProductFolder, Quarantined, ShardContents
from melmill.storage.utterance import Shard

Arrays = Callable[..., dict[str, NDArray[Any]]]
Describe = Callable[..., ProductDescription]


@pytest.fixture(params=["local", "memory", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Return an empty folder: on the disk, behind fsspec, and in an object store."""
    if request.param == "s3":
        return Location(request.getfixturevalue("bucket")) / "n[a=1,b=.5]" / "k1"
    return Location(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}") / "n[a=1,b=.5]" / "k1"


@pytest.mark.parametrize(
    "spec",
    [
        ArraySpec(dtype="int16", sr=16000),
        # Resampled, so the length in the store is not that in the catalogue.
        ArraySpec(dtype="float32", sr=22050),
        ArraySpec(dtype="float32", sr=16000, n_mels=8, n_fft=512, hop_length=128, pad=256),
        ArraySpec(dtype="float16", sr=16000, n_mels=80, n_fft=1024, hop_length=256, pad=384),
    ],
    ids=["PCM", "resampled", "mel", "half-precision mel"],
)
def test_round_trip(
    location: Location,
    catalogue: Catalogue,
    describe: Describe,
    arrays: Arrays,
    facts: Facts,
    spec: ArraySpec,
) -> None:
    folder = ProductFolder(location)
    folder.prepare(describe(spec), catalogue.n_slots)
    for index in range(catalogue.n_shards):
        shard = catalogue.shard(index)
        stored = arrays(spec, shard)
        record = folder.commit(shard, ShardContents(arrays=stored), facts)
        assert len(record.files) == shard.n_slots
        fresh = ProductFolder(location)
        back = fresh.read_arrays(shard)
        assert list(back) == [u.utterance_id for u in shard.utterances]
        for name, array in stored.items():
            assert back[name].dtype == np.dtype(spec.dtype)
            np.testing.assert_array_equal(back[name], array)
            np.testing.assert_array_equal(fresh.read_array(shard, name), array)
            np.testing.assert_array_equal(fresh.read_array(shard, name, slice(5, 25)), array[..., 5:25])
    assert list(folder.records()) == [f"{i:06d}" for i in range(catalogue.n_shards)]
    assert folder.inventory().problems == {}


def test_records_round_trip(full: ProductFolder, catalogue: Catalogue, facts: Facts) -> None:
    record = full.record("000001")
    assert record is not None
    assert (record.node, record.key, record.name) == ("mel", "k1", "000001")
    assert (record.compute_s, record.host, record.versions) == (facts.compute_s, facts.host, facts.versions)
    assert record.n_utterances == len(catalogue.shard(1).utterances)
    assert record.duration_s == pytest.approx(catalogue.shard(1).duration_s)
    assert record.from_json(record.to_json()) == record
    assert full.record("000099") is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b'{"files": {}}', b'{"files": {"a": {}}}'])
def test_a_broken_record_is_none(full: ProductFolder, data: bytes) -> None:
    full.location.replace("records/000001.json", data)
    assert full.record("000001") is None
    assert "000001" not in full.records()


def test_descriptions_round_trip(describe: Describe, mel_spec: ArraySpec) -> None:
    for description in (
        describe(mel_spec),
        describe(None, catalogue=None, scored="gla"),
        describe(mel_spec, mel={"sr": 1}),
    ):
        assert ProductDescription.from_json(description.to_json()) == description


def test_prepare_is_idempotent_and_grows(
    folder: ProductFolder, describe: Describe, mel_spec: ArraySpec, catalogue: Catalogue
) -> None:
    before = folder.location.tree()
    folder.prepare(describe(mel_spec, inputs={"from": (("speech", "k0"),)}), catalogue.n_slots)
    folder.prepare(describe(mel_spec), 1)
    assert folder.location.tree() == before
    folder.prepare(describe(mel_spec), catalogue.n_slots + 5)
    shape = json.loads(folder.location.read("data/zarr.json"))["shape"]
    assert shape == [(catalogue.n_slots + 5) * folder.description.slot_length, 8]


def test_prepare_refuses_another_description(folder: ProductFolder, describe: Describe, mel_spec: ArraySpec) -> None:
    with pytest.raises(StoreError, match=r"holds a product with another description: version 2 \(stored: 1\)"):
        folder.prepare(describe(mel_spec, version=2), 1)


def test_a_product_that_was_never_prepared(tmp_path: Path, catalogue: Catalogue) -> None:
    nothing = ProductFolder(Location(str(tmp_path)))
    with pytest.raises(StoreError, match=r"node.json does not exist: there is no such product"):
        nothing.read_arrays(catalogue.shard(0))
    assert nothing.records() == {}


def test_what_is_not_done_can_not_be_read(folder: ProductFolder, catalogue: Catalogue) -> None:
    for read in (folder.read_arrays, lambda shard: folder.read_array(shard, shard.utterances[0].utterance_id)):
        with pytest.raises(StoreError, match=r"'000000' has no record, so it is not done. Run the pipeline first"):
            read(catalogue.shard(0))
    with pytest.raises(StoreError, match="has no record"):
        folder.absent("000000")


def test_a_grown_array_is_read_by_one_who_opened_it_before(
    full: ProductFolder, catalogue: Catalogue, arrays: Arrays, facts: Facts, utterance: Callable[..., Any]
) -> None:
    reader = ProductFolder(full.location)
    reader.read_array(catalogue.shard(0), catalogue.shard(0).utterances[0].utterance_id)
    grown = catalogue.extended([utterance("new", 9000)])
    full.prepare(full.description, grown.n_slots)
    shard = grown.shard(grown.n_shards - 1)
    stored = arrays(full.description.array, shard)
    full.commit(shard, ShardContents(arrays=stored), facts)
    np.testing.assert_array_equal(reader.read_array(shard, "new"), stored["new"])


def test_absent_utterances_are_left_out(
    folder: ProductFolder, catalogue: Catalogue, arrays: Arrays, mel_spec: ArraySpec, facts: Facts
) -> None:
    shard = catalogue.shard(0)
    first, second, *rest = (u.utterance_id for u in shard.utterances)
    stored = {name: array for name, array in arrays(mel_spec, shard).items() if name in rest}
    bad = Quarantined(utterance_id=first, node="mel", stage="extract", reason="too short", detail="Traceback")
    record = folder.commit(shard, ShardContents(arrays=stored, quarantined=[bad], absent=[second]), facts)
    assert (set(record.absent), record.n_quarantined) == ({first, second}, 1)
    assert folder.absent("000000") == {first, second}
    assert list(folder.read_arrays(shard)) == rest
    assert list(folder.read_arrays(shard, ids=[first, rest[-1]])) == rest[-1:]
    with pytest.raises(KeyError, match=first):
        folder.read_array(shard, first)
    assert folder.read_table("quarantine").to_dict("records") == [
        {"utterance_id": first, "node": "mel", "stage": "extract", "reason": "too short", "detail": "Traceback"}
    ]


def test_tables_and_traces(
    folder: ProductFolder, catalogue: Catalogue, arrays: Arrays, mel_spec: ArraySpec, facts: Facts
) -> None:
    for index in (0, 1):
        shard = catalogue.shard(index)
        ids = [u.utterance_id for u in shard.utterances]
        # One shard has integers. The other has floats, and another column.
        rows: list[dict[str, Any]] = [{"utterance_id": name, "peak": 1} for name in ids]
        if index == 1:
            rows = [{"utterance_id": name, "peak": np.float32(0.5), "status": "ok"} for name in ids]
        traces = {ids[0]: {"iteration": np.arange(3), "scm_db": np.array([-1.0, -2.0, -3.0])}}
        folder.commit(shard, ShardContents(arrays=arrays(mel_spec, shard), rows=rows, traces=traces), facts)
    table = folder.read_table("table")
    n = len(catalogue.shard(0).utterances)
    assert table["peak"].tolist() == [1.0] * n + [0.5] * (len(table) - n)
    assert table["status"].isna().tolist() == [True] * n + [False] * (len(table) - n)
    assert folder.read_table("table", names=["000001"])["peak"].tolist() == [0.5] * (len(table) - n)
    assert folder.read_table("trace")["scm_db"].tolist() == [-1.0, -2.0, -3.0] * 2
    assert folder.read_table("quarantine").empty
    assert folder.read_table("quarantine").columns.tolist() == ["utterance_id", "node", "stage", "reason", "detail"]


def test_a_table_without_arrays(tmp_path: Path, catalogue: Catalogue, describe: Describe, facts: Facts) -> None:
    folder = ProductFolder(Location(str(tmp_path)))
    folder.prepare(describe(None, scored="gla"), 0)
    shard = catalogue.shard(0)
    rows = [{"utterance_id": u.utterance_id, "pesq_wb": 3.0} for u in shard.utterances]
    record = folder.commit(shard, ShardContents(rows=rows), facts)
    assert list(record.files) == ["table/000000.parquet"]
    with pytest.raises(StoreError, match="node 'mel' makes scores: it has no arrays to read"):
        folder.read_arrays(shard)


def test_reports_are_files(folder: ProductFolder, facts: Facts) -> None:
    record = folder.commit_files(
        "all-abc", {"index.html": b"<p>", "tables/scores.csv": b"a,b"}, facts, folder="report/all-abc"
    )
    assert folder.location.read("report/all-abc/tables/scores.csv") == b"a,b"
    assert folder.record("all-abc") == record
    assert folder.damage(record) is None


def without(arrays: dict[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    return {other: array for other, array in arrays.items() if other != name}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a, n: {n: a[n][:, :-1]}, r"'.*' has shape \(8, 31\), expected \(8, 32\)"),
        (lambda a, n: {n: a[n][0]}, r"has shape \(32,\), expected \(8, 32\)"),
        (lambda a, n: {n: a[n].astype(np.float64)}, r"has dtype 'float64', expected 'float32'"),
        (lambda a, n: {n: np.where(a[n] > 0.9, np.nan, a[n])}, r"has \d+ values that are not finite, expected none"),
        (lambda a, n: {n: np.where(a[n] > 0.9, np.inf, a[n])}, r"has \d+ values that are not finite, expected none"),
        (lambda a, n: {"stranger": a[n]}, r"1 utterances are not of this shard, e.g. 'stranger'"),
    ],
    ids=["too short", "not a mel", "dtype", "NaN", "infinite", "of another shard"],
)
def test_wrong_arrays_are_refused(
    folder: ProductFolder,
    catalogue: Catalogue,
    arrays: Arrays,
    mel_spec: ArraySpec,
    facts: Facts,
    spoil: Callable[..., dict[str, NDArray[Any]]],
    message: str,
) -> None:
    shard = catalogue.shard(0)
    good = arrays(mel_spec, shard)
    before = folder.location.tree()
    with pytest.raises(StoreError, match=f"node 'mel', shard 0: .*{message}"):
        folder.commit(shard, ShardContents(arrays=good | spoil(good, shard.utterances[0].utterance_id)), facts)
    assert folder.location.tree() == before


def test_incomplete_shards_are_refused(
    folder: ProductFolder, catalogue: Catalogue, arrays: Arrays, mel_spec: ArraySpec, facts: Facts
) -> None:
    shard = catalogue.shard(0)
    good, name = arrays(mel_spec, shard), shard.utterances[0].utterance_id
    with pytest.raises(StoreError, match=f"1 utterances are neither stored nor quarantined, e.g. '{name}'"):
        folder.commit(shard, ShardContents(arrays=without(good, name)), facts)
    with pytest.raises(StoreError, match=f"1 utterances are both stored and quarantined, e.g. '{name}'"):
        folder.commit(shard, ShardContents(arrays=good, absent=[name]), facts)
    trace = {name: {"iteration": np.arange(3), "scm_db": np.arange(2.0)}}
    with pytest.raises(StoreError, match=f"the trace of '{name}' has columns of different lengths"):
        folder.commit(shard, ShardContents(arrays=good, traces=trace), facts)
    rows: list[dict[str, Any]] = [{"utterance_id": name, "a": 1}, {"utterance_id": name, "a": "one"}]
    with pytest.raises(StoreError, match="a column holds values of different types"):
        folder.commit(shard, ShardContents(arrays=good, rows=rows), facts)


def everything(folder: ProductFolder) -> dict[str, bytes]:
    return {name: folder.location.read(name) for name in folder.location.tree()}


def test_committing_again_changes_nothing(
    full: ProductFolder, catalogue: Catalogue, arrays: Arrays, mel_spec: ArraySpec, facts: Facts
) -> None:
    before = everything(full)
    later = replace(facts, host="there", attempt=2)
    record = full.commit(catalogue.shard(0), ShardContents(arrays=arrays(mel_spec, catalogue.shard(0))), later)
    assert record.host == "here"
    assert everything(full) == before


def other(catalogue: Catalogue, arrays: Arrays, spec: ArraySpec) -> tuple[Shard, ShardContents]:
    shard = catalogue.shard(0)
    return shard, ShardContents(arrays=arrays(spec, shard, seed=1))


def test_the_first_record_wins(
    full: ProductFolder, catalogue: Catalogue, arrays: Arrays, mel_spec: ArraySpec, facts: Facts
) -> None:
    before = everything(full)
    shard, contents = other(catalogue, arrays, mel_spec)
    assert full.commit(shard, contents, facts) == full.record("000000")
    assert everything(full) == before


def test_files_without_a_record_are_replaced(
    full: ProductFolder, catalogue: Catalogue, arrays: Arrays, mel_spec: ArraySpec, facts: Facts
) -> None:
    full.drop("000000")
    shard, contents = other(catalogue, arrays, mel_spec)
    record = full.commit(shard, contents, facts)
    assert full.problems(record) == {}
    name = shard.utterances[0].utterance_id
    np.testing.assert_array_equal(full.read_arrays(shard)[name], contents.arrays[name])


def test_a_record_that_its_files_belie_is_overwritten(
    full: ProductFolder, catalogue: Catalogue, arrays: Arrays, mel_spec: ArraySpec, facts: Facts
) -> None:
    # As if a writer of other bytes had replaced the files just before this one wrote its record.
    full.location.replace("data/c/0/0", b"of another attempt")
    shard, contents = other(catalogue, arrays, mel_spec)
    record = full.commit(shard, contents, replace(facts, host="there"))
    assert record.host == "there"
    assert full.record("000000") == record
    assert full.problems(record) == {}


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda data: b"", r"has 0 bytes, expected \d+"),
        (lambda data: data[:-7], r"has \d+ bytes, expected \d+"),
        (lambda data: None, "is missing"),
        (lambda data: data[:999] + bytes([data[999] ^ 1]) + data[1000:], r"has checksum \w{12}, expected \w{12}"),
    ],
    ids=["emptied", "truncated", "deleted", "bit flipped"],
)
def test_damage_is_noticed(
    full: ProductFolder, catalogue: Catalogue, spoil: Callable[[bytes], bytes | None], problem: str
) -> None:
    data = spoil(full.location.read("data/c/1/0"))
    full.location.remove("data/c/1/0")
    if data is not None:
        full.location.replace("data/c/1/0", data)
    record = full.records()["000001"]
    if "checksum" not in problem:
        assert full.inventory().problems == {"000001": full.damage(record)}
    assert list(full.problems(record)) == ["data/c/1/0"]
    shard = catalogue.shard(1)
    with pytest.raises(DamagedData, match=rf"node 'mel', record '000001'.* {problem}.*melmill repair"):
        full.read_arrays(shard)
    with pytest.raises(DamagedData, match=r"node 'mel', record '000001'"):
        [full.read_array(shard, u.utterance_id) for u in shard.utterances]
    assert len(full.read_arrays(catalogue.shard(0))) == len(catalogue.shard(0).utterances)


def test_an_emptied_shard_is_not_read_as_silence(full: ProductFolder, catalogue: Catalogue) -> None:
    # Zarr itself takes an empty file for a shard of fill values.
    shard = catalogue.shard(0)
    name = shard.utterances[0].utterance_id
    full.read_array(shard, name)
    full.location.replace("data/c/0/0", b"")
    with pytest.raises(DamagedData, match="has 0 bytes"):
        full.read_array(shard, name)


def test_silence_is_stored(
    tmp_path: Path, catalogue: Catalogue, describe: Describe, pcm_spec: ArraySpec, facts: Facts
) -> None:
    folder = ProductFolder(Location(str(tmp_path)))
    folder.prepare(describe(pcm_spec), catalogue.n_slots)
    shard = catalogue.shard(0)
    silence = {u.utterance_id: np.zeros(u.n_samples, np.int16) for u in shard.utterances}
    folder.commit(shard, ShardContents(arrays=silence), facts)
    assert (tmp_path / "data/c/0").stat().st_size > 0
    np.testing.assert_array_equal(next(iter(folder.read_arrays(shard).values())), next(iter(silence.values())))


def test_folders_travel_between_processes(full: ProductFolder, catalogue: Catalogue) -> None:
    shard = catalogue.shard(0)
    name = shard.utterances[0].utterance_id
    expected = full.read_array(shard, name)
    travelled = pickle.loads(pickle.dumps(full))
    assert travelled.location == full.location
    np.testing.assert_array_equal(travelled.read_array(shard, name), expected)
