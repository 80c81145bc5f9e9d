"""What a plan asks of records: the same from packs as from the records, whatever became of either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from melmill.storage import records
from melmill.storage.files.location import Location
from melmill.storage.proof import packs
from melmill.storage.proof.inventory import Inventory
from melmill.storage.records import Record, RecordedFolder, StoredFile, record_file, record_name

N = 40
DATA = b"12345"


def record(name: str, **fields: Any) -> Record:
    made = Record(
        node="mel", key="k1", name=name, n_utterances=1, absent=(), n_quarantined=0,
        files={f"table/{name}.parquet": StoredFile.of(DATA)}, duration_s=1.0, compute_s=0.5,
        started_at="2024-01-01T00:00:00+00:00", host="here", attempt=1, versions={},
    )  # fmt: skip
    return replace(made, **fields)


def write(folder: RecordedFolder, made: Record) -> None:
    folder.location.replace(record_file(made.name), made.to_json())
    for name in made.files:
        folder.location.replace(name, DATA)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordedFolder:
    """Return a folder of records, which are worth a pack here."""
    monkeypatch.setattr(records, "MIN_UNPACKED_LOCAL", 8)
    made = RecordedFolder(Location(str(tmp_path)))
    for index in range(N):
        absent = ("a", "b") if index == 3 else ()
        write(made, record(record_name(index), absent=absent, n_quarantined=int(index == 3)))
    write(made, record("000040", levels={"n": 3, "peak": 0.5}))
    write(made, record("1000000"))
    write(made, record("all-0f"))
    return made


def spoil(folder: RecordedFolder) -> None:
    """Do to records what may become of them after they were packed."""
    folder.drop("000001")
    folder.location.replace(record_file("000002"), b"{")
    write(folder, record("000004", absent=("c",)))
    folder.location.remove("table/000005.parquet")
    folder.location.replace("table/000006.parquet", b"other length")


def facts(found: Inventory) -> dict[str, object]:
    return {name: getattr(found, name) for name in found.__dataclass_fields__ if name != "n_unpacked"}


def test_packs_change_no_answer(folder: RecordedFolder) -> None:
    plain = folder.inventory()
    assert (plain.n_unpacked, plain.n_records, len(plain.recorded)) == (N + 2, N + 3, N + 2)
    assert set(plain.recorded) == set(plain.whole) == {*range(N + 1), 1_000_000}
    assert (plain.problems, plain.absent) == ({}, {"000003": ("a", "b")})
    assert (set(plain.quarantined), plain.levels) == ({3}, {40: {"n": 3, "peak": 0.5}})
    assert list(plain.others) == ["all-0f"]
    assert plain.last_names == ["1000000"]
    folder.pack()
    packed = folder.inventory()
    assert packed.n_unpacked == 0
    assert facts(packed) == facts(plain)


def test_a_pack_proves_nothing(folder: RecordedFolder) -> None:
    folder.pack()
    spoil(folder)
    found = folder.inventory()
    assert found.n_unpacked == 2
    assert 1 not in found.recorded
    assert 2 in found.recorded
    assert found.absent == {"000003": ("a", "b"), "000004": ("c",)}
    assert found.problems == {
        "000005": "table/000005.parquet is missing",
        "000006": "table/000006.parquet has 12 bytes, expected 5",
    }
    assert set(found.whole) == {0, 3, 4, *range(7, N + 1), 1_000_000}
    for pack in folder.location.tree():
        if "packed-" in pack:
            folder.location.remove(pack)
    assert facts(folder.inventory()) == facts(found)


@pytest.mark.parametrize(
    "spoil_pack", [lambda data: b"", lambda data: data[:-1], lambda data: data[:99] + b"?" + data[100:]]
)
def test_a_damaged_pack_changes_no_answer(folder: RecordedFolder, spoil_pack: Any) -> None:
    expected = facts(folder.inventory())
    folder.pack()
    (pack,) = (name for name in folder.location.tree() if "packed-" in name)
    folder.location.replace(pack, spoil_pack(folder.location.read(pack)))
    found = folder.inventory()
    assert (found.n_unpacked, facts(found)) == (N + 2, expected)


def test_packs_of_older_versions_are_read(folder: RecordedFolder) -> None:
    import hashlib
    import json
    import zlib

    expected = facts(folder.inventory())
    tags = (folder.location / "records").tags()
    lines = [
        json.dumps([name, tags[f"{name}.json"], folder.location.read(record_file(name)).decode()])
        for name in map(record_name, range(N))
    ]
    data = zlib.compress("\n".join(lines).encode(), 1)
    folder.location.replace(f"records/packed-{hashlib.sha256(data).hexdigest()}.z", data)
    found = folder.inventory()
    assert (found.n_unpacked, facts(found)) == (2, expected)


def test_large_packs_are_not_written_again(folder: RecordedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "MAX_PACKED", 20)
    monkeypatch.setattr(packs, "MAX_PACKS", 1)
    folder.pack()
    first = {name for name in folder.location.tree() if "packed-" in name}
    assert len(first) == 3
    for index in range(N + 1, N + 10):
        write(folder, record(record_name(index)))
    folder.pack()
    second = {name for name in folder.location.tree() if "packed-" in name}
    # The two full ones stay, and the small one is merged.
    assert (len(first & second), len(second)) == (2, 3)
    assert folder.inventory().n_unpacked == 0


def test_gists_are_of_the_shards_asked_for(folder: RecordedFolder) -> None:
    for shards in ({0, 3}, set(range(30))):
        assert {gist.name for gist in folder.gists(shards)} == set(map(record_name, shards))
    folder.pack()
    assert {gist.name for gist in folder.gists(set(range(30)))} == set(map(record_name, range(30)))
