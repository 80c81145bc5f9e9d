"""The arrays of a product: the places of utterances in them, and shards as Zarr bytes.

Lengths, slots and spans are known before anything is computed. Whole shards are encoded and decoded
in memory. Single utterances are read from the store, chunk by chunk.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.storage.corpus.packing import MAX_UTTERANCES
from melmill.storage.errors import StoreError, damaged
from melmill.storage.files.location import Location
from melmill.storage.files.objects import bucket_and_key, client, is_object_store, store_error
from melmill.storage.utterance import Shard, Utterance, resampled_length

# Functions import Zarr when they first need it: layouts are known without it, and so are plans.
if TYPE_CHECKING:
    from zarr.abc.codec import ArrayBytesCodec, BytesBytesCodec
    from zarr.abc.store import Store
    from zarr.storage import MemoryStore
    from zarr.types import AnyArray

# Inner chunks, the least that a reader fetches: about 16 s of audio at usual rates.
CHUNK_FRAMES = 1024
CHUNK_SAMPLES = 1024 * 256

# Versions of the codecs: Blosc for all, and FLAC for waveforms of int16 and mels of float16.
BLOSC_CODECS = 1
CODECS = 2

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
    codecs : int
        Version of the codecs, which a product keeps. Arrays of types that only the first version
        serves have that one, whatever is given.
    """

    dtype: str
    sr: int
    n_mels: int | None = None
    n_fft: int = 1
    hop_length: int = 1
    pad: int = 0
    codecs: int = CODECS

    def __post_init__(self) -> None:
        """Check the type and that the sizes make sense."""
        if self.dtype not in ("int16", "float16", "float32"):
            raise StoreError(f"dtype must be 'int16', 'float16' or 'float32', got {self.dtype!r}")
        if self.dtype == "int16" and self.n_mels is not None:
            raise StoreError("dtype 'int16' is for waveforms: it can't mark gaps between mels")
        if self.codecs not in (BLOSC_CODECS, CODECS):
            raise StoreError(f"codecs must be {BLOSC_CODECS} or {CODECS}, got {self.codecs!r}")
        if self.dtype != ("float16" if self.n_mels else "int16"):
            object.__setattr__(self, "codecs", BLOSC_CODECS)
        if min(self.sr, self.n_fft, self.hop_length) < 1 or self.pad < 0 or (self.n_mels or 1) < 1:
            raise StoreError(f"sr, n_mels, n_fft and hop_length must be positive and pad not negative, got {self!r}")

    @property
    def chunk_length(self) -> int:
        """Entries of an inner chunk."""
        return CHUNK_SAMPLES if self.n_mels is None else CHUNK_FRAMES

    @property
    def width(self) -> tuple[int, ...]:
        """Shape of one entry as stored."""
        return () if self.n_mels is None else (self.n_mels,)

    def length(self, utterance: Utterance) -> int:
        """Return an utterance's samples or frames, 0 where its header could not be read."""
        if utterance.n_samples == 0:
            return 0
        padded = resampled_length(utterance.n_samples, utterance.sr, self.sr) + 2 * self.pad
        return max(0, 1 + (padded - self.n_fft) // self.hop_length)

    def slot_length(self, shard_duration_s: float) -> int:
        """Return the entries of a slot: whole inner chunks with room for any shard of `pack`.

        Each of `MAX_UTTERANCES` may add a sample by resampling, and some frames by padding.
        """
        rounding = MAX_UTTERANCES * (1 + max(0, self.hop_length + 2 * self.pad - self.n_fft))
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
        elif not np.isfinite(array).all():
            problem = f"{np.count_nonzero(~np.isfinite(array))} values that are not finite, expected none"
        if problem:
            raise StoreError(f"{place}: the array of {utterance.utterance_id!r} has {problem}")

    def as_dict(self) -> dict[str, str | int | None]:
        """Return the fields as plain values. `codecs` is left out where it is the first version."""
        fields = asdict(self)
        if self.codecs == BLOSC_CODECS:
            del fields["codecs"]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ArraySpec:
        """Return the layout that `as_dict` described."""
        return cls(**{"codecs": BLOSC_CODECS, **fields})


def assemble(spec: ArraySpec, shard: Shard, arrays: Mapping[str, Array], slot_length: int) -> Array:
    """Return a shard as stored, ``(n_slots * slot_length[, n_mels])``. Gaps hold the fill value."""
    whole = np.full((shard.n_slots * slot_length, *spec.width), fill_value(spec), dtype=spec.dtype)
    spans = spec.spans(shard)
    for utterance_id, array in arrays.items():
        whole[spans[utterance_id]] = array.T
    return whole


def fill_value(spec: ArraySpec) -> float:
    """Return the value of gaps: silence in waveforms, NaN in mels, where 0 could be a value."""
    return 0 if spec.n_mels is None else float("nan")


METADATA = "zarr.json"


def metadata(spec: ArraySpec, slot_length: int, n_slots: int) -> bytes:
    """Return the Zarr v3 metadata of an array of `n_slots` shards."""
    from zarr.storage import MemoryStore

    store = MemoryStore()
    _create(store, spec, slot_length, n_slots)
    return _files(store)[METADATA]


def stored_codecs(data: bytes) -> int | None:
    """Return the version of an array's codecs by its metadata, None for other bytes."""
    try:
        chain = json.dumps(json.loads(data)["codecs"])
    except (ValueError, TypeError, KeyError):
        return None
    return CODECS if '"melmill.' in chain else BLOSC_CODECS


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
    from zarr.storage import MemoryStore

    store = MemoryStore()
    _create(store, spec, slot_length, shard.n_slots)[...] = assemble(spec, shard, arrays, slot_length)
    files = _files(store)
    return {_file(spec, shard.slot + i): files[_file(spec, i)] for i in range(shard.n_slots)}


def decode(
    spec: ArraySpec, slot_length: int, shard: Shard, files: Mapping[str, bytes], ids: Collection[str], place: str
) -> dict[str, Array]:
    """Return the arrays of utterances by id from a shard's files.

    Raises
    ------
    DamagedData
        They can't be read. The message names `place`.
    """
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

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
    """An array in the store, for reading single utterances. Only their inner chunks are fetched.

    Parameters
    ----------
    spec : ArraySpec
    slot_length : int
        Of ``spec.slot_length``.
    location : Location
        Folder of the array.
    """

    def __init__(self, spec: ArraySpec, slot_length: int, location: Location) -> None:
        from zarr.storage import FsspecStore, LocalStore, ObjectStore

        self.spec = spec
        self.slot_length = slot_length
        self._url = location.url
        self._store: Store
        self._path = ""
        if is_object_store(location.url):
            bucket, self._path = bucket_and_key(location.url)
            self._store = ObjectStore(client(bucket), read_only=True)
        elif location.is_remote:
            self._store = FsspecStore.from_url(location.url, read_only=True)
        else:
            self._store = LocalStore(location.url, read_only=True)
        self._array = self._open()

    def _open(self) -> AnyArray:
        import zarr

        from melmill.storage.codecs import registered  # noqa: F401 - Zarr finds the codecs there

        try:
            return zarr.open_array(self._store, path=self._path, mode="r")
        except Exception as error:
            place = f"{self._url}/{METADATA}"
            if isinstance(error, FileNotFoundError):
                raise damaged(place, "is missing") from error
            translated = store_error(error, self._url, "read")
            if translated is None and isinstance(error, OSError):
                raise
            raise translated or damaged(place, f"can't be parsed ({type(error).__name__}: {error})") from error

    def read(self, shard: Shard, utterance_id: str, part: slice, place: str) -> Array:
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
            translated = store_error(error, self._url, "read")
            raise translated or damaged(place, f"can't be decoded ({type(error).__name__}: {error})") from error
        if (entries.shape, entries.dtype) != ((stop - start, *self.spec.width), np.dtype(self.spec.dtype)):
            raise damaged(f"{self._url}/{METADATA}", "describes another array than the product's")
        return np.array(entries.T, order="C")


def _create(store: MemoryStore, spec: ArraySpec, slot_length: int, n_slots: int) -> AnyArray:
    import zarr
    from zarr.codecs import Crc32cCodec

    serializer, compressor = _codecs(spec)
    return zarr.create_array(
        store,
        shape=(n_slots * slot_length, *spec.width),
        shards=(slot_length, *spec.width),
        chunks=(spec.chunk_length, *spec.width),
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

    if spec.codecs == BLOSC_CODECS:
        return "auto", [BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")]
    return FlacCodec(sample_rate=spec.sr) if spec.n_mels is None else MelCodec(), []


def _files(store: MemoryStore) -> dict[str, bytes]:
    return {name: buffer.to_bytes() for name, buffer in store._store_dict.items()}


def _file(spec: ArraySpec, slot: int) -> str:
    return "/".join(["c", str(slot), *("0" for _ in spec.width)])
