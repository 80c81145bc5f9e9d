"""Retired rows: they keep their places in shards, and count nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.storage.arrays import ArraySpec
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.revisions import Reason
from melmill.storage.corpus.shards import read_shard
from melmill.storage.errors import AlreadyThere, CatalogueError, DamagedData, StoreError
from melmill.storage.files.location import Location
from melmill.storage.product import Facts, ProductFolder, Quarantined, ShardContents
from melmill.storage.proof.record import sealed, unsealed
from melmill.storage.store import Store
from melmill.storage.utterance import Utterance

Arrays = Callable[..., dict[str, NDArray[Any]]]


def by_id(catalogue: Catalogue, utterance_id: str) -> Utterance:
    return next(one for one in catalogue.utterances() if one.utterance_id == utterance_id)


@pytest.fixture
def changed(catalogue: Catalogue) -> Catalogue:
    """Return a catalogue after ``a-0`` changed and ``b-1`` and the only utterance of a shard left."""
    old = [by_id(catalogue, name) for name in ("a-0", "b-1", "long")]
    reasons = (Reason.CHANGED, Reason.REMOVED, Reason.REMOVED)
    longer = old[0]._replace(n_samples=20000, source_n_samples=20000)
    return catalogue.retiring(zip(old, reasons, strict=True)).extended([longer])


def test_what_is_retired_keeps_its_place_alone(catalogue: Catalogue, changed: Catalogue) -> None:
    assert changed.n_utterances == 11
    assert (changed.n_shards, changed.n_slots) == (catalogue.n_shards + 1, catalogue.n_slots + 1)
    assert "b-1" not in changed
    with pytest.raises(CatalogueError, match="no utterance is called 'b-1' among the 11"):
        changed.shard_of("b-1")
    assert changed.shard_of("a-0") == catalogue.n_shards
    for name in ("a-0", "b-1", "long"):
        index = catalogue.shard_of(name)
        assert changed.shard(index).utterances == catalogue.shard(index).utterances
        assert name in changed.shard(index).retired
        assert name not in {one.utterance_id for one in changed.shard(index).current}
    gone = catalogue.shard_of("long")
    assert list(changed.current_shards) == [index for index in range(changed.n_shards) if index != gone]
    assert changed.shard_durations_s[gone] == 0
    assert changed.duration_s == pytest.approx(sum(one.duration_s for one in changed.utterances()))
    assert by_id(changed, "a-0").n_samples == 20000


def test_round_trip(tmp_path: Path, catalogue: Catalogue, changed: Catalogue) -> None:
    location = Location(str(tmp_path))
    catalogue.write_parts(location)
    before = (tmp_path / "part-000000.parquet").read_bytes()
    changed.write_parts(location)
    assert sorted(location.sizes()) == ["part-000000.parquet", "part-000001.parquet", "retired-000000.parquet"]
    assert (tmp_path / "part-000000.parquet").read_bytes() == before
    back = Catalogue.read(location)
    assert back.table.equals(changed.table)
    assert (back.retired, back.digest) == (changed.retired, changed.digest)
    assert [read_shard(location, i) for i in range(back.n_shards)] == [back.shard(i) for i in range(back.n_shards)]
    # A second run that saw the same writes the same.
    changed.write_parts(location)


def test_the_digest_tells_what_is_retired(catalogue: Catalogue) -> None:
    one = by_id(catalogue, "a-0")
    # As long as before: neither ids nor lengths tell that it changed.
    again = catalogue.retiring([(one, Reason.CHANGED)]).extended([one])
    assert again.n_utterances == catalogue.n_utterances
    assert again.digest != catalogue.digest
    assert catalogue.retiring([(one, Reason.REMOVED)]).extended([one]).digest == again.digest


def test_who_is_killed_in_between_leaves_new_files(tmp_path: Path, catalogue: Catalogue, changed: Catalogue) -> None:
    location = Location(str(tmp_path))
    catalogue.write_parts(location)
    changed.revisions.write(location)
    between = Catalogue.read(location)
    assert "a-0" not in between
    between.extended([by_id(changed, "a-0")]).write_parts(location)
    assert Catalogue.read(location).table.equals(changed.table)


def test_two_runs_can_not_retire_differently(tmp_path: Path, catalogue: Catalogue) -> None:
    location = Location(str(tmp_path))
    catalogue.write_parts(location)
    catalogue.retiring([(by_id(catalogue, "a-0"), Reason.REMOVED)]).write_parts(location)
    with pytest.raises(AlreadyThere, match=r"retired-000000.parquet exists and holds other bytes"):
        catalogue.retiring([(by_id(catalogue, "b-1"), Reason.REMOVED)]).write_parts(location)


@pytest.mark.parametrize("number", [0, 1])
def test_a_lost_list_is_damage(tmp_path: Path, catalogue: Catalogue, number: int) -> None:
    location = Location(str(tmp_path))
    one = by_id(catalogue, "a-0")
    for _ in range(2):
        catalogue = catalogue.retiring([(one, Reason.CHANGED)]).extended([one])
    catalogue.write_parts(location)
    location.remove(f"retired-{number:06d}.parquet")
    with pytest.raises(DamagedData, match=r"retired-000000.parquet|two rows that count"):
        Catalogue.read(location).check_covers([], "here")


def test_a_flipped_bit_in_a_list_is_damage_or_harmless(
    tmp_path: Path, catalogue: Catalogue, changed: Catalogue
) -> None:
    location = Location(str(tmp_path))
    changed.write_parts(location)
    path, n_noticed = tmp_path / "retired-000000.parquet", 0
    whole = path.read_bytes()
    for position in range(0, len(whole), 17):
        data = bytearray(whole)
        data[position] ^= 4
        path.write_bytes(data)
        try:
            assert Catalogue.read(location).retired == changed.retired
        except DamagedData:
            n_noticed += 1
    assert n_noticed > 20


def test_times_of_files_are_remembered(tmp_path: Path, catalogue: Catalogue) -> None:
    location = Location(str(tmp_path))
    catalogue.write_parts(location)
    touched = by_id(catalogue, "a-0")._replace(mtime_ns=7, size_bytes=9)
    catalogue.seeing([touched]).write_parts(location)
    back = Catalogue.read(location)
    assert by_id(back, "a-0") == touched
    assert back.digest == catalogue.digest
    assert by_id(back, "b-1") == by_id(catalogue, "b-1")
    # Of a row that is retired nothing is remembered.
    retired = back.retiring([(touched, Reason.CHANGED)]).extended([by_id(catalogue, "a-0")])
    retired.write_parts(location)
    assert by_id(Catalogue.read(location), "a-0") == by_id(catalogue, "a-0")


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 2), (3, 3)])
def test_retired_rows_need_format_2(
    tmp_path: Path, catalogue: Catalogue, changed: Catalogue, before: int, after: int
) -> None:
    store = Store.create(str(tmp_path), "test")
    store.location.replace("melmill.json", sealed({"format": before, "project": "test"}))
    store.write_catalogue("speech", "k0", catalogue)
    assert unsealed(store.location.read("melmill.json"))["format"] == before
    store.write_catalogue("speech", "k0", changed)
    assert unsealed(store.location.read("melmill.json"))["format"] == after
    assert Store.open(str(tmp_path)).catalogue("speech", "k0") is not None


def test_arrays_and_tables_leave_out_what_is_retired(
    folder: ProductFolder, catalogue: Catalogue, changed: Catalogue, arrays: Arrays, mel_spec: ArraySpec, facts: Facts
) -> None:
    index = catalogue.shard_of("a-0")
    shard = catalogue.shard(index)
    made = arrays(mel_spec, shard)
    others = [one for one in made if one not in ("a-0", "b-1")]
    del made["b-1" if "b-1" in made else others[0]]
    lost = Quarantined(
        utterance_id="b-1" if "b-1" not in made else others[0], node="mel", stage="extract", reason="bad"
    )
    rows = [{"utterance_id": one, "peak": 1.0} for one in made]
    folder.commit(shard, ShardContents(arrays=made, rows=rows, quarantined=[lost]), facts)
    now = changed.shard(index)
    expected = [one.utterance_id for one in now.current if one.utterance_id in made]
    assert "a-0" not in expected
    assert list(folder.read_arrays(now)) == expected
    with pytest.raises(KeyError, match="a-0"):
        folder.read_array(now, "a-0")
    with pytest.raises(StoreError, match="'a-0' is not of this shard"):
        folder.read_arrays(now, ["a-0"])
    for one in expected:
        np.testing.assert_array_equal(folder.read_arrays(now)[one], made[one])
    assert list(folder.read_table("table", catalogue=changed)["utterance_id"]) == [
        one for one in made if one not in now.retired
    ]
    (record,) = folder.current(changed, folder.records()).values()
    assert record.n_utterances == len(now.current)
    assert record.n_quarantined == (lost.utterance_id not in now.retired)
    assert set(record.absent) == {lost.utterance_id} - now.retired
    assert record.duration_s == pytest.approx(now.duration_s)


def test_a_shard_is_stored_without_what_is_retired(
    folder: ProductFolder, catalogue: Catalogue, changed: Catalogue, arrays: Arrays, mel_spec: ArraySpec, facts: Facts
) -> None:
    index = catalogue.shard_of("a-0")
    made = arrays(mel_spec, catalogue.shard(index))
    shard = changed.shard(index)
    kept = {one.utterance_id: made[one.utterance_id] for one in shard.current}
    folder.prepare(folder.description, changed.n_slots)
    record = folder.commit(shard, ShardContents(arrays=kept), facts)
    assert record.n_utterances == len(kept)
    # Whoever still has the old catalogue reads no gap as data.
    assert set(record.absent) == shard.retired
    assert list(folder.read_arrays(catalogue.shard(index))) == list(kept)
    for one, array in folder.read_arrays(shard).items():
        np.testing.assert_array_equal(array, made[one])
