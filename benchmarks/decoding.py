"""Time the steps of ingest and extract: ``python -m benchmarks.decoding``.

Processor time of one pass over all files of LibriSpeech, or of the demo corpus, is printed. The
contenders take turns, and the median of the turns counts. Mels are those of `benchmarks.peers`.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.corpora import SR, speech
from benchmarks.figure import Figure, table
from benchmarks.peer_jobs import FLOOR, HOP_LENGTH, N_FFT, N_MELS, WIN_LENGTH
from benchmarks.timing import in_turns
from melmill.flac_frames import decoded
from melmill.stages.formats.audio import decode
from melmill.stages.ingest.levels import check_sound
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.storage.arrays import ArraySpec, chunk_codec
from melmill.storage.codecs.chunks import ChunkCodec

REPEATS = 5


class _Stored(NamedTuple):
    """Hold the inner chunks of an array, their codec, and what it makes of them."""

    chunks: Sequence[NDArray[Any]]
    codec: ChunkCodec
    data: bytes

    @classmethod
    def of(cls, array: NDArray[Any]) -> _Stored:
        """Return those of PCM ``(n_samples,)`` or a mel ``(n_frames, n_mels)``, without what fills no chunk."""
        framing = {} if array.ndim == 1 else {"n_mels": N_MELS, "n_fft": N_FFT, "hop_length": HOP_LENGTH}
        spec = ArraySpec(dtype=array.dtype.name, sr=SR, **framing)
        n_chunks = len(array) // spec.chunk_length
        chunks, codec = np.split(array[: n_chunks * spec.chunk_length], n_chunks), chunk_codec(spec)
        return cls(chunks, codec, b"".join(map(codec.encode, chunks)))

    def encode(self) -> list[bytes]:
        """Encode all chunks."""
        return [self.codec.encode(chunk) for chunk in self.chunks]


def _write(*arrays: _Stored) -> None:
    with tempfile.NamedTemporaryFile() as file:
        for array in arrays:
            hashlib.sha256(array.data).digest()
            file.write(array.data)
        file.flush()
        os.fsync(file.fileno())


@click.command()
def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as made:
        root, corpus = speech(Path(made))
        files = [file.read_bytes() for file in sorted(root.rglob("*.flac"))]
    waves = [decode(file)[0][:, 0] for file in files]
    spec = MelSpec(
        sr=SR, n_fft=N_FFT, win_length=WIN_LENGTH, hop_length=HOP_LENGTH, n_mels=N_MELS, fmin=20, power=2.0, log="ln",
        floor=FLOOR,
    )  # fmt: skip
    y = np.concatenate(waves)
    M = np.ascontiguousarray(mel_spectrogram(y, spec).T)
    pcm, half, single = (_Stored.of(array) for array in (y, M.astype(np.float16), M))
    contenders: dict[str, Callable[[], object]] = {
        "FLAC by libsndfile": lambda: [soundfile.read(io.BytesIO(file), dtype="int16") for file in files],
        "FLAC by compiled code": lambda: [decoded(file) for file in files],
        "MD5 of the samples": lambda: [hashlib.md5(y.data).digest() for y in waves],
        "SHA-256 of the files": lambda: [hashlib.sha256(file).digest() for file in files],
        "all that reading a file checks": lambda: [decode(file) for file in files],
        "levels": lambda: [check_sound(y, SR) for y in waves],
        "mels": lambda: [mel_spectrogram(y, spec) for y in waves],
        "encoding PCM": pcm.encode,
        "encoding mels of float16": half.encode,
        "encoding mels of float32": single.encode,
        "hashing, writing and flushing mels of float16": lambda: _write(half),
        "hashing, writing and flushing PCM and mels of float32": lambda: _write(pcm, single),
    }
    taken = in_turns(contenders, REPEATS, time.process_time)
    click.echo(f"{corpus}: {len(files)} files, {sum(map(len, waves)) / SR / 60:.1f} minutes")
    click.echo(table([Figure(name=name, measured=taken_s, unit="s") for name, taken_s in taken.items()]))


if __name__ == "__main__":
    main()
