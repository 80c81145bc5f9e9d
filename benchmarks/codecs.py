"""Measure how arrays may be stored: size, speed and random access of codecs, on real speech.

python -m benchmarks.codecs [--rounds 3] [--without-pipelines]

Shares are of the stored bytes to the raw bytes of the utterances, gaps and indices of the shards
included. Speeds are of one thread, by processor time, in audio over time. `pcodec` and `zarrs` are
measured where they are installed (`pip install pcodec zarrs`).
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from benchmarks.corpora import speech
from benchmarks.figure import Figure, table
from melmill.cluster.process import limit_threads
from melmill.pcm import as_float
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.presets import preset
from melmill.stages.numeric.resample import resample
from melmill.storage.arrays import FLAC_CODECS, LZ4_CODECS, ZSTD_CODECS, ArraySpec, assemble, decode, encode, metadata
from melmill.storage.catalogue import Catalogue
from melmill.storage.codecs.mel import decode_mel, encode_mel
from melmill.storage.codecs.pcm import decode_pcm, encode_pcm
from melmill.storage.files.location import Location
from melmill.storage.product import Facts, ProductDescription, ProductFolder, ShardContents
from melmill.storage.utterance import Shard, Utterance

SHARD_S = 300.0
N_READS = 200
SEGMENT_S = 1.0
Chunk = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A way from a chunk to bytes and back.

    Parameters
    ----------
    name : str
    encode, decode : callable
        Of a chunk, and of its bytes and a chunk like it.
    """

    name: str
    encode: Callable[[Chunk], bytes]
    decode: Callable[[bytes, Chunk], Chunk]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Arrays of one layout: what is stored of the corpus.

    Parameters
    ----------
    name : str
    spec : ArraySpec
    arrays : mapping of str to ndarray
        By utterance id, as stored.
    """

    name: str
    spec: ArraySpec
    arrays: Mapping[str, Chunk]
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the utterances."""
        return sum(array.nbytes for array in self.arrays.values())


