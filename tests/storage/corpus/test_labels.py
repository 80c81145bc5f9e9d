"""Labels that changed lie over the catalogue: the last counts, and its parts stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.labels import SCHEMA, LabelOverlay, damaged_labels
from melmill.storage.corpus.shards import read_shard
from melmill.storage.errors import AlreadyThere, DamagedData
from melmill.storage.files.location import Location
from melmill.storage.utterance import Labels, Utterance

Maker = Callable[..., Utterance]


def mended(text: str, stamp: int = 0, speaker: str = "s") -> Labels:
    return Labels(text, speaker, "F", "Ann", stamp)


def labels_of(catalogue: Catalogue) -> dict[str, Labels]:
    return {utterance.utterance_id: utterance.labels for utterance in catalogue.utterances()}


@pytest.fixture
def location(tmp_path: Path, catalogue: Catalogue) -> Location:
    place = Location(str(tmp_path))
    catalogue.write_parts(place)
    return place


def stored(location: Location, labels: dict[str, Labels]) -> Catalogue:
    catalogue = Catalogue.read(location).relabelled(labels)
    catalogue.write_labels(location)
    return catalogue


def test_the_last_labels_count_and_the_parts_stay(location: Location, catalogue: Catalogue) -> None:
    part, (first, second, *_) = location.read("part-000000.parquet"), labels_of(catalogue)
    made = stored(location, {first: mended("NEW", 5), second: mended("OTHER")})
    stored(location, {second: mended("LAST", 7)})
    assert sorted(location.sizes()) == ["part-000000.parquet", "texts-000000.parquet", "texts-000001.parquet"]
    assert location.read("part-000000.parquet") == part
    expected = {**labels_of(catalogue), first: mended("NEW", 5)}
    assert labels_of(made) == {**expected, second: mended("OTHER")}
    back = Catalogue.read(location)
    assert labels_of(back) == {**expected, second: mended("LAST", 7)}
    # Every way to read it agrees, but for the worker's, which needs none.
    table = dict(zip(back.table["utterance_id"].to_pylist(), back.table["text"].to_pylist(), strict=True))
    assert (table[first], table[second]) == ("NEW", "LAST")
    index = back.shard_of(first)
    assert next(u for u in back.shard(index).utterances if u.utterance_id == first).text == "NEW"
    assert read_shard(location, index) == catalogue.shard(index)
    assert labels_of(Catalogue.read_parts(location)) == labels_of(catalogue)
    assert back.table.schema == catalogue.table.schema
    assert back.digest == catalogue.digest


def test_nothing_new_writes_nothing(location: Location) -> None:
    stored(location, {})
    assert sorted(location.sizes()) == ["part-000000.parquet"]


def test_labels_that_are_what_they_were_have_no_digest(location: Location, catalogue: Catalogue) -> None:
    (name, labels), *_ = labels_of(catalogue).items()
    assert catalogue.labels_digest == ""
    assert stored(location, {name: labels._replace(text_stamp=9)}).labels_digest == ""
    one = stored(location, {name: mended("ONE")})
    two = stored(location, {name: mended("TWO")})
    assert len({one.labels_digest, two.labels_digest, ""}) == 3
    assert stored(location, {name: mended("ONE", stamp=4)}).labels_digest == one.labels_digest
    assert stored(location, {name: labels}).labels_digest == ""
    assert labels_of(Catalogue.read(location))[name] == labels


def test_stamps_of_new_utterances_are_stored(location: Location, catalogue: Catalogue, utterance: Maker) -> None:
    grown = Catalogue.read(location).extended([utterance("new", 5000, text_stamp=3), utterance("other", 5000)])
    grown.write_parts(location)
    grown.write_labels(location)
    assert sorted(location.sizes()) == ["part-000000.parquet", "part-000001.parquet", "texts-000000.parquet"]
    back = {one.utterance_id: one.text_stamp for one in Catalogue.read(location).utterances()}
    assert back == {**dict.fromkeys(labels_of(catalogue), 0), "new": 3, "other": 0}


def test_two_runs_can_not_both_change_labels(location: Location, catalogue: Catalogue) -> None:
    (name, *_) = labels_of(catalogue)
    first, second = Catalogue.read(location), Catalogue.read(location)
    first.relabelled({name: mended("MINE")}).write_labels(location)
    with pytest.raises(AlreadyThere, match=r"texts-000000.parquet exists and holds other bytes"):
        second.relabelled({name: mended("YOURS")}).write_labels(location)


def test_damage_is_noticed_and_the_next_part_has_a_new_name(location: Location, catalogue: Catalogue) -> None:
    (name, *_) = labels_of(catalogue)
    for text in ("ONE", "TWO"):
        stored(location, {name: mended(text)})
    data = location.read("texts-000000.parquet")
    location.replace("texts-000000.parquet", data[: len(data) // 2])
    with pytest.raises(DamagedData, match=r"texts-000000.parquet: not a whole Parquet file .* `melmill repair`"):
        Catalogue.read(location)
    assert list(damaged_labels(location)) == ["texts-000000.parquet"]
    location.remove("texts-000000.parquet")
    stored(location, {name: mended("THREE")})
    assert "texts-000002.parquet" in location.sizes()
    assert labels_of(Catalogue.read(location))[name].text == "THREE"


def test_stamps_are_those_of_the_last_part_that_says_one() -> None:
    """They are found by hashes, for ids in any order, among those that are not known."""

    def part(stamps: dict[str, int]) -> pa.Table:
        rows = [(one, "", "", "", "", 0, stamp) for one, stamp in stamps.items()]
        return pa.table([list(column) for column in zip(*rows, strict=True)], schema=SCHEMA)

    first = {f"u{i}": i + 1 for i in range(500)}
    second = {f"u{i}": -i for i in range(0, 500, 7)}
    overlay = LabelOverlay([part(first), part(second)])
    asked = [f"u{i}" for i in range(510, -1, -3)]
    wanted = [{**first, **second}.get(one, 0) for one in asked]
    assert overlay.stamps(pa.chunked_array([asked[:50], asked[50:]])) == wanted
    assert LabelOverlay().stamps(pa.chunked_array([asked])) == [0] * len(asked)
    assert LabelOverlay([SCHEMA.empty_table()]).stamps(pa.chunked_array([asked])) == [0] * len(asked)
