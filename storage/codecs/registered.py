"""The codecs as Zarr knows them: ``melmill.flac`` for 16-bit waveforms, ``melmill.mel`` for mels of float16.

Zarr finds them by the entry points of the installed package. They turn a chunk into bytes, and
stand where ``bytes`` and a compressor would. Neither holds a checksum that covers all: add
``crc32c``.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.common import JSON, parse_named_configuration
from zarr.registry import register_codec

from melmill.storage.codecs.mel import decode_mel, encode_mel
from melmill.storage.codecs.pcm import decode_pcm, encode_pcm

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

MAX_SAMPLE_RATE = (1 << 20) - 1


@dataclass(frozen=True)
class _ChunkCodec(ArrayBytesCodec):
    """Encode and decode chunks of one type and number of axes, in threads."""

    is_fixed_size = False
    name: ClassVar[str]
    dtype: ClassVar[str]
    n_axes: ClassVar[int]

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: object) -> None:  # noqa: ANN401
        """Raise ValueError for arrays of another kind."""
        got = dtype.to_native_dtype().name
        if got != self.dtype or len(shape) != self.n_axes:
            raise ValueError(
                f"codec {self.name!r}: the array has dtype {got!r} and shape {shape!r}, "
                f"expected {self.dtype!r} and {self.n_axes} axes"
            )

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Return the codec of a metadata document."""
        _, configuration = parse_named_configuration(data, cls.name, require_configuration=False)
        return cls(**(configuration or {}))

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        # Native byte order, which metadata need not ask for.
        chunk = chunk_array.as_numpy_array().astype(self.dtype, copy=False)
        data = await asyncio.to_thread(self.encoded, chunk)
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        chunk = await asyncio.to_thread(self.decoded, chunk_data.to_bytes(), chunk_spec.shape)
        chunk = chunk.astype(chunk_spec.dtype.to_native_dtype(), copy=False)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(chunk)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise NotImplementedError: the size depends on the values."""
        raise NotImplementedError

    @abstractmethod
    def encoded(self, chunk: NDArray[Any]) -> bytes:
        """Return the bytes of a chunk."""

    @abstractmethod
    def decoded(self, data: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the chunk of some bytes; raise ValueError or RuntimeError for others."""


@dataclass(frozen=True)
class FlacCodec(_ChunkCodec):
    """A chunk of a 16-bit waveform as a FLAC stream, which any FLAC decoder reads.

    Parameters
    ----------
    sample_rate : int
        What the streams say, Hz.
    """

    name: ClassVar[str] = "melmill.flac"
    dtype: ClassVar[str] = "int16"
    n_axes: ClassVar[int] = 1

    sample_rate: int = 16000

    def __post_init__(self) -> None:
        """Check the rate."""
        if not isinstance(self.sample_rate, int) or not 1 <= self.sample_rate <= MAX_SAMPLE_RATE:
            raise ValueError(
                f"codec {self.name!r}: sample_rate must be a number from 1 to {MAX_SAMPLE_RATE}, "
                f"got {self.sample_rate!r}"
            )

    def to_dict(self) -> dict[str, JSON]:
        """Return the codec as it stands in metadata."""
        return {"name": self.name, "configuration": {"sample_rate": self.sample_rate}}

    def encoded(self, chunk: NDArray[Any]) -> bytes:
        """Return the FLAC stream of a chunk."""
        return encode_pcm(chunk, self.sample_rate)

    def decoded(self, data: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the samples of a FLAC stream."""
        return decode_pcm(data, shape[0])


@dataclass(frozen=True)
class MelCodec(_ChunkCodec):
    """A chunk of frames, see `melmill.storage.codecs.mel`."""

    name: ClassVar[str] = "melmill.mel"
    dtype: ClassVar[str] = "float16"
    n_axes: ClassVar[int] = 2

    def to_dict(self) -> dict[str, JSON]:
        """Return the codec as it stands in metadata."""
        return {"name": self.name}

    def encoded(self, chunk: NDArray[Any]) -> bytes:
        """Return the bytes of a chunk."""
        return encode_mel(chunk)

    def decoded(self, data: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the frames of a chunk's bytes."""
        return decode_mel(data, shape)


# An uninstalled melmill has no entry points.
register_codec(FlacCodec.name, FlacCodec)
register_codec(MelCodec.name, MelCodec)
