"""An array in the store, of which single utterances are read chunk by chunk."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

import numpy as np

from melmill.storage.arrays import METADATA, Array, ArraySpec, chunk_codec, fill_value, shard_files
from melmill.storage.codecs.sharding import chunk_places, index_bytes, without_checksum
from melmill.storage.errors import damaged
from melmill.storage.files.location import Location
from melmill.storage.utterance import Shard


class StoredArray:
    """Read utterances of an array. Only their inner chunks are fetched.

    Of each shard, its index is read, and the bytes of all chunks that are wanted at once.

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
        self._location = location
        self._codec = chunk_codec(spec)
        self._n_slots = self._checked_slots()

    def _checked_slots(self) -> int:
        """Return how many slots the array has by its metadata, which must be those of the layout."""
        place = f"{self._location.url}/{METADATA}"
        try:
            fields = json.loads(self._location.read(METADATA))
            length, said = fields["shape"][0], _layout(fields)
        except FileNotFoundError as error:
            raise damaged(place, "is missing") from error
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise damaged(place, f"can't be parsed ({type(error).__name__}: {error})") from error
        if said != self._expected or not isinstance(length, int):
            raise damaged(place, "describes another array than the product's")
        return length // self.slot_length

    @cached_property
    def _expected(self) -> dict[str, Any]:
        width = list(self.spec.width)
        return {
            "data_type": self.spec.dtype,
            "width": width,
            "shards": [self.slot_length, *width],
            "sharding": "sharding_indexed",
            "chunks": [self.spec.chunk_length, *width],
            "codecs": [*self._codec.names, "crc32c"],
            "index_codecs": ["bytes", "crc32c"],
            "index_location": "end",
        }

    def read(self, shard: Shard, utterance_id: str, part: slice, place: str) -> Array:
        """Return `part` of an utterance's samples or frames; raise DamagedData naming `place`."""
        if shard.slot + shard.n_slots > self._n_slots:
            # Another process has grown the array since it was opened.
            self._n_slots = self._checked_slots()
        if shard.slot + shard.n_slots > self._n_slots:
            raise damaged(f"{self._location.url}/{METADATA}", "describes another array than the product's")
        span = self.spec.spans(shard)[utterance_id]
        start, stop, _ = part.indices(span.stop - span.start)
        begin, end = span.start + start, span.start + max(start, stop)
        entries = np.full((end - begin, *self.spec.width), fill_value(self.spec), dtype=self.spec.dtype)
        for i, name in enumerate(shard_files(self.spec, shard)):
            first = i * self.slot_length
            low, high = max(begin, first), min(end, first + self.slot_length)
            if low < high:
                try:
                    self._read_slot(name, low - first, entries[low - begin : high - begin])
                except FileNotFoundError as error:
                    raise damaged(place, "is missing") from error
                except (ValueError, RuntimeError) as error:
                    raise damaged(place, f"can't be decoded ({type(error).__name__}: {error})") from error
        return np.array(entries.T, order="C")

    def _read_slot(self, name: str, start: int, entries: Array) -> None:
        """Fill `entries` with those of a shard's file from `start` on."""
        each, stop = self.spec.chunk_length, start + len(entries)
        n_chunks, first = self.slot_length // each, start // each
        index = self._location.read_range(name, -index_bytes(n_chunks))
        places = chunk_places(index, n_chunks)[first : -(-stop // each)]
        stored = [place for place in places if place is not None]
        if not stored:
            return
        low, high = min(place.start for place in stored), max(place.stop for place in stored)
        data = self._location.read_range(name, low, high)
        for number, place in enumerate(places, first):
            if place is not None:
                begin, end = max(start, number * each), min(stop, (number + 1) * each)
                inner = without_checksum(data[place.start - low : place.stop - low])
                within = slice(begin - number * each, end - number * each)
                chunk = self._codec.decode(inner, self.spec.chunk_shape, self.spec.dtype, within)
                entries[begin - start : end - start] = chunk


def _layout(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what of an array's metadata decides how its entries are read."""
    sharding = fields["codecs"][0]
    inner = sharding["configuration"]
    return {
        "data_type": fields["data_type"],
        "width": fields["shape"][1:],
        "shards": fields["chunk_grid"]["configuration"]["chunk_shape"],
        "sharding": sharding["name"],
        "chunks": inner["chunk_shape"],
        "codecs": [codec["name"] for codec in inner["codecs"]],
        "index_codecs": [codec["name"] for codec in inner["index_codecs"]],
        "index_location": inner.get("index_location", "end"),
    }
