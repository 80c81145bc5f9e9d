"""Mutated audio of every format that libsndfile writes, ingested as `audio_folder` does."""

from __future__ import annotations

import hashlib
import io
import re
import wave
import zlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.fuzz import chunked
from benchmarks.fuzz.contract import Case, Kind, Wrong, check_message
from benchmarks.fuzz.corpus import MemoryTree
from benchmarks.fuzz.mutating import MAX_BYTES, mutated
from melmill.errors import Error
from melmill.stages.formats.containers import mpeg, sized
from melmill.stages.formats.containers.content import Piece
from melmill.stages.ingest.names import AUDIO_SUFFIXES
from melmill.stages.ingest.readers.audio_folder import AudioFolder
from melmill.stages.numeric.errors import Unusable
from melmill.stages.numeric.resample import resample
from melmill.storage.utterance import resampled_length

# Formats whose files need something beside them: a resource fork, or what a header would say.
_LEFT_OUT = {"SD2", "RAW"}
_RATES = (8000, 16000, 22050, 44100, 48000)
_SUFFIX = {"OGG": "ogg", "MP3": "mp3", "FLAC": "flac", "AIFF": "aiff", "AU": "au", "CAF": "caf", "W64": "w64"}
_SERIAL = b"fuzz"
# Times and versions that some writers put into their headers.
_CLOCKS = (
    re.compile(rb"(?<=PEAK.{8})....", re.DOTALL),
    re.compile(rb"(?<=peak.{12})....", re.DOTALL),
    re.compile(rb"libsndfile-[0-9.]+, .{23}", re.DOTALL),
)
_READ_VALUES = 1 << 18
_MAX_VALUES = 1 << 25
# Sample formats that 16 bits hold, and that are read as such.
_SHORT = frozenset({"PCM_16", "PCM_S8", "PCM_U8"})
# A waveform that is mixed or resampled in another order of summation differs by rounding.
_STEPS = 1


class Audio(Kind):
    """Files of audio, whole and mutated."""

    name = "audio"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.written = [
            (format_, subtype)
            for format_ in sorted(soundfile.available_formats())
            if format_ not in _LEFT_OUT
            for subtype in sorted(soundfile.available_subtypes(format_))
        ]

    def case(self, rng: Random) -> Case:
        """Return a file, perhaps mutated, under the suffix of its format or another."""
        format_, data = self._base(rng)
        suffix = _SUFFIX.get(format_, "wav")
        note = f"whole {format_}"
        if rng.random() < 0.98:
            note = f"{format_}:"
            for _ in range(rng.choice((1, 1, 1, 2))):
                data, what = self._mutated(data, rng)
                note += f" {what}"
        if rng.random() < 0.05:
            suffix = rng.choice((*AUDIO_SUFFIXES, "WAV", "Flac"))
        return Case(f"a.{suffix}", data if note.startswith("whole ") else data[:MAX_BYTES], note)

    def _base(self, rng: Random) -> tuple[str, bytes]:
        while True:
            format_, subtype = rng.choice(self.written)
            # One in three is of the formats that corpora come in.
            if rng.random() < 0.33:
                format_, subtype = rng.choice([pair for pair in self.written if pair[0] in _COMMON])
            data = written(format_, subtype, rng.choice(_RATES), rng.choice((1, 1, 2, 3)), rng.randrange(3))
            if data:
                return format_, data

    def _mutated(self, data: bytes, rng: Random) -> tuple[bytes, str]:
        match rng.randrange(10):
            case 0 | 1 | 2 | 3:
                return mutated(data, rng), "bytes"
            case 4 | 5 | 6 | 7:
                return chunked.mutated(data, rng), "pieces"
            case 8:
                return data[: rng.randrange(len(data) + 1)], "cut"
            case _:
                return data + self._base(rng)[1], "joined with another"

    def judge(self, case: Case) -> bool:
        """Compare what is stored with what libsndfile decodes, and with Python's `wave`."""
        reference = _reference(case.data)
        sr = reference[1] if reference is not None and 1000 <= reference[1] <= 1 << 20 else 16000
        if zlib.crc32(case.data) % 8 == 0:
            sr = 16000
        reader = AudioFolder(root="corpus", sr=sr)
        tree = MemoryTree({case.name: case.data})
        try:
            (utterance,) = reader.discover(tree, {}).utterances
            outcome = reader.ingest(utterance, case.data)
        except Error as error:
            check_message(error)
            if case.note.startswith("whole ") and not _may_be_refused(case, reference):
                raise Wrong("a whole file is refused", f"{case.note}: {error}") from error
            return False
        stored = outcome.array
        if stored is None:
            raise Wrong("accepted without samples")
        if len(stored) != utterance.n_samples:
            raise Wrong("another length than catalogued", f"{len(stored)}, catalogued {utterance.n_samples}")
        _compare(stored, reference, sr, case)
        return True