def main() -> None:
    """Print a table per kind of array, and the figures with goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed; the median counts")
    parser.add_argument("--without-pipelines", action="store_true", help="leave out whole shards through Zarr")
    parser.add_argument("--codec", action="append", help="only those with this in their name; may be repeated")
    options = parser.parse_args()
    limit_threads(1)
    with tempfile.TemporaryDirectory(prefix="melmill-benchmark-") as folder:
        root, name = speech(Path(folder) / "demo")
        waveforms = {path.stem: soundfile.read(path, dtype="int16")[0] for path in sorted(root.rglob("*.flac"))}
        seconds = sum(map(len, waveforms.values())) / 16000
        print(f"{name}: {len(waveforms)} utterances, {seconds / 60:.1f} min; one thread")
        catalogue = _catalogue(waveforms)
        figures = []
        for kind in _kinds(waveforms, catalogue):
            figures += _codecs(kind, seconds, options.rounds, options.codec or [""])
            if not options.without_pipelines:
                _pipelines(kind, catalogue, seconds, Path(folder))
    print()
    print(table(figures))


def _catalogue(waveforms: Mapping[str, Chunk]) -> Catalogue:
    facts: dict[str, Any] = {"subset": "", "speaker_id": "", "chapter_id": "", "text": "", "path": "", "size_bytes": 1}
    utterances = [
        Utterance(
            utterance_id=name, n_samples=len(y), source_n_samples=len(y), sr=16000, source_sr=16000, mtime_ns=1, **facts
        )
        for name, y in waveforms.items()
    ]
    return Catalogue.empty(16000, SHARD_S).extended(utterances)


def _kinds(waveforms: Mapping[str, Chunk], catalogue: Catalogue) -> Iterator[Kind]:
    """Yield PCM at 16 kHz, and mels of 80 bands: of magnitudes, and logs of two widths."""
    yield _kind("PCM, int16, 16 kHz", ArraySpec(dtype="int16", sr=16000), waveforms, catalogue)
    for name, dtypes in {"hifigan": ("float16", "float32"), "paper": ("float16", "float32")}.items():
        spec = preset(name)
        mels = {}
        for utterance_id, y in waveforms.items():
            mels[utterance_id] = mel_spectrogram(resample(as_float(y), 16000, spec.sr), spec)
        _tell_rounding(name, spec.log, mels)
        stft = spec.stft
        for dtype in dtypes:
            layout = ArraySpec(
                dtype=dtype, sr=spec.sr, n_mels=80, n_fft=stft.n_fft, hop_length=stft.hop_length, pad=stft.pad
            )
            arrays = {utterance_id: M.astype(dtype) for utterance_id, M in mels.items()}
            what = f"{'log-mels' if spec.log else 'mels, magnitude'} ({name}), 80 bands, {dtype}"
            yield _kind(what, layout, arrays, catalogue)


def _kind(name: str, spec: ArraySpec, arrays: Mapping[str, Chunk], catalogue: Catalogue) -> Kind:
    """Return the arrays with the inner chunks that they make in their shards."""
    chunks: list[Chunk] = []
    slot_length = spec.slot_length(SHARD_S)
    for shard in _shards(catalogue):
        whole = assemble(spec, shard, {u.utterance_id: arrays[u.utterance_id] for u in shard.utterances}, slot_length)
        chunks += np.split(whole, len(whole) // spec.chunk_length)
    return Kind(name=name, spec=spec, arrays=arrays, chunks=chunks)


def _shards(catalogue: Catalogue) -> list[Shard]:
    return [catalogue.shard(index) for index in range(catalogue.n_shards)]


def _tell_rounding(name: str, log: str | None, mels: Mapping[str, Chunk]) -> None:
    """Print what float16 does to mels, in dB."""
    M = np.concatenate(list(mels.values()), axis=1).astype(np.float64)
    half = M.astype(np.float16).astype(np.float64)
    if log:
        errors = 20 / np.log(10) * np.abs(half - M)
        print(f"\n{name} in float16: error at most {errors.max():.4f} dB, rms {np.sqrt((errors**2).mean()):.4f} dB")
    else:
        normal = float(np.finfo(np.float16).tiny) <= M
        errors = 20 * np.abs(np.log10(half[normal] / M[normal]))
        print(
            f"\n{name} in float16: error at most {errors.max():.4f} dB, rms {np.sqrt((errors**2).mean()):.4f} dB; "
            f"{100 * (1 - normal.mean()):.2g} % of values lie below 6e-5, where it grows"
        )


def _numcodec(name: str, codec: Any, before: Callable[[Chunk], Chunk] = np.ascontiguousarray) -> Codec:  # noqa: ANN401
    def back(data: bytes, like: Chunk) -> Chunk:
        return np.frombuffer(codec.decode(data), dtype=like.dtype).reshape(like.shape)

    return Codec(name=name, encode=lambda chunk: codec.encode(before(chunk)), decode=back)


def _contenders(spec: ArraySpec) -> Iterator[Codec]:
    """Yield the codecs that are compared on arrays of a layout, today's first."""
    yield _numcodec("blosc zstd 3, bitshuffle", Blosc("zstd", 3, Blosc.BITSHUFFLE))
    for level in (1, 3, 9):
        yield _numcodec(f"zstd {level}", Zstd(level))
    for cname, level, shuffle in [
        ("zstd", 1, Blosc.BITSHUFFLE),
        ("zstd", 9, Blosc.BITSHUFFLE),
        ("zstd", 3, Blosc.SHUFFLE),
        ("lz4", 5, Blosc.BITSHUFFLE),
        ("lz4", 5, Blosc.SHUFFLE),
    ]:
        kind = "bitshuffle" if shuffle == Blosc.BITSHUFFLE else "shuffle"
        yield _numcodec(f"blosc {cname} {level}, {kind}", Blosc(cname, level, shuffle))
    yield Codec(name="differences, blosc zstd 3, bitshuffle", encode=_difference, decode=_sum)
    if find_spec("pcodec"):
        yield from _pcodecs(spec)
    if spec.dtype == "int16":
        for level in (0.0, 0.5, 1.0):
            yield Codec(
                name=f"libsndfile's FLAC, level {level:g}",
                encode=lambda chunk, level=level: _libsndfile(chunk, level),  # type: ignore[misc]
                decode=_by_libsndfile,
            )
        yield Codec(
            name="melmill.flac, read by libsndfile",
            encode=lambda chunk: encode_pcm(chunk, spec.sr),
            decode=_by_libsndfile,
        )
        yield Codec(
            name="melmill.flac",
            encode=lambda chunk: encode_pcm(chunk, spec.sr),
            decode=lambda data, like: decode_pcm(data, len(like)),
        )
    elif spec.dtype == "float16":
        yield Codec(name="melmill.mel", encode=encode_mel, decode=lambda data, like: decode_mel(data, like.shape))


_SHUFFLED = Blosc("zstd", 3, Blosc.BITSHUFFLE)


def _difference(chunk: Chunk) -> bytes:
    """Encode differences of the bits of values, in time and between bands."""
    bits = chunk.view(f"i{chunk.itemsize}")
    bits = bits ^ ((bits >> (8 * bits.itemsize - 1)) & np.iinfo(bits.dtype).max) if chunk.dtype.kind == "f" else bits
    for axis in range(bits.ndim):
        bits = np.diff(bits, axis=axis, prepend=bits.dtype.type(0))
    data: bytes = _SHUFFLED.encode(np.ascontiguousarray((bits << 1) ^ (bits >> (8 * bits.itemsize - 1))))
    return data


