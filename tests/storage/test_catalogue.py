"""The catalogue on disk: parts are added and never rewritten, and damage is noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import AlreadyThere, CatalogueError, DamagedData
from melmill.storage.files.location import Location
from melmill.storage.utterance import Utterance

Maker = Callable[..., Utterance]


def test_round_trip(tmp_path: Path, catalogue: Catalogue) -> None:
    catalogue.write_parts(Location(str(tmp_path)))
    back = Catalogue.read(Location(str(tmp_path)))
    assert back.table.equals(catalogue.table)
    assert [back.shard(i) for i in range(back.n_shards)] == [catalogue.shard(i) for i in range(catalogue.n_shards)]
    assert (back.sr, back.shard_duration_s, back.digest) == (catalogue.sr, catalogue.shard_duration_s, catalogue.digest)
    assert back.duration_s == pytest.approx(sum(back.table["duration_s"].to_pylist()))


def test_only_new_parts_are_written(tmp_path: Path, catalogue: Catalogue, utterance: Maker) -> None:
    location = Location(str(tmp_path))
    catalogue.write_parts(location)
    before = (tmp_path / "part-000000.parquet").stat()
    Catalogue.read(location).extended([utterance("new", 5000)]).write_parts(location)
    assert (tmp_path / "part-000000.parquet").stat() == before
    assert sorted(location.sizes()) == ["part-000000.parquet", "part-000001.parquet"]
    back = Catalogue.read(location)
    assert back.n_utterances == catalogue.n_utterances + 1
    assert back.shard_of("new") == catalogue.n_shards


def test_the_same_utterances_give_the_same_bytes(tmp_path: Path, catalogue: Catalogue) -> None:
    again = Catalogue.empty(catalogue.sr, catalogue.shard_duration_s).extended(
        [u for i in reversed(range(catalogue.n_shards)) for u in catalogue.shard(i).utterances]
    )
    catalogue.write_parts(Location(str(tmp_path / "a")))
    again.write_parts(Location(str(tmp_path / "b")))
    assert _part(tmp_path / "a") == _part(tmp_path / "b")


def _part(folder: Path) -> bytes:
    return (folder / "part-000000.parquet").read_bytes()


def test_two_runs_can_not_both_extend(tmp_path: Path, catalogue: Catalogue, utterance: Maker) -> None:
    location = Location(str(tmp_path))
    catalogue.write_parts(location)
    first, second = Catalogue.read(location), Catalogue.read(location)
    first.extended([utterance("mine", 5000)]).write_parts(location)
    with pytest.raises(AlreadyThere, match=r"part-000001.parquet exists and holds other bytes"):
        second.extended([utterance("yours", 5000)]).write_parts(location)


def test_the_digest_tells_corpora_apart_but_not_packings(catalogue: Catalogue, utterance: Maker) -> None:
    everything = [u for i in range(catalogue.n_shards) for u in catalogue.shard(i).utterances]
    in_steps = Catalogue.empty(16000, 60.0).extended(everything[:5]).extended(everything[5:])
    assert in_steps.digest == catalogue.digest
    assert in_steps.extended([utterance("new", 1)]).digest != catalogue.digest


def test_extending_by_nothing_changes_nothing(catalogue: Catalogue) -> None:
    assert catalogue.extended([]) is catalogue
    assert "long" in catalogue
    assert "nobody" not in catalogue


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda c: c.shard(99), r"there is no shard 99: the catalogue has \d+"),
        (lambda c: c.shard(-1), r"there is no shard -1"),
        (lambda c: c.shard_of("nobody"), r"no utterance is called 'nobody' among the 13"),
    ],
)
def test_unknown_places_are_named(catalogue: Catalogue, ask: Callable[[Catalogue], object], message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        ask(catalogue)


def test_no_catalogue_is_told_from_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="no catalogue is stored there"):
        Catalogue.read(Location(str(tmp_path)))


def test_a_lost_part_is_damage(tmp_path: Path, catalogue: Catalogue, utterance: Maker) -> None:
    catalogue.extended([utterance("new", 5000)]).write_parts(Location(str(tmp_path)))
    (tmp_path / "part-000000.parquet").unlink()
    with pytest.raises(DamagedData, match=r"missing: part-000000.parquet.*melmill repair"):
        Catalogue.read(Location(str(tmp_path)))


def test_a_flipped_bit_is_damage_or_harmless(tmp_path: Path, catalogue: Catalogue) -> None:
    catalogue.write_parts(Location(str(tmp_path)))
    path = tmp_path / "part-000000.parquet"
    whole, n_noticed = path.read_bytes(), 0
    for position in range(0, len(whole), 29):
        data = bytearray(whole)
        data[position] ^= 4
        path.write_bytes(data)
        try:
            # A flip in what no reader needs, such as a column's statistics, may go unnoticed. Wrong
            # rows may not.
            assert Catalogue.read(Location(str(tmp_path))).table.equals(catalogue.table)
        except DamagedData:
            n_noticed += 1
    assert n_noticed > 50
