"""The arrays of a product: the places of utterances in them, and shards as Zarr bytes.

Lengths, slots and spans are known before anything is computed. Whole shards are encoded and decoded
in memory. Zarr writes and reads the same bytes, and makes the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.storage.codecs.chunks import LZ4, ZSTD, BloscChunks, ChunkCodec, FlacChunks, MelChunks
from melmill.storage.codecs.sharding import chunk_places, index_bytes, shard_bytes, without_checksum
from melmill.storage.corpus.packing import MAX_UTTERANCES
from melmill.storage.errors import StoreError, damaged
from melmill.storage.utterance import Shard, Utterance, resampled_length

# Functions import Zarr when they first need it: it takes as long as to plan or to read.
if TYPE_CHECKING:
    from zarr.abc.codec import ArrayBytesCodec, BytesBytesCodec
    from zarr.storage import MemoryStore
    from zarr.types import AnyArray

# Inner chunks, the least that a reader fetches: about 16 s of audio at usual rates.
CHUNK_FRAMES = 1024
CHUNK_SAMPLES = 1024 * 256

# Versions of the codecs: Blosc with zstd for all; FLAC for waveforms of int16 and mels of float16; and
# Blosc with lz4 for the others.
ZSTD_CODECS, FLAC_CODECS, LZ4_CODECS = 1, 2, 3
CODECS = 3

_EXPONENT = np.uint16(0x7C00)

# A waveform (n_samples,) or a mel (n_mels, n_frames) in a dtype of ArraySpec.
Array = NDArray[np.int16 | np.float16 | np.float32]


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """The layout of an array of waveforms, or of mels where `n_mels` is given.

    The entries of an utterance are its samples or frames. Their number follows from its length in
    the catalogue. A waveform is the case of frames of one sample.

    Parameters
    ----------
    dtype : {"int16", "float16", "float32"}
    sr : int
        Sampling rate of the waveforms, or of those under the mels, Hz.
    n_mels : int or None
        Mel bands; None for waveforms.
    n_fft, hop_length, pad : int
        Framing of the mels, samples. `pad` is added at each end of the waveform.
    frames : {"all", "floor", "round", "one"}
        Frames that mels have: all, the whole hops of the waveform, or hops rounded half up. What
        describes an utterance as a whole has one.
    frame_multiple : int
        The number of frames is rounded up to a multiple of it.
    codecs : int
        Version of the codecs, which a product keeps. Where that changed nothing for arrays of this
        type, it is the version before.
    """

    dtype: str
    sr: int
    n_mels: int | None = None
    n_fft: int = 1
    hop_length: int = 1
    pad: int = 0
    codecs: int = CODECS
    frames: str = "all"
    frame_multiple: int = 1

    def __post_init__(self) -> None:
        """Check the type and that the sizes make sense."""
        if self.dtype not in ("int16", "float16", "float32"):
            raise StoreError(f"dtype must be 'int16', 'float16' or 'float32', got {self.dtype!r}")
        if self.dtype == "int16" and self.n_mels is not None:
            raise StoreError("dtype 'int16' is for waveforms: it can't mark gaps between mels")
        if self.codecs not in (ZSTD_CODECS, FLAC_CODECS, LZ4_CODECS):
            raise StoreError(f"codecs must be a version from {ZSTD_CODECS} to {CODECS}, got {self.codecs!r}")
        is_flac = self.dtype == ("float16" if self.n_mels else "int16")
        if self.codecs == (LZ4_CODECS if is_flac else FLAC_CODECS):
            object.__setattr__(self, "codecs", self.codecs - 1)
        if self.frames not in ("all", "floor", "round", "one") or self.frame_multiple < 1:
            raise StoreError(
                f"frames must be 'all', 'floor', 'round' or 'one' and frame_multiple positive, got {self!r}"
            )
        if min(self.sr, self.n_fft, self.hop_length) < 1 or self.pad < 0 or (self.n_mels or 1) < 1:
            raise StoreError(f"sr, n_mels, n_fft and hop_length must be positive and pad not negative, got {self!r}")

    @property
    def chunk_length(self) -> int:
        """Entries of an inner chunk."""
        return CHUNK_SAMPLES if self.n_mels is None else CHUNK_FRAMES

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of an inner chunk."""
        return (self.chunk_length, *self.width)

    @property
    def width(self) -> tuple[int, ...]:
        """Shape of one entry as stored."""
        return () if self.n_mels is None else (self.n_mels,)

    def length(self, utterance: Utterance) -> int:
        """Return an utterance's samples or frames, 0 where its header could not be read."""
        return self.entries(utterance.n_samples, utterance.sr)

    def entries(self, n_samples: int, sr: int) -> int:
        """Return the samples or frames of a recording of `n_samples` at `sr` Hz."""
        if n_samples == 0 or self.frames == "one":
            return min(n_samples, 1)
        n_samples = resampled_length(n_samples, sr, self.sr)
        n_frames = max(0, 1 + (n_samples + 2 * self.pad - self.n_fft) // self.hop_length)
        if n_frames and self.frames == "floor":
            n_frames = min(n_frames, n_samples // self.hop_length)
        elif n_frames and self.frames == "round":
            n_frames = (2 * n_samples + self.hop_length) // (2 * self.hop_length)
        return -(-n_frames // self.frame_multiple) * self.frame_multiple

    def slot_length(self, shard_duration_s: float) -> int:
        """Return the entries of a slot: whole inner chunks with room for any shard of `pack`.

        Each of `MAX_UTTERANCES` may add a sample by resampling, and some frames by padding.
        """
        if self.frames == "one":
            return -(-MAX_UTTERANCES // self.chunk_length) * self.chunk_length
        more = self.frame_multiple - 1 + (self.frames == "round")
        rounding = MAX_UTTERANCES * (1 + max(0, self.hop_length + 2 * self.pad - self.n_fft) + more * self.hop_length)
        samples = Fraction(shard_duration_s) * self.sr + rounding
        return -(-samples // (self.hop_length * self.chunk_length)) * self.chunk_length

    def spans(self, shard: Shard) -> dict[str, slice]:
        """Return the span of each utterance by id, in entries from the shard's first slot on."""
        spans, start = {}, 0
        for utterance in shard.utterances:
            stop = start + self.length(utterance)
            spans[utterance.utterance_id] = slice(start, stop)
            start = stop
        return spans

    def shape(self, utterance: Utterance) -> tuple[int, ...]:
        """Return the shape of an utterance's array: ``(n_samples,)`` or ``(n_mels, n_frames)``."""
        return (*self.width, self.length(utterance))

    def check(self, utterance: Utterance, array: Array, place: str) -> None:
        """Raise StoreError unless `array` is finite and has the utterance's shape and the dtype."""
        problem = ""
        if array.shape != self.shape(utterance):
            problem = f"shape {array.shape!r}, expected {self.shape(utterance)!r}"
        elif array.dtype != np.dtype(self.dtype):
            problem = f"dtype {array.dtype.name!r}, expected {self.dtype!r}"
        elif n_bad := n_not_finite(array):
            problem = f"{n_bad} values that are not finite, expected none"
        if problem:
            raise StoreError(f"{place}: the array of {utterance.utterance_id!r} has {problem}")

    def as_dict(self) -> dict[str, str | int | None]:
        """Return the fields as plain values, but for what the first version of an array lacked."""
        fields = asdict(self)
        for name, first in (("codecs", ZSTD_CODECS), ("frames", "all"), ("frame_multiple", 1)):
            if fields[name] == first:
                del fields[name]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ArraySpec:
        """Return the layout that `as_dict` described."""
        return cls(**{"codecs": ZSTD_CODECS, **fields})


def n_not_finite(array: NDArray[np.integer | np.floating]) -> int:
    """Return how many values of an array are NaN or infinite."""
    if array.dtype.kind == "i":
        return 0
    if array.dtype == np.float16:
        # All bits of the exponent are set. NumPy's own test takes each value to float32 first.
        return int(np.count_nonzero((array.view(np.uint16) & _EXPONENT) == _EXPONENT))
    return int(array.size - np.count_nonzero(np.isfinite(array)))


def assemble(spec: ArraySpec, shard: Shard, arrays: Mapping[str, Array], slot_length: int) -> Array:
    """Return a shard as stored, ``(n_slots * slot_length[, n_mels])``. Gaps hold the fill value."""
    whole, spans = _gap(spec, shard.n_slots * slot_length), spec.spans(shard)
    for utterance_id, array in arrays.items():
        whole[spans[utterance_id]] = array.T
    return whole


def _gap(spec: ArraySpec, length: int) -> Array:
    return np.full((length, *spec.width), fill_value(spec), dtype=spec.dtype)


def fill_value(spec: ArraySpec) -> float:
    """Return the value of gaps: silence in waveforms, NaN in mels, where 0 could be a value."""
    return 0 if spec.n_mels is None else float("nan")


METADATA = "zarr.json"


def metadata(spec: ArraySpec, slot_length: int, n_slots: int) -> bytes:
    """Return the Zarr v3 metadata of an array of `n_slots` shards."""
    from zarr.storage import MemoryStore

    store = MemoryStore()
    _create(store, spec, slot_length, n_slots)
    return store._store_dict[METADATA].to_bytes()


def stored_codecs(data: bytes) -> int | None:
    """Return the version of an array's codecs by its metadata, None for other bytes."""
    try:
        chain = json.dumps(json.loads(data)["codecs"])
    except (ValueError, TypeError, KeyError):
        return None
    return FLAC_CODECS if '"melmill.' in chain else LZ4_CODECS if '"lz4"' in chain else ZSTD_CODECS


def array_slots(data: bytes, slot_length: int) -> int:
    """Return how many slots an array has by its metadata; raise ValueError for other bytes."""
    try:
        return int(json.loads(data)["shape"][0]) // slot_length
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(f"no shape of an array in {data[:60]!r}") from error


def shard_files(spec: ArraySpec, shard: Shard) -> list[str]:
    """Return the names of a shard's files, one per slot, relative to the array's folder."""
    return [_file(spec, shard.slot + i) for i in range(shard.n_slots)]


def encode(spec: ArraySpec, slot_length: int, shard: Shard, arrays: Mapping[str, Array]) -> dict[str, bytes]:
    """Return the bytes of a shard's files by name, relative to the array's folder.

    Parameters
    ----------
    spec : ArraySpec
    slot_length : int
        Of ``spec.slot_length``.
    shard : Shard
    arrays : mapping of str to ndarray
        By utterance id, ``(n_samples,)`` or ``(n_mels, n_frames)``, already checked. An utterance
        without an array leaves a gap.
    """
    whole, codec = assemble(spec, shard, arrays, slot_length), chunk_codec(spec)
    n_chunks = len(whole) // spec.chunk_length
    chunks = [codec.encode(chunk) for chunk in np.split(whole, n_chunks)]
    each = n_chunks // shard.n_slots
    return {name: shard_bytes(chunks[i * each : (i + 1) * each]) for i, name in enumerate(shard_files(spec, shard))}


def decode(
    spec: ArraySpec, slot_length: int, shard: Shard, files: Mapping[str, bytes], ids: Collection[str], place: str
) -> dict[str, Array]:
    """Return the arrays of utterances by id from a shard's files.

    Raises
    ------
    DamagedData
        They can't be read. The message names `place`.
    """
    whole, spans = _gap(spec, shard.n_slots * slot_length), spec.spans(shard)
    try:
        for i, name in enumerate(shard_files(spec, shard)):
            _decode_slot(spec, files[name], whole[i * slot_length : (i + 1) * slot_length])
    except (ValueError, RuntimeError) as error:
        raise damaged(place, f"can't be decoded ({type(error).__name__}: {error})") from error
    return {name: np.array(whole[spans[name]].T, order="C") for name in ids}


def _decode_slot(spec: ArraySpec, data: bytes, whole: Array) -> None:
    """Fill ``(slot_length[, n_mels])`` with what a file holds."""
    codec, each = chunk_codec(spec), spec.chunk_length
    n_chunks = len(whole) // each
    for i, place in enumerate(chunk_places(data[-index_bytes(n_chunks) :], n_chunks)):
        if place is not None:
            inner = without_checksum(data[place])
            whole[i * each : (i + 1) * each] = codec.decode(inner, spec.chunk_shape, spec.dtype, slice(None))


def chunk_codec(spec: ArraySpec) -> ChunkCodec:
    """Return what turns the inner chunks of an array into bytes."""
    if spec.codecs != FLAC_CODECS:
        return BloscChunks(ZSTD if spec.codecs == ZSTD_CODECS else LZ4)
    return FlacChunks(spec.sr) if spec.n_mels is None else MelChunks()


def _create(store: MemoryStore, spec: ArraySpec, slot_length: int, n_slots: int) -> AnyArray:
    import zarr
    from zarr.codecs import Crc32cCodec

    serializer, compressor = _codecs(spec)
    return zarr.create_array(
        store,
        shape=(n_slots * slot_length, *spec.width),
        shards=(slot_length, *spec.width),
        chunks=spec.chunk_shape,
        dtype=spec.dtype,
        fill_value=fill_value(spec),
        serializer=serializer,
        # Neither Blosc nor FLAC has a checksum of all bytes. Without Crc32c flipped bits would go unnoticed.
        compressors=[*compressor, Crc32cCodec()],
        dimension_names=["sample"] if spec.n_mels is None else ["frame", "mel"],
        zarr_format=3,
        # Otherwise a silent shard would not be written, and would look like a lost one.
        config={"write_empty_chunks": True},
    )


def _codecs(spec: ArraySpec) -> tuple[ArrayBytesCodec | Literal["auto"], list[BytesBytesCodec]]:
    """Return what turns inner chunks into bytes, and what compresses those."""
    from zarr.codecs import BloscCodec

    from melmill.storage.codecs.registered import FlacCodec, MelCodec

    if spec.codecs != FLAC_CODECS:
        cname, level = ZSTD if spec.codecs == ZSTD_CODECS else LZ4
        return "auto", [BloscCodec(cname=cname, clevel=level, shuffle="bitshuffle")]
    return FlacCodec(sample_rate=spec.sr) if spec.n_mels is None else MelCodec(), []


def _file(spec: ArraySpec, slot: int) -> str:
    return "/".join(["c", str(slot), *("0" for _ in spec.width)])
