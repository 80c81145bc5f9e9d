"""The codecs of inner chunks: FLAC for waveforms of int16 and mels of float16, and Blosc for other types.

Blosc decodes whatever it encoded, so that its settings may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from melmill.storage.codecs.mel import decode_mel, encode_mel
from melmill.storage.codecs.pcm import decode_pcm, encode_pcm

if TYPE_CHECKING:
    from numcodecs.blosc import Blosc

# An inner chunk, (n_samples,) or (n_frames, n_mels).
Chunk = NDArray[Any]

# Blosc's compressor and its level. Bits are shuffled.
Compressor = tuple[Literal["zstd", "lz4"], int]
ZSTD: Compressor = ("zstd", 3)
LZ4: Compressor = ("lz4", 5)

# The gap of a codec that decodes a chunk as a whole, whatever part is wanted.
_ALL = 2**62


class ChunkCodec(Protocol):
    """Turn inner chunks into bytes and back."""

    names: ClassVar[tuple[str, ...]]
    """Its codecs in the metadata of an array."""
    gap: ClassVar[int]
    """Entries of a chunk that take no longer to decode than a second call does."""

    def encode(self, chunk: Chunk) -> bytes:
        """Return the bytes of a chunk."""
        ...

    def decode(self, data: bytes, shape: tuple[int, ...], dtype: str, part: slice) -> Chunk:
        """Return `part` of the samples or frames of a chunk; raise ValueError or RuntimeError for other bytes."""
        ...


@dataclass(frozen=True)
class BloscChunks:
    """Blosc, with its bits shuffled.

    Parameters
    ----------
    compressor : tuple of str and int
        Its name and level.
    """

    names: ClassVar[tuple[str, ...]] = ("bytes", "blosc")
    gap: ClassVar[int] = _ALL

    compressor: Compressor

    def encode(self, chunk: Chunk) -> bytes:
        """Return the bytes of a chunk."""
        stored = np.ascontiguousarray(chunk, dtype=chunk.dtype.newbyteorder("<"))
        data: bytes = _blosc(self.compressor).encode(stored)
        return data

    def decode(self, data: bytes, shape: tuple[int, ...], dtype: str, part: slice) -> Chunk:
        """Return `part` of a chunk, all of which is decoded."""
        stored = np.dtype(dtype).newbyteorder("<")
        chunk: Chunk = np.frombuffer(_blosc(self.compressor).decode(data), dtype=stored).reshape(shape)[part]
        return chunk.astype(dtype, copy=False)


@dataclass(frozen=True)
class FlacChunks:
    """FLAC streams of waveforms, of which a part can be decoded.

    Parameters
    ----------
    sample_rate : int
        What the streams say, Hz.
    """

    names: ClassVar[tuple[str, ...]] = ("melmill.flac",)
    gap: ClassVar[int] = 32_768

    sample_rate: int

    def encode(self, chunk: Chunk) -> bytes:
        """Return the FLAC stream of a chunk."""
        return encode_pcm(chunk, self.sample_rate)

    def decode(self, data: bytes, shape: tuple[int, ...], dtype: str, part: slice) -> Chunk:
        """Return `part` of the samples of a FLAC stream."""
        del dtype
        return decode_pcm(data, shape[0], part)


@dataclass(frozen=True)
class MelChunks:
    """FLAC streams of mels, see `melmill.storage.codecs.mel`."""

    names: ClassVar[tuple[str, ...]] = ("melmill.mel",)
    gap: ClassVar[int] = _ALL

    def encode(self, chunk: Chunk) -> bytes:
        """Return the bytes of a chunk."""
        return encode_mel(chunk)

    def decode(self, data: bytes, shape: tuple[int, ...], dtype: str, part: slice) -> Chunk:
        """Return `part` of the frames of a chunk, all of whose stream is decoded."""
        del dtype
        return decode_mel(data, shape, part)


@cache
def _blosc(compressor: Compressor) -> Blosc:
    from numcodecs import blosc

    # Threads of Blosc would write the blocks of a chunk in the order in which they are done.
    blosc.use_threads = False
    return blosc.Blosc(*compressor, blosc.BITSHUFFLE)