class _Bytes(io.BytesIO):
    """Bytes for libsndfile, which may ask for positions that are none."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position; stay where that is before the first byte."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


_COMMON = {"WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF"}


@cache
def written(format_: str, subtype: str, sr: int, n_channels: int, length: int) -> bytes:
    """Return a file of some noise and tones; the same in every process. Empty: there is none."""
    n_samples = (sr // 50 + 7, sr // 8, sr // 2 + 1)[length]
    seed = zlib.crc32(f"{format_} {subtype} {sr} {n_channels} {length}".encode())
    generator = np.random.default_rng(seed)
    t = np.arange(n_samples)[:, None] / sr
    y = 0.4 * np.sin(2 * np.pi * (200.0 + 37 * np.arange(n_channels)) * t) + generator.normal(0, 0.05, t.shape)
    file = io.BytesIO()
    try:
        soundfile.write(file, np.broadcast_to(y, (n_samples, n_channels)), sr, format=format_, subtype=subtype)
    except (soundfile.LibsndfileError, ValueError):
        return b""
    data = file.getvalue()
    if format_ == "OGG":
        return chunked.sealed_ogg(data, _SERIAL)
    head = data[:512]
    for clock in _CLOCKS:
        head = clock.sub(lambda match: b"\0" * len(match[0]), head)
    return head + data[512:]


def decoded(data: bytes) -> tuple[NDArray[np.float64], int] | None:
    """Return the samples ``(n_samples, n_channels)`` and the rate that libsndfile reads to the end.

    Ogg files are read stream by stream. None: it refuses the file, or ends with an error.
    """
    streams = _ogg_streams(data)
    parts = [_read(stream) for stream in streams]
    if any(part is None for part in parts):
        return None
    found = [part for part in parts if part is not None]
    if len({(part[1], part[0].shape[1]) for part in found}) > 1:
        return None
    return np.concatenate([part[0] for part in found]), found[0][1]


def _reference(data: bytes) -> tuple[NDArray[np.float64], int] | None:
    """Return what `decoded` gives of a file, or of the one that libsndfile must read in its place."""
    piece = _mended(data)
    if piece is None:
        return decoded(data)
    found = decoded(piece.padded)
    if found is None or piece.n_samples is None:
        return found
    return found[0][piece.n_silent : piece.n_silent + piece.n_samples], found[1]


def _mended(data: bytes) -> Piece | None:
    """Return what libsndfile must read in place of a file, None for the file itself.

    It reads nothing, or refuses the file, where a header says that the size of the samples is
    unknown; then the samples are all that follow. It resynchronizes inside frames of MP3 that other
    bytes come before; if the first frame tells the number and the bytes of the frames, the rest is
    no audio. Where no frame tells the number, it estimates the length and reads no further.
    """
    try:
        samples = sized.samples_of(data)
        if samples is not None and samples.claimed is None and not samples.coded:
            return sized.content_of(data, samples).pieces[0]
        content = mpeg.content_of(data) if samples is None and _format(data) == "MPEG" else None
    except Unusable:
        return None
    return content.pieces[0] if content and not content.doubt and len(content.pieces) == 1 else None


def _ogg_streams(data: bytes) -> list[bytes]:
    pages = chunked.ogg_pages(data) if data[:4] == b"OggS" else None
    if pages is None:
        return [data]
    streams: list[bytes] = []
    for page in pages:
        if page.first or not streams:
            streams.append(b"")
        streams[-1] += page.data
    return streams


def _read(data: bytes) -> tuple[NDArray[np.float64], int] | None:
    """Return all that libsndfile decodes as float, and the rate; None where it refuses."""
    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            is_short = file.subtype in _SHORT
            y = _decoded(file, "short" if is_short else "float", np.int16 if is_short else np.float32)
            return (y / 32768.0 if is_short else y.astype(np.float64)), file.samplerate
    except (soundfile.LibsndfileError, ValueError, TypeError):
        return None


def _decoded(file: soundfile.SoundFile, form: str, dtype: type) -> NDArray[Any]:
    """Return all samples ``(n_samples, n_channels)``, past the length that libsndfile estimates."""
    # Like soundfile's own reading: some headers give a start other than where they end.
    if file.seekable():
        file.seek(0)
    read = getattr(soundfile._snd, f"sf_readf_{form}")
    block = np.empty((max(1, _READ_VALUES // file.channels), file.channels), dtype=dtype)
    pointer = soundfile._ffi.cast(f"{form}*", block.ctypes.data)
    parts, n_values = [block[:0].copy()], 0
    while (n := read(file._file, pointer, len(block))) > 0:
        parts.append(block[:n].copy())
        n_values += n * file.channels
        if n_values > _MAX_VALUES:
            raise ValueError("more samples than an input of this size holds")
    if soundfile._snd.sf_error(file._file):
        raise ValueError("libsndfile ends with an error")
    return np.concatenate(parts)


def _compare(stored: NDArray[np.int16], reference: tuple[NDArray[np.float64], int] | None, sr: int, case: Case) -> None:
    format_ = _format(case.data)
    if reference is None:
        raise Wrong(f"accepted, but libsndfile refuses it ({format_})", case.note)
    y, own_sr = reference
    if len(stored) != resampled_length(len(y), own_sr, sr):
        raise Wrong(
            f"another length than libsndfile decodes ({format_})",
            f"{len(stored)} stored at {sr} Hz, {len(y)} decoded at {own_sr} Hz; {case.note}",
        )
    mono = resample(y.mean(axis=1).astype(np.float32), own_sr, sr)
    expected = np.clip(np.rint(mono.astype(np.float64) * 32768.0), -32768, 32767)
    worst = float(np.abs(expected - stored).max(initial=0.0))
    if worst > _STEPS:
        raise Wrong(f"other samples than libsndfile decodes ({format_})", f"{worst} steps of 16 bits; {case.note}")
    if format_ == "OggS":
        _check_ogg(case)
    if format_ == "fLaC":
        _check_flac(case)
    if sr == own_sr and format_ == "RIFF":
        _check_wave(stored, case)


def _check_ogg(case: Case) -> None:
    """Raise Wrong if a stream that was taken as whole lacks a page, or has a damaged one.

    A recorder that was interrupted leaves whole pages without a last one. They are all that there
    is. Zeros behind the pages are no audio.
    """
    stripped = case.data.rstrip(b"\0")
    n_zeros = len(case.data) - len(stripped)
    # Its last page may end with zeros of its own.
    tried = (chunked.ogg_pages(stripped + bytes(n)) for n in range(n_zeros + 1))
    pages = next((found for found in tried if found is not None), None)
    if pages is None:
        raise Wrong("an Ogg file with other bytes or a cut page is taken as whole", case.note)
    if not all(page.whole for page in pages):
        raise Wrong("an Ogg file with a damaged page is taken as whole", case.note)
    by_serial: dict[bytes, list[chunked.Page]] = {}
    for page in pages:
        if page.first:
            by_serial.pop(page.serial, None)
        by_serial.setdefault(page.serial, []).append(page)
    for stream in by_serial.values():
        if [page.sequence for page in stream] != list(range(stream[0].sequence, stream[0].sequence + len(stream))):
            raise Wrong("an Ogg file that lacks a page is taken as whole", case.note)


def _check_flac(case: Case) -> None:
    """Compare the samples of a FLAC file with the checksum in its STREAMINFO (RFC 9639, section 8.2)."""
    md5, bits = case.data[26:42], (int.from_bytes(case.data[20:22], "big") >> 4 & 31) + 1
    if not any(md5) or bits not in (8, 16, 24):
        return
    with soundfile.SoundFile(_Bytes(case.data)) as file:
        y = _decoded(file, "int", np.int32)
    raw = (y >> 32 - bits).astype("<i4").view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
    if hashlib.md5(raw).digest() != md5:
        raise Wrong("a FLAC file is taken as whole, but differs from its checksum", f"{bits} bits; {case.note}")


def _check_wave(stored: NDArray[np.int16], case: Case) -> None:
    """Compare with what Python's own reader makes of a plain WAV file that is whole."""
    try:
        with wave.open(io.BytesIO(case.data)) as file:
            n, width, n_channels = file.getnframes(), file.getsampwidth(), file.getnchannels()
            raw = file.readframes(n)
    except (wave.Error, EOFError, ValueError, ArithmeticError, RuntimeError):
        return
    if len(raw) != n * width * n_channels or n == 0 or width not in (1, 2):
        return
    y = np.frombuffer(raw, dtype="u1" if width == 1 else "<i2").reshape(-1, n_channels).astype(np.float64)
    pcm = (y - 128) * 256 if width == 1 else y
    expected = np.clip(np.rint(pcm.mean(axis=1)), -32768, 32767)
    if len(expected) != len(stored) or float(np.abs(expected - stored).max(initial=0.0)) > _STEPS:
        raise Wrong(
            "other samples than Python's wave reads", f"{len(stored)} stored, {len(expected)} read; {case.note}"
        )


def _format(data: bytes) -> str:
    magic = data[:4]
    if magic[:3] == b"ID3" or magic[:1] == b"\xff":
        return "MPEG"
    return magic.decode("ascii", errors="replace") if magic.isalnum() else "another format"


def _may_be_refused(case: Case, reference: tuple[NDArray[np.float64], int] | None) -> bool:
    """Tell whether refusing a whole file is right: libsndfile can't read it, or it is next to empty."""
    # XI has one rate, so that the shortest waveform lasts less than `check_sound` takes for sound.
    return reference is None or len(reference[0]) < 0.011 * reference[1]
