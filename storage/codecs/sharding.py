"""A shard's file as Zarr's sharding codec lays it out: inner chunks, and the index of their places.

Each inner chunk ends with its CRC-32C, and so does the index, which is last. Shards are written and
read here without Zarr, whose way through a pipeline of tasks takes longer than the work itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import google_crc32c
import numpy as np
from numpy.typing import NDArray

_CHECK_BYTES = 4
# Offset and number of bytes of a chunk.
_PLACE_BYTES = 16
# What both are of a chunk that is left out, because all of it is the fill value.
_LEFT_OUT = np.uint64(2**64 - 1)


def shard_bytes(chunks: Sequence[bytes]) -> bytes:
    """Return the file of a shard from the encoded inner chunks, which have no checksum yet."""
    places = np.empty((len(chunks), 2), dtype="<u8")
    places[:, 1] = [len(chunk) + _CHECK_BYTES for chunk in chunks]
    places[:, 0] = np.cumsum(places[:, 1]) - places[:, 1]
    return b"".join(part for data in (*chunks, places.tobytes()) for part in (data, _checksum(data)))


def index_bytes(n_chunks: int) -> int:
    """Return the bytes that the index of a shard takes, at its end."""
    return n_chunks * _PLACE_BYTES + _CHECK_BYTES


def chunk_places(index: bytes, n_chunks: int) -> list[slice | None]:
    """Return the bytes of the file that each inner chunk takes; None for one that is left out.

    Raises
    ------
    ValueError
        `index` is damaged, or of another number of chunks.
    """
    if len(index) != index_bytes(n_chunks):
        raise ValueError(f"the index has {len(index)} bytes, expected {index_bytes(n_chunks)} for {n_chunks} chunks")
    places: NDArray[np.uint64] = np.frombuffer(without_checksum(index), dtype="<u8").reshape(n_chunks, 2)
    return [None if offset == _LEFT_OUT else slice(int(offset), int(offset + n)) for offset, n in places]


def without_checksum(data: bytes) -> bytes:
    """Return an inner chunk without the checksum that it ends with; raise ValueError if that differs."""
    inner, said = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if _checksum(inner) != said:
        raise ValueError(f"the CRC-32C is {_checksum(inner).hex()}, expected {said.hex()}")
    return inner


def _checksum(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(_CHECK_BYTES, "little")
