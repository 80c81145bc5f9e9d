"""`verify` names what is damaged. After `repair`, the next run redoes only that."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from melmill.storage.arrays import ArraySpec
from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import StoreError
from melmill.storage.product import Facts, ProductDescription, ShardContents
from melmill.storage.store import Manifest, Store
from melmill.storage.verify import Damage, repair, verify

Arrays = Callable[..., dict[str, NDArray[Any]]]
SPEECH, MEL = ("speech", "k0"), ("mel", "k1")


@pytest.fixture
def store(
    tmp_path: Path,
    catalogue: Catalogue,
    describe: Callable[..., ProductDescription],
    mel_spec: ArraySpec,
    commit: Callable[[Store], int],
) -> Store:
    """Return a store of mels with every shard done."""
    made = Store.create(str(tmp_path / "store"), "test")
    made.product(*SPEECH).prepare(describe(None, node="speech", key="k0", kind="utterances"), 0)
    made.write_catalogue(*SPEECH, catalogue)
    made.product(*MEL).prepare(describe(mel_spec), catalogue.n_slots)
    commit(made)
    made.publish_run("r1", Manifest(run_id="r1", project="test", started_at="2024", nodes={}))
    return made


@pytest.fixture
def commit(catalogue: Catalogue, arrays: Arrays, mel_spec: ArraySpec, facts: Facts) -> Callable[[Store], int]:
    """Return a run of the shards without a record. It returns how many those were."""

    def run(store: Store) -> int:
        folder = store.product(*MEL)
        records = folder.records()
        todo = [i for i in range(catalogue.n_shards) if f"{i:06d}" not in records]
        for index in todo:
            shard = catalogue.shard(index)
            rows = [{"utterance_id": u.utterance_id, "peak": 0.5} for u in shard.utterances]
            folder.commit(shard, ShardContents(arrays=arrays(mel_spec, shard), rows=rows), facts)
        return len(todo)

    return run


def everything(store: Store) -> dict[str, bytes]:
    return {name: store.location.read(name) for name in store.location.tree()}


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :]


def test_a_whole_store_has_no_damage(store: Store) -> None:
    before = everything(store)
    assert verify(store) == []
    repair(store, [])
    assert everything(store) == before


@pytest.mark.parametrize(
    ("file", "record", "spoil", "problem"),
    [
        ("mel/k1/data/c/2/0", "000002", flipped, r"has checksum"),
        ("mel/k1/data/c/2/0", "000002", lambda data: data[:-1], r"has \d+ bytes"),
        ("mel/k1/data/c/2/0", "000002", lambda data: b"", r"has 0 bytes"),
        ("mel/k1/data/c/2/0", "000002", lambda data: None, r"is missing"),
        # The second slot of the shard with one utterance, which is longer than a shard.
        ("mel/k1/data/c/8/0", "000007", flipped, r"has checksum"),
        ("mel/k1/table/000003.parquet", "000003", flipped, r"has checksum"),
        ("mel/k1/records/000004.json", "000004", lambda data: data[:40], r"can't be parsed"),
    ],
    ids=["flipped", "truncated", "emptied", "deleted", "long utterance", "table", "record"],
)
def test_exactly_the_damaged_is_done_again(
    store: Store,
    commit: Callable[[Store], int],
    file: str,
    record: str,
    spoil: Callable[[bytes], bytes | None],
    problem: str,
) -> None:
    before = everything(store)
    data = spoil(before[file])
    store.location.remove(file)
    if data is not None:
        store.location.replace(file, data)
    (damage,) = verify(store)
    relative = file.removeprefix("mel/k1/")
    assert damage == Damage(node="mel", key="k1", record=record, file=relative, problem=damage.problem)
    assert re.match(problem, damage.problem)
    repair(store, [damage])
    assert commit(store) == 1
    assert verify(store) == []
    assert everything(store) == before


@pytest.mark.parametrize(
    "spoil",
    [lambda data: b"{}", lambda data: data[:30], lambda data: data.replace(b"lz4", b"zstd"), lambda data: None],
    ids=["empty", "truncated", "changed", "deleted"],
)
def test_array_metadata_is_written_anew(store: Store, spoil: Callable[[bytes], bytes | None]) -> None:
    before = everything(store)
    data = spoil(before["mel/k1/data/zarr.json"])
    store.location.remove("mel/k1/data/zarr.json")
    if data is not None:
        store.location.replace("mel/k1/data/zarr.json", data)
    damages = verify(store)
    assert [(damage.record, damage.file) for damage in damages] == [("", "data/zarr.json")]
    repair(store, damages)
    assert everything(store) == before


@pytest.mark.parametrize("data", [b"{", None], ids=["broken", "deleted"])
def test_a_lost_description_makes_the_next_run_write_it(
    store: Store,
    commit: Callable[[Store], int],
    describe: Callable[..., ProductDescription],
    mel_spec: ArraySpec,
    catalogue: Catalogue,
    data: bytes | None,
) -> None:
    before = everything(store)
    store.location.remove("mel/k1/node.json")
    if data is not None:
        store.location.replace("mel/k1/node.json", data)
    damages = verify(store)
    assert [(damage.record, damage.file) for damage in damages] == [("", "node.json")]
    repair(store, damages)
    store.product(*MEL).prepare(describe(mel_spec), catalogue.n_slots)
    assert commit(store) == 1
    assert everything(store) == before


def test_a_damaged_catalogue_can_not_be_repaired(store: Store) -> None:
    name = "speech/k0/catalogue/part-000000.parquet"
    data = store.location.read(name)
    store.location.replace(name, data[:100])
    store.location.replace("mel/k1/table/000003.parquet", b"")
    damages = verify(store)
    assert [damage.file for damage in damages] == ["table/000003.parquet", "catalogue"]
    with pytest.raises(StoreError, match=r"the catalogue at speech/k0/catalogue can't be repaired .*Make it anew"):
        repair(store, damages)
    assert store.location.read(name) == data[:100]
    assert store.product(*MEL).record("000003") is None


def test_a_damaged_manifest_is_removed(store: Store) -> None:
    store.location.replace("runs/r1/manifest.json", b"")
    damages = verify(store)
    assert [(damage.node, damage.key, damage.file) for damage in damages] == [("runs", "r1", "manifest.json")]
    repair(store, damages)
    assert store.latest_manifest() is None
    assert verify(store) == []


def test_leftovers_of_killed_writers_are_cleaned(store: Store) -> None:
    folder = Path(store.location.url) / "mel/k1/data/c/2"
    (folder / ".0123.writing").write_bytes(b"half")
    assert verify(store) == []
    repair(store, [])
    assert [path.name for path in folder.iterdir()] == ["0"]
