"""Records of more shards than six digits can count: by number, not by text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from melmill.storage import catalogue as module
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.parts import part_name
from melmill.storage.errors import DamagedData
from melmill.storage.files.location import Location
from melmill.storage.proof.packs import Copy, Packs
from melmill.storage.records import (
    Record,
    RecordedFolder,
    StoredFile,
    record_file,
    record_name,
    record_order,
    sealed,
    unsealed,
)

NAMES = [*map(record_name, (8, 100_000, 999_999, 1_000_000, 1_000_001, 10_000_000)), "all-0f"]


def record(name: str) -> Record:
    return Record(
        node="mel",
        key="k1",
        name=name,
        n_utterances=1,
        absent=(),
        n_quarantined=0,
        files={},
        duration_s=1.0,
        compute_s=0.5,
        started_at="2024-01-01T00:00:00+00:00",
        host="here",
        attempt=1,
        versions={},
    )


def test_records_are_listed_and_read_by_number(tmp_path: Path) -> None:
    folder = RecordedFolder(Location(str(tmp_path)))
    for name in reversed(NAMES):
        folder.location.put(record_file(name), record(name).to_json())
    assert folder.record_names() == NAMES
    assert list(folder.records()) == NAMES
    assert list(folder.records({*NAMES[2:]})) == NAMES[2:]
    assert folder.records() == {name: record(name) for name in NAMES}


@pytest.mark.parametrize(
    "change",
    [
        {"n_utterances": "3"},
        {"n_quarantined": -1},
        {"compute_s": "1"},
        {"compute_s": float("inf")},
        {"duration_s": None},
        {"started_at": "yesterday"},
        {"started_at": 7},
        {"absent": [1]},
        {"files": {"data/c/0": {"n_bytes": "12", "sha256": ""}}},
        {"versions": []},
        {"host": None},
    ],
)
def test_a_record_of_other_types_is_none(change: dict[str, object]) -> None:
    whole = record("000000")
    assert Record.from_json(whole.to_json()) == whole
    assert Record.from_json(sealed({**unsealed(whole.to_json()), **change})) is None


def test_a_record_in_the_place_of_another_is_none(tmp_path: Path) -> None:
    folder = RecordedFolder(Location(str(tmp_path)))
    for place in ("000000", "000001"):
        folder.location.put(f"records/{place}.json", record("000000").to_json())
    assert folder.record("000000") == record("000000")
    assert folder.record("000001") is None
    assert list(folder.records()) == ["000000"]


def test_a_file_that_its_record_does_not_name_is_damage(tmp_path: Path) -> None:
    folder = RecordedFolder(Location(str(tmp_path)))
    folder.location.put("data/c/0", b"12")
    assert folder.size_problem(record("000000"), ["data/c/0"]) == "data/c/0 is not named by its record"
    with pytest.raises(DamagedData, match="is not named by its record"):
        folder.read_whole(record("000000"), "data/c/0")


def test_the_second_of_two_writers_leaves_nothing_that_the_first_does_not_name(tmp_path: Path) -> None:
    folder = RecordedFolder(Location(str(tmp_path)))

    def publish(files: dict[str, bytes]) -> Record:
        stored = {name: StoredFile.of(data) for name, data in files.items()}
        return folder.publish(replace(record("000000"), files=stored), files)

    first = publish({"data/c/0": b"one", "table/000000.parquet": b"rows"})
    assert publish({"data/c/0": b"two", "quarantine/000000.parquet": b"refused"}) == first
    assert set(folder.location.tree()) == {"data/c/0", "table/000000.parquet", "records/000000.json"}
    assert folder.problems(first) == {}


def test_a_million_names_and_more_are_in_the_order_of_their_shards() -> None:
    names = [record_name(index) for index in range(999_000, 1_002_000)]
    assert sorted(sorted(names), key=record_order) == names
    assert len({*names}) == len(names)


def test_packs_hold_records_by_number(tmp_path: Path) -> None:
    location = Location(f"memory://{tmp_path.name}") / "records"
    tags = {f"{name}.json": f"tag {name}" for name in sorted(NAMES)}
    copies = {name: Copy(f"tag {name}", record(name).to_json()) for name in sorted(NAMES)}
    empty = Packs(location, tags)
    assert empty.names == empty.missing == NAMES
    empty.add(copies)
    (pack,) = location.sizes()
    packed = Packs(location, {**tags, pack: "any"})
    assert list(packed.copies) == packed.names == NAMES
    assert packed.copies == copies
    assert packed.record("1000000") == record("1000000")


def test_a_catalogue_covers_records_by_number(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    # A cached property: what the instance holds goes first.
    monkeypatch.setitem(vars(catalogue), "_end", (1_000_001, 0))
    catalogue.check_covers(["000008", "1000000", "999999"], "here")
    monkeypatch.setitem(vars(catalogue), "_end", (1_000_000, 0))
    with pytest.raises(DamagedData, match="a record of shard 1000000, but it has 1000000 shards"):
        catalogue.check_covers(["000008", "1000000", "999999"], "here")


def test_parts_of_a_catalogue_are_read_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [part_name(i) for i in range(999_998, 1_000_003)]
    read: list[str] = []
    monkeypatch.setattr(Location, "sizes", lambda self: dict.fromkeys(sorted(names), 1))
    monkeypatch.setattr(module, "_whole_part", lambda location, name: read.append(name))
    monkeypatch.setattr(Catalogue, "_of", classmethod(lambda cls, parts: cls))
    Catalogue.read_whole_parts(Location(str(tmp_path)))
    assert read == names