def _sum(data: bytes, like: Chunk) -> Chunk:
    folded = np.frombuffer(_SHUFFLED.decode(data), dtype=f"u{like.itemsize}").reshape(like.shape)
    bits = (folded >> 1).view(f"i{like.itemsize}") ^ -(folded & 1).view(f"i{like.itemsize}")
    for axis in range(bits.ndim):
        bits = np.cumsum(bits, axis=axis, dtype=bits.dtype)
    bits = bits ^ ((bits >> (8 * bits.itemsize - 1)) & np.iinfo(bits.dtype).max) if like.dtype.kind == "f" else bits
    return bits.view(like.dtype)


def _pcodecs(spec: ArraySpec) -> Iterator[Codec]:
    from pcodec import ChunkConfig, standalone

    def back(data: bytes, like: Chunk) -> Chunk:
        values = np.asarray(standalone.simple_decompress(data))
        return values.reshape(like.shape) if like.ndim == 1 else values.reshape(like.shape[::-1]).T

    for level in (4, 8):
        config = ChunkConfig(compression_level=level)
        yield Codec(
            name=f"pcodec {level}" + (", band by band" if spec.n_mels else ""),
            encode=lambda chunk, config=config: standalone.simple_compress(  # type: ignore[misc]
                np.ascontiguousarray(chunk.T).ravel(), config
            ),
            decode=back,
        )


def _libsndfile(chunk: Chunk, level: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, chunk, 16000, format="FLAC", subtype="PCM_16", compression_level=level)
    return file.getvalue()


def _by_libsndfile(data: bytes, like: Chunk) -> Chunk:
    y: Chunk = soundfile.read(io.BytesIO(data), dtype=like.dtype.name)[0]
    return y


def _codecs(kind: Kind, seconds: float, rounds: int, names: list[str]) -> list[Figure]:
    """Print sizes and speeds of codecs on the chunks of a kind; return the figures with goals."""
    hour = 3600 / seconds / 2**20
    print(f"\n{kind.name}: raw {kind.raw_bytes * hour:.1f} MiB an hour, {len(kind.chunks)} chunks")
    print(f"{'codec':<40} {'MiB/h':>7} {'of raw':>7} {'encode x':>9} {'decode x':>9} {'a chunk ms':>10}")
    sizes = {}
    for codec in _contenders(kind.spec):
        if not any(name in codec.name for name in names):
            continue
        codec.encode(kind.chunks[0])
        started = time.process_time()
        data = [codec.encode(chunk) for chunk in kind.chunks]
        encode_s = time.process_time() - started
        for chunk, one in zip(kind.chunks[::7], data[::7], strict=True):
            assert codec.decode(one, chunk).tobytes() == chunk.tobytes(), codec.name
        size = sizes[codec.name] = sum(map(len, data))
        decode_s = _cpu_s(
            lambda codec=codec, data=data: [  # type: ignore[misc]
                codec.decode(one, chunk) for chunk, one in zip(kind.chunks, data, strict=True)
            ],
            rounds,
        )
        print(
            f"{codec.name:<40} {size * hour:7.1f} {size / kind.raw_bytes:7.1%} {seconds / encode_s:9.0f} "
            f"{seconds / decode_s:9.0f} {1000 * decode_s / len(kind.chunks):10.2f}",
            flush=True,
        )
    if sizes.keys() >= {"melmill.flac", "libsndfile's FLAC, level 0.5"}:
        share = sizes["melmill.flac"] / sizes["libsndfile's FLAC, level 0.5"]
        return [Figure(name="PCM over libsndfile's FLAC", measured=share, unit="x", goal=1.05)]
    if "melmill.mel" in sizes:
        share = 100 * sizes["melmill.mel"] / kind.raw_bytes
        goal = 60.0 if "log" in kind.name else None
        return [Figure(name=f"{kind.name}, of raw", measured=share, unit="%", goal=goal)]
    return []


def _cpu_s(work: Callable[[], object], rounds: int) -> float:
    """Return the median processor time of some rounds, s."""
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return median(taken)


