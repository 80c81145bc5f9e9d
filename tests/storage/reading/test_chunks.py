"""Parts of utterances: the samples of the whole, from the chunks that hold them and no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.storage.arrays import METADATA, ArraySpec, encode, metadata
from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import DamagedData
from melmill.storage.files.location import Location
from melmill.storage.reading.chunks import StoredArray
from melmill.storage.utterance import Shard, Utterance

FRAMING: dict[str, Any] = {"sr": 16000, "n_mels": 8, "n_fft": 1024, "hop_length": 256, "pad": 512}
SPECS = {
    "PCM": ArraySpec(dtype="int16", sr=16000),
    "PCM in Blosc": ArraySpec(dtype="int16", sr=16000, codecs=1),
    "half mels": ArraySpec(dtype="float16", **FRAMING),
    "mels": ArraySpec(dtype="float32", **FRAMING),
}
SLOT_S = 40.0


@pytest.fixture(scope="module")
def shard(utterance: Callable[..., Utterance]) -> Shard:
    """Return utterances of 9 and 90 s, more than two slots hold."""
    made = [utterance("a", 9 * 16000), utterance("b", 90 * 16000)]
    catalogue = Catalogue.empty(16000, SLOT_S).extended(made)
    return catalogue.shard(catalogue.shard_of("b"))


@pytest.fixture(params=list(SPECS.values()), ids=list(SPECS))
def spec(request: pytest.FixtureRequest) -> ArraySpec:
    """Return each layout."""
    layout: ArraySpec = request.param
    return layout


@pytest.fixture
def stored(
    spec: ArraySpec, shard: Shard, location: Location, arrays: Callable[..., dict[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Store a shard; return its arrays."""
    made = arrays(spec, shard)
    slot_length = spec.slot_length(SLOT_S)
    location.put(METADATA, metadata(spec, slot_length, shard.slot + shard.n_slots))
    for name, data in encode(spec, slot_length, shard, made).items():
        location.put(name, data)
    return made


@pytest.fixture(params=["local", "memory"])
def location(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Return an empty folder on the disk, and one behind fsspec."""
    folder = tmp_path_factory.mktemp("array")
    return Location(str(folder) if request.param == "local" else f"memory://{folder.name}")


def opened(spec: ArraySpec, location: Location) -> StoredArray:
    return StoredArray(spec, spec.slot_length(SLOT_S), location)


def test_any_part_is_that_of_the_whole(
    spec: ArraySpec, shard: Shard, location: Location, stored: dict[str, NDArray[Any]]
) -> None:
    array, rng = opened(spec, location), np.random.default_rng(0)
    for name, whole in stored.items():
        n, each, slot = whole.shape[-1], spec.chunk_length, spec.slot_length(SLOT_S)
        ends = [0, 1, n - 1, n, *(end for end in (each, each + 1, slot - 1, slot, slot + each) if end < n)]
        parts = [slice(start, stop) for start in ends for stop in ends if start <= stop]
        parts += [slice(*sorted(pair)) for pair in rng.integers(0, n, (8, 2)).tolist()]
        for part in [*parts, slice(None), slice(-5, None), slice(n - 2, n + 5)]:
            got = array.read(shard, [(name, part)], "here")[0]
            assert got.dtype == whole.dtype
            np.testing.assert_array_equal(got, whole[..., part])


def test_a_part_takes_no_more_than_its_chunks(
    spec: ArraySpec,
    shard: Shard,
    location: Location,
    stored: dict[str, NDArray[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    array, taken = opened(spec, location), []
    read_range = Location.read_range

    def counted(self: Location, name: str, start: int, stop: int | None = None) -> bytes:
        data = read_range(self, name, start, stop)
        taken.append(len(data))
        return data

    monkeypatch.setattr(Location, "read_range", counted)
    monkeypatch.setattr(Location, "read", lambda *_: pytest.fail("a whole file was read"))
    start = spec.slot_length(SLOT_S) + spec.chunk_length + 10
    array.read(shard, [("b", slice(start, start + 20))], "here")
    assert len(taken) == 2
    assert sum(taken) < 1.1 * stored["b"].nbytes / stored["b"].shape[-1] * spec.chunk_length


def test_damage_elsewhere_is_no_matter(
    spec: ArraySpec, shard: Shard, location: Location, stored: dict[str, NDArray[Any]]
) -> None:
    array = opened(spec, location)
    first = next(iter(encode(spec, spec.slot_length(SLOT_S), shard, stored)))
    data = bytearray(location.read(first))
    data[10] ^= 1
    location.replace(first, bytes(data))
    with pytest.raises(DamagedData, match=r"here: can't be decoded \(ValueError: the CRC-32C is"):
        array.read(shard, [(shard.utterances[0].utterance_id, slice(0, 10))], "here")
    last = stored["b"][..., -10:]
    np.testing.assert_array_equal(array.read(shard, [("b", slice(-10, None))], "here")[0], last)
    location.remove(first)
    with pytest.raises(DamagedData, match="here: is missing"):
        array.read(shard, [(shard.utterances[0].utterance_id, slice(0, 10))], "here")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda fields: fields | {"data_type": "float64"},
        lambda fields: fields | {"shape": [*fields["shape"], 2]},
        lambda fields: fields | {"shape": ["x", *fields["shape"][1:]]},
        lambda fields: json.loads(json.dumps(fields).replace('"crc32c"', '"gzip"')),
        lambda fields: json.loads(json.dumps(fields).replace('"sharding_indexed"', '"bytes"')),
        lambda fields: json.loads(json.dumps(fields).replace('"end"', '"start"')),
    ],
)
@pytest.mark.usefixtures("stored")
def test_metadata_of_another_array_are_damage(
    spec: ArraySpec, location: Location, spoil: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    fields = json.loads(location.read(METADATA))
    location.replace(METADATA, json.dumps(spoil(fields)).encode())
    with pytest.raises(DamagedData, match=r"zarr.json: describes another array than the product's"):
        opened(spec, location)
