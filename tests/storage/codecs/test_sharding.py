"""Shards as bytes: those that Zarr writes, and what Zarr wrote is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from melmill.storage.arrays import ArraySpec, assemble, decode, encode, metadata
from melmill.storage.catalogue import Catalogue
from melmill.storage.codecs.sharding import chunk_places, index_bytes, shard_bytes, without_checksum

SLOT_S = 40.0
FRAMING: dict[str, Any] = {"sr": 16000, "n_mels": 8, "n_fft": 1024, "hop_length": 256, "pad": 512}
SPECS = {
    "PCM": ArraySpec(dtype="int16", sr=16000),
    "PCM in Blosc": ArraySpec(dtype="int16", sr=16000, codecs=1),
    "half mels": ArraySpec(dtype="float16", **FRAMING),
    "mels in lz4": ArraySpec(dtype="float32", **FRAMING),
    "mels in zstd": ArraySpec(dtype="float32", codecs=1, **FRAMING),
    "floats": ArraySpec(dtype="float32", sr=16000),
}


@pytest.fixture(params=list(SPECS.values()), ids=list(SPECS))
def spec(request: pytest.FixtureRequest) -> ArraySpec:
    """Return each layout."""
    layout: ArraySpec = request.param
    return layout


def by_zarr(
    folder: Path, spec: ArraySpec, catalogue: Catalogue, wholes: list[NDArray[Any]], *, write_empty: bool = True
) -> dict[str, bytes]:
    """Return the files that Zarr writes of whole shards by name."""
    slot_length = spec.slot_length(SLOT_S)
    folder.mkdir()
    (folder / "zarr.json").write_bytes(metadata(spec, slot_length, catalogue.n_slots))
    with zarr.config.set({"array.write_empty_chunks": write_empty}):
        zarr.open_array(folder, mode="r+")[...] = np.concatenate(wholes)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("c/**/*") if path.is_file()}


def test_the_bytes_are_zarrs(
    tmp_path: Path, spec: ArraySpec, catalogue: Catalogue, arrays: Callable[..., dict[str, NDArray[Any]]]
) -> None:
    slot_length = spec.slot_length(SLOT_S)
    files: dict[str, bytes] = {}
    wholes = []
    assert slot_length > 2 * spec.chunk_length
    for index in range(catalogue.n_shards):
        shard = catalogue.shard(index)
        made = arrays(spec, shard)
        files |= encode(spec, slot_length, shard, made)
        wholes.append(assemble(spec, shard, made, slot_length))
    assert by_zarr(tmp_path / "array", spec, catalogue, wholes) == files


def test_chunks_that_zarr_leaves_out_are_gaps(
    tmp_path: Path, spec: ArraySpec, catalogue: Catalogue, arrays: Callable[..., dict[str, NDArray[Any]]]
) -> None:
    slot_length = spec.slot_length(SLOT_S)
    shards = [catalogue.shard(index) for index in range(catalogue.n_shards)]
    made = [arrays(spec, shard) for shard in shards]
    wholes = [assemble(spec, shard, some, slot_length) for shard, some in zip(shards, made, strict=True)]
    files = by_zarr(tmp_path / "array", spec, catalogue, wholes, write_empty=False)
    n_chunks = slot_length // spec.chunk_length
    assert all(None in chunk_places(data[-index_bytes(n_chunks) :], n_chunks) for data in files.values())
    for shard, some in zip(shards, made, strict=True):
        if shard.n_slots == 1:
            for name, array in decode(spec, slot_length, shard, files, list(some), "here").items():
                np.testing.assert_array_equal(array, some[name])


def test_places_and_checksums() -> None:
    data = shard_bytes([b"one", b"", b"three"])
    places = chunk_places(data[-index_bytes(3) :], 3)
    assert [without_checksum(data[place]) for place in places if place] == [b"one", b"", b"three"]
    with pytest.raises(ValueError, match="the index has 52 bytes, expected 68 for 4 chunks"):
        chunk_places(data[-index_bytes(3) :], 4)
    with pytest.raises(ValueError, match=r"the CRC-32C is \w{8}, expected \w{8}"):
        without_checksum(b"two" + data[3:7])
