"""Shards as Zarr bytes: encoded and decoded in memory, or read span by span from the store."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore

from melmill.storage.arrays import ArraySpec, fill_value, joined
from melmill.storage.errors import damaged
from melmill.storage.location import Location
from melmill.storage.object_client import bucket_and_key, client, is_object_store
from melmill.storage.object_errors import explained
from melmill.storage.utterance import Shard

METADATA = "zarr.json"


def metadata(spec: ArraySpec, slot_length: int, n_slots: int) -> bytes:
    """Return the Zarr v3 metadata of an array of `n_slots` shards."""
    store = MemoryStore()
    _create(store, spec, slot_length, n_slots)
    return _files(store)[METADATA]


def array_slots(data: bytes, slot_length: int) -> int:
    """Return how many slots an array has, from its metadata; raise ValueError where they are none."""
    try:
        return int(json.loads(data)["shape"][0]) // slot_length
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(f"no shape of an array in {data[:60]!r}") from error


def shard_files(spec: ArraySpec, shard: Shard) -> list[str]:
    """Return the names of the files that a shard fills, one a slot, relative to the array's folder."""
    return [_file(spec, shard.slot + i) for i in range(shard.n_slots)]


def encode(spec: ArraySpec, slot_length: int, shard: Shard, arrays: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    """Return the files of a shard that holds the arrays, by name relative to the array's folder.

    Parameters
    ----------
    spec : ArraySpec
    slot_length : int
        Of ``spec.slot_length``.
    shard : Shard
    arrays : mapping of str to ndarray
        By utterance id, ``(n_samples,)`` or ``(n_mels, n_frames)``, checked; those left out leave a gap.
    """
    store = MemoryStore()
    _create(store, spec, slot_length, shard.n_slots)[...] = joined(spec, shard, arrays, slot_length)
    files = _files(store)
    return {_file(spec, shard.slot + i): files[_file(spec, i)] for i in range(shard.n_slots)}


def decode(
    spec: ArraySpec, slot_length: int, shard: Shard, files: Mapping[str, bytes], ids: Collection[str], place: str
) -> dict[str, NDArray[Any]]:
    """Return the arrays of utterances from the bytes of a shard's files; raise DamagedData naming `place`."""
    store = MemoryStore()
    array = _create(store, spec, slot_length, shard.n_slots)
    for i, name in enumerate(shard_files(spec, shard)):
        store._store_dict[_file(spec, i)] = default_buffer_prototype().buffer.from_bytes(files[name])
    spans = spec.spans(shard)
    try:
        whole = np.asarray(array[...])
    except Exception as error:
        raise damaged(place, f"can't be decoded ({type(error).__name__}: {error})") from error
    return {name: np.array(whole[spans[name]].T, order="C") for name in ids}


class StoredArray:
    """Read single utterances from an array in the store: only the inner chunks that they lie in are fetched.

    Parameters
    ----------
    spec : ArraySpec
    slot_length : int
        Of ``spec.slot_length``.
    location : Location
        Folder of the array.
    """

    def __init__(self, spec: ArraySpec, slot_length: int, location: Location) -> None:
        self.spec = spec
        self.slot_length = slot_length
        self._url = location.url
        self._store, self._path = _opened(location)
        self._array = self._open()

    def _open(self) -> zarr.Array[Any]:
        try:
            return zarr.open_array(self._store, path=self._path, mode="r")
        except Exception as error:
            raise explained(error, self._url, "read") or error from error

    def read(self, shard: Shard, utterance_id: str, part: slice, place: str) -> NDArray[Any]:
        """Return `part` of an utterance's samples or frames; raise DamagedData naming `place`."""
        if (shard.slot + shard.n_slots) * self.slot_length > self._array.shape[0]:
            # Another process has grown the array since it was opened.
            self._array = self._open()
        span = self.spec.spans(shard)[utterance_id]
        begin = shard.slot * self.slot_length + span.start
        start, stop, _ = part.indices(span.stop - span.start)
        try:
            entries = np.asarray(self._array[begin + start : begin + stop])
        except OSError:
            raise
        except Exception as error:
            told = explained(error, self._url, "read")
            raise told or damaged(place, f"can't be decoded ({type(error).__name__}: {error})") from error
        return np.array(entries.T, order="C")


def _create(store: MemoryStore, spec: ArraySpec, slot_length: int, n_slots: int) -> zarr.Array[Any]:
    return zarr.create_array(
        store,
        shape=(n_slots * slot_length, *spec.width),
        shards=(slot_length, *spec.width),
        chunks=(spec.chunk_length, *spec.width),
        dtype=spec.dtype,
        fill_value=fill_value(spec),
        # Blosc has no checksum of its own: without Crc32c most flipped bits would go unnoticed.
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
        dimension_names=["sample"] if spec.n_mels is None else ["frame", "mel"],
        zarr_format=3,
        # A silent shard would otherwise not be written at all, and could not be told from a lost one.
        config={"write_empty_chunks": True},
    )


def _opened(location: Location) -> tuple[Store, str]:
    """Return a Zarr store and the path in it of a folder."""
    if is_object_store(location.url):
        bucket, key = bucket_and_key(location.url)
        return ObjectStore(client(bucket), read_only=True), key
    if location.is_remote:
        return FsspecStore.from_url(location.url, read_only=True), ""
    return LocalStore(location.url, read_only=True), ""


def _files(store: MemoryStore) -> dict[str, bytes]:
    return {name: buffer.to_bytes() for name, buffer in store._store_dict.items()}


def _file(spec: ArraySpec, slot: int) -> str:
    return "/".join(["c", str(slot), *("0" for _ in spec.width)])
