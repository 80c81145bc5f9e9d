"""An array in the store, of which single utterances are read chunk by chunk."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from melmill.storage.arrays import METADATA, Array, ArraySpec, chunk_codec, fill_value, shard_files
from melmill.storage.codecs.sharding import chunk_places, index_bytes, without_checksum
from melmill.storage.errors import damaged
from melmill.storage.files.location import Location
from melmill.storage.utterance import Shard

# An utterance's id, and which of its samples or frames are wanted.
Part = tuple[str, slice]


class StoredArray:
    """Read parts of utterances of an array. Only the inner chunks that hold them are decoded.

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

    def read(self, shard: Shard, parts: Sequence[Part], place: str) -> list[Array]:
        """Return parts of utterances of a shard, ``(n_samples,)`` or ``(n_mels, n_frames)``.

        A chunk that several parts lie in is decoded once. Of one part only its chunks are fetched. Of
        several, the files are read whole, each with one request.

        Parameters
        ----------
        shard : Shard
        parts : sequence of (str, slice)
            Utterance ids, and which of their samples or frames are wanted.
        place : str
            For messages.

        Raises
        ------
        DamagedData
            The array or a chunk is not what was written.
        """
        if shard.slot + shard.n_slots > self._n_slots:
            # Another process has grown the array since it was opened.
            self._n_slots = self._checked_slots()
        if shard.slot + shard.n_slots > self._n_slots:
            raise damaged(f"{self._location.url}/{METADATA}", "describes another array than the product's")
        spans, each = self.spec.spans(shard), self.spec.chunk_length
        arrays: list[Array] = []
        # By the number of the chunk, counted from the shard's first one: whole chunks fill a slot.
        cuts: defaultdict[int, list[_Cut]] = defaultdict(list)
        for utterance_id, part in parts:
            span = spans[utterance_id]
            start, stop, _ = part.indices(span.stop - span.start)
            array = np.empty((*self.spec.width, max(0, stop - start)), dtype=self.spec.dtype)
            arrays.append(array)
            begin, end = span.start + start, span.start + stop
            for number in range(begin // each, -(-end // each)):
                low, high = max(begin, number * each), min(end, (number + 1) * each)
                if low < high:
                    cuts[number].append(_Cut(low - number * each, array.T[low - begin : high - begin]))
        n_chunks = self.slot_length // each
        for i, name in enumerate(shard_files(self.spec, shard)):
            inside = {number - i * n_chunks: cuts[number] for number in sorted(cuts) if number // n_chunks == i}
            if inside:
                try:
                    self._read_slot(name, inside, whole=len(parts) > 1)
                except FileNotFoundError as error:
                    raise damaged(place, "is missing") from error
                except (ValueError, RuntimeError) as error:
                    raise damaged(place, f"can't be decoded ({type(error).__name__}: {error})") from error
        return arrays

    def _read_slot(self, name: str, cuts: Mapping[int, Sequence[_Cut]], *, whole: bool) -> None:
        """Fill the cuts of each chunk of a shard's file."""
        n_chunks, at = self.slot_length // self.spec.chunk_length, 0
        data = self._location.read(name) if whole else b""
        index = data[-index_bytes(n_chunks) :] if whole else self._location.read_range(name, -index_bytes(n_chunks))
        places = chunk_places(index, n_chunks)
        stored = [place for number in cuts if (place := places[number]) is not None]
        if stored and not whole:
            at = min(place.start for place in stored)
            data = self._location.read_range(name, at, max(place.stop for place in stored))
        for number, inside in cuts.items():
            place = places[number]
            if place is None:
                for cut in inside:
                    cut.entries[:] = fill_value(self.spec)
            else:
                self._decode(without_checksum(data[place.start - at : place.stop - at]), inside)

    def _decode(self, inner: bytes, cuts: Sequence[_Cut]) -> None:
        """Fill cuts of a chunk."""
        for run, part in _runs(cuts, self._codec.gap):
            chunk = self._codec.decode(inner, self.spec.chunk_shape, self.spec.dtype, part)
            for start, entries in run:
                entries[:] = chunk[start - part.start : start - part.start + len(entries)]


class _Cut(NamedTuple):
    """Hold entries that are to be filled, and where they begin in their chunk."""

    start: int
    entries: Array


def _runs(cuts: Sequence[_Cut], gap: int) -> Iterator[tuple[list[_Cut], slice]]:
    """Yield cuts with the part that they span, those together between which lies no more than `gap`."""
    run: list[_Cut] = []
    stop = 0
    for cut in sorted(cuts, key=lambda cut: cut.start):
        if run and cut.start > stop + gap:
            yield run, slice(run[0].start, stop)
            run, stop = [], 0
        run.append(cut)
        stop = max(stop, cut.start + len(cut.entries))
    yield run, slice(run[0].start, stop)


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