def _pipelines(kind: Kind, catalogue: Catalogue, seconds: float, folder: Path) -> None:
    """Print whole shards in all versions of the codecs, and by Zarr: encode, decode, one utterance."""
    for version in sorted({ZSTD_CODECS, kind.spec.codecs}):
        spec = ArraySpec.from_dict({**kind.spec.as_dict(), "codecs": version})
        name = {ZSTD_CODECS: "blosc zstd", FLAC_CODECS: "FLAC", LZ4_CODECS: "blosc lz4"}[version]
        place = folder / f"{spec.dtype}-{spec.sr}-{spec.n_mels}-{version}"
        _whole_shards(name, spec, kind, catalogue, seconds, place)
        _by_zarr(f"{name}, by Zarr", spec, kind, catalogue, seconds)
        if find_spec("zarrs") and version != FLAC_CODECS:
            import zarr
            import zarrs  # noqa: F401 - registers its pipeline

            with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
                _by_zarr(f"{name}, by Zarr with zarrs", spec, kind, catalogue, seconds)


def _by_zarr(name: str, spec: ArraySpec, kind: Kind, catalogue: Catalogue, seconds: float) -> None:
    import zarr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    shards, slot_length = _shards(catalogue), spec.slot_length(SHARD_S)
    store = MemoryStore()
    said = metadata(spec, slot_length, shards[-1].slot + shards[-1].n_slots)
    store._store_dict["zarr.json"] = default_buffer_prototype().buffer.from_bytes(said)
    with zarr.config.set({"array.write_empty_chunks": True}):
        array = zarr.open_array(store, mode="r+")
    wholes = [
        assemble(spec, shard, {u.utterance_id: kind.arrays[u.utterance_id] for u in shard.utterances}, slot_length)
        for shard in shards
    ]
    places = [slice(shard.slot * slot_length, (shard.slot + shard.n_slots) * slot_length) for shard in shards]

    def write() -> None:
        for place, whole in zip(places, wholes, strict=True):
            array[place] = whole

    encode_s = _cpu_s(write, 3)
    decode_s = _cpu_s(lambda: [array[place] for place in places], 3)
    print(f"shards of 300 s, {name}: encode {seconds / encode_s:.0f} x, decode {seconds / decode_s:.0f} x", flush=True)


def _whole_shards(name: str, spec: ArraySpec, kind: Kind, catalogue: Catalogue, seconds: float, place: Path) -> None:
    shards, slot_length = _shards(catalogue), spec.slot_length(SHARD_S)
    arrays = [{u.utterance_id: kind.arrays[u.utterance_id] for u in shard.utterances} for shard in shards]

    def write() -> list[dict[str, bytes]]:
        return [encode(spec, slot_length, shard, some) for shard, some in zip(shards, arrays, strict=True)]

    files = write()

    def read() -> None:
        for shard, some, data in zip(shards, arrays, files, strict=True):
            decode(spec, slot_length, shard, data, list(some), name)

    encode_s, decode_s = _cpu_s(write, 3), _cpu_s(read, 3)
    product = _product(spec, shards, arrays, place)
    one_s, part_s = (_random_reads(product, shards, length_s) for length_s in (None, SEGMENT_S))
    print(
        f"shards of 300 s, {name}: encode {seconds / encode_s:.0f} x, decode {seconds / decode_s:.0f} x; "
        f"an utterance at random {1000 * one_s:.2f} ms, {SEGMENT_S:g} s of one {1000 * part_s:.2f} ms",
        flush=True,
    )


def _product(spec: ArraySpec, shards: list[Shard], arrays: list[dict[str, Chunk]], place: Path) -> ProductFolder:
    product = ProductFolder(Location(str(place)))
    description = ProductDescription(
        node="x",
        key="k",
        kind="x",
        stage="x",
        version=1,
        parameters={},
        inputs={},
        shard_duration_s=SHARD_S,
        array=spec,
    )
    product.prepare(description, shards[-1].slot + shards[-1].n_slots)
    for shard, contents in zip(shards, arrays, strict=True):
        facts = Facts(compute_s=0.0, started_at="2024-01-01T00:00:00+00:00", host="here", attempt=1, versions={})
        product.commit(shard, ShardContents(arrays=contents), facts)
    return product


def _random_reads(product: ProductFolder, shards: list[Shard], length_s: float | None) -> float:
    """Return the median processor time of reading one utterance from the disk, or `length_s` of it, s."""
    rng, spec = np.random.default_rng(0), product.array_spec
    taken = []
    for _ in range(N_READS):
        shard = shards[rng.integers(len(shards))]
        utterance = shard.utterances[rng.integers(len(shard.utterances))]
        length = spec.length(utterance)
        n = length if length_s is None else min(length, round(length_s * spec.sr / spec.hop_length))
        start = int(rng.integers(length - n + 1))
        started = time.process_time()
        product.read_array(shard, utterance.utterance_id, slice(start, start + n))
        taken.append(time.process_time() - started)
    return median(taken)


if __name__ == "__main__":
    main()
