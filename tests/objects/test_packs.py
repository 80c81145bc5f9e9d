"""Packs of records: few requests if they fit the records, and right answers even if they don't."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melmill.storage.errors import StoreError
from melmill.storage.files.location import Location
from melmill.storage.product import ProductFolder
from melmill.storage.proof import packs
from melmill.storage.proof.packs import MIN_UNPACKED
from melmill.storage.records import Record, StoredFile, record_file, record_name
from tests.objects.proxy import Fault, Proxy

N_RECORDS = 50


def record(index: int) -> Record:
    """Return a record of a shard. All records name the same file, so there is little to write."""
    return Record(
        node="mel",
        key="k1",
        name=record_name(index),
        n_utterances=1,
        absent=(),
        n_quarantined=0,
        files={"table/000000.parquet": StoredFile(n_bytes=1, sha256="0")},
        duration_s=1.0,
        compute_s=0.5,
        started_at="2024-01-01T00:00:00+00:00",
        host="here",
        attempt=1,
        versions={},
    )


def write(folder: ProductFolder, indices: range) -> None:
    folder.each(lambda name: folder.location.put(record_file(name), record(int(name)).to_json()), _names(indices))


def _names(indices: range) -> list[str]:
    return [record_name(index) for index in indices]


@pytest.fixture
def folder(bucket: str) -> ProductFolder:
    """Return a product with records and no pack."""
    made = ProductFolder(Location(bucket) / "mel" / "k1")
    write(made, range(N_RECORDS))
    return made


def test_packed_records_take_few_requests(folder: ProductFolder, proxy: Proxy) -> None:
    expected = {record_name(index): record(index) for index in range(N_RECORDS)}
    with proxy.counted() as before:
        assert folder.records() == expected
    assert before == {"LIST": 1, "GET": N_RECORDS}
    with proxy.counted() as packing:
        folder.pack()
    assert packing == {"LIST": 1, "GET": N_RECORDS, "PUT": 1}
    with proxy.counted() as after:
        assert folder.records() == expected
        assert folder.records(_names(range(20))) == {name: expected[name] for name in _names(range(20))}
    assert after == {"LIST": 2, "GET": 2}
    with proxy.counted() as again:
        folder.pack()
    assert again == {"LIST": 1, "GET": 1}
    assert folder.record_names() == list(expected)


def test_a_pack_proves_nothing(folder: ProductFolder) -> None:
    folder.pack()
    folder.drop("000003")
    changed = replace(record(4), host="elsewhere")
    folder.location.replace(record_file("000004"), changed.to_json())
    folder.location.replace(record_file("000005"), b"{")
    found = folder.records()
    assert "000003" not in found
    assert "000005" not in found
    assert found["000004"] == changed
    assert len(found) == N_RECORDS - 2
    assert folder.record("000003") is None


@pytest.mark.parametrize("damage", [b"", b"nonsense"])
def test_a_damaged_pack_costs_requests_alone(folder: ProductFolder, proxy: Proxy, damage: bytes) -> None:
    folder.pack()
    (pack,) = (name for name in (folder.location / "records").tree() if name.startswith("packed-"))
    folder.location.replace(f"records/{pack}", damage)
    with proxy.counted() as counts:
        assert len(folder.records()) == N_RECORDS
    assert counts == {"LIST": 1, "GET": N_RECORDS + 1}


def test_many_packs_are_merged(folder: ProductFolder, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "MAX_PACKS", 2)
    total = N_RECORDS
    for _ in range(3):
        folder.pack()
        write(folder, range(total, total + MIN_UNPACKED))
        total += MIN_UNPACKED
    held = [name for name in (folder.location / "records").tree() if name.startswith("packed-")]
    assert len(held) == 1
    with proxy.counted() as counts:
        assert sorted(folder.records()) == _names(range(total))
    assert counts == {"LIST": 1, "GET": 1 + MIN_UNPACKED}


def test_few_records_are_not_worth_a_pack(bucket: str) -> None:
    folder = ProductFolder(Location(bucket))
    write(folder, range(MIN_UNPACKED - 1))
    folder.pack()
    assert sorted(folder.location.tree()) == [record_file(name) for name in _names(range(MIN_UNPACKED - 1))]


def test_a_store_that_fails_is_not_a_store_without_records(folder: ProductFolder, proxy: Proxy) -> None:
    folder.pack()
    with proxy.fault(Fault("status", status=403)), pytest.raises(StoreError, match="access was refused"):
        folder.records()
