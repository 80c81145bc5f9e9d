"""Headers and samples of audio files, from their bytes.

The first bytes of FLAC, plain WAV and SPHERE files are enough for their headers, so that a corpus
is planned without reading its samples. Of other files all is read, and where a header only estimates
the length, it is counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from melmill.flac import HEAD_BYTES as FLAC_HEAD_BYTES
from melmill.flac import MAGIC, stream_info
from melmill.stages.formats.containers import ffmpeg, flac, mpeg, ogg, sized
from melmill.stages.formats.containers.content import Content, Piece, truncated
from melmill.stages.formats.containers.wav import PlainHeader, wav_header
from melmill.stages.numeric.errors import Unusable

# First bytes that are read of a file: a WAV file may hold a few chunks before its samples.
HEAD_BYTES = 4096
# More samples per byte are not plausible: a frame of silence takes some 14 bytes for 4096 samples.
MAX_SAMPLES_PER_BYTE = 2000
# Rates of recordings, Hz: below, speech is not intelligible; the highest is what FLAC can say.
_LOWEST_SR, _HIGHEST_SR = 1000, (1 << 20) - 1
_INT16_SUBTYPES = frozenset({"PCM_16", "PCM_S8", "PCM_U8"})
_COUNTING_BLOCK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Hold what a file says of itself, with a length that is a fact.

    Parameters
    ----------
    sr, n_samples, n_channels : int
        Sampling rate (Hz), samples per channel, channels.
    subtype : str
        Sample format by libsndfile's name (``PCM_16``), or FFmpeg's name of the codec (``AAC``).
    md5 : bytes
        Checksum of the PCM of a FLAC file; empty where the file has none.
    doubt : str
        Why the rate or the length can't be believed; empty where both can be.
    """

    sr: int
    n_samples: int
    n_channels: int
    subtype: str
    md5: bytes = b""
    doubt: str = ""

    @property
    def believable(self) -> bool:
        """Whether the claimed rate and length can be true of a file of this size."""
        return not self.doubt


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A file that is read block by block and never sought in.

    python-soundfile seeks after it has read, which some codecs can't, and asks for as many samples as
    a header makes up.
    """

    def seekable(self) -> bool:
        """Say that the file must be read in order."""
        return False


class _Bytes(io.BytesIO):
    """Bytes that libsndfile reads: a position that a header makes up is past the end, no error."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position that exists."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: len(self.getbuffer())}[whence]
        return super().seek(min(max(base + offset, 0), len(self.getbuffer())))


def tells(head: bytes) -> bool:
    """Tell whether these first bytes are enough for `read_header`: of FLAC, plain WAV or SPHERE."""
    if head.startswith(MAGIC):
        return len(head) < FLAC_HEAD_BYTES or stream_info(head).n_samples > 0
    return _plain_header(head) is not None


def read_header(head: bytes, size_bytes: int) -> Header:
    """Read the header of an audio file of `size_bytes`.

    Parameters
    ----------
    head : bytes
        First bytes that are enough according to `tells`, those of `melmill.flac` for FLAC; otherwise the
        whole file.
    size_bytes : int

    Raises
    ------
    Unusable
        The file is empty, no audio that can be decoded, or ends inside its header. Or it is cut or
        damaged, and its first bytes are not enough to tell its length.
    PackageMissing
        It takes a package that is not installed.
    """
    if len(head) >= size_bytes:
        return _opened(head).header
    if head.startswith(MAGIC):
        return _flac_header(head, size_bytes)
    plain = _plain_header(head)
    if plain is None:
        raise ValueError(
            f"only FLAC, plain WAV and SPHERE are read from their first bytes, got {len(head)} of {size_bytes} bytes "
            "of a file"
        )
    return _checked(plain, size_bytes)


def decode(data: bytes) -> tuple[NDArray[np.int16 | np.float32], Header]:
    """Decode a whole audio file and check it against its own header.

    Returns
    -------
    y : ndarray (n_samples, n_channels)
        int16 for 16 bits or fewer, otherwise float32 in [-1, 1].
    header : Header

    Raises
    ------
    Unusable
        The file can't be decoded, is shorter than its header says, or differs from its checksum.
    PackageMissing
        It takes a package that is not installed.
    """
    whole = _whole_flac(data) if data.startswith(MAGIC) else None
    if whole is not None:
        return whole
    header, pieces, y = _opened(data)
    if not header.believable:
        raise Unusable(header.doubt)
    if y is None:
        y = _decoded(pieces, header)
    if len(y) != header.n_samples:
        raise Unusable(f"file is truncated: header says {header.n_samples:,} samples, {len(y):,} decoded")
    if header.md5 and _md5(y, header.subtype) != header.md5:
        raise Unusable(
            f"the {len(y):,} samples decoded differ from the checksum in the FLAC header: one of them is damaged"
        )
    return y, header


def _whole_flac(data: bytes) -> tuple[NDArray[np.int16], Header] | None:
    """Return samples and header of a usual FLAC file that all its checksums prove to be whole.

    It takes under half of libsndfile's time. Any other file is None: libsndfile decodes it, or it is
    found out there what is wrong with it.
    """
    header = _flac_header(data, len(data))
    if not (header.md5 and header.believable):
        return None
    from melmill.flac_frames import decoded  # here, as it imports numba

    y = decoded(data)
    if y is None or hashlib.md5(y.data).digest() != header.md5:
        return None
    return y[:, np.newaxis], header


def _md5(y: NDArray[np.int16 | np.float32], subtype: str) -> bytes:
    """Return the checksum of FLAC: over interleaved little-endian samples of the file's own width."""
    own: NDArray[Any] = np.ascontiguousarray(y, dtype="<i2")
    if subtype == "PCM_S8":
        own = (own >> 8).astype(np.int8)
    elif subtype == "PCM_24":
        own = np.rint(y * np.float32(1 << 23)).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
    return hashlib.md5(np.ascontiguousarray(own).data).digest()


class _Opened(NamedTuple):
    """Hold the header of a whole file, and what libsndfile is to decode, or what FFmpeg decoded."""

    header: Header
    pieces: Sequence[Piece] = ()
    y: NDArray[np.int16 | np.float32] | None = None


def _opened(data: bytes) -> _Opened:
    """Return the header of a whole file with its true length, and how its samples are had."""
    if not data:
        raise Unusable("file is empty (0 bytes)")
    audio = _untagged(data)
    if ffmpeg.format_of(audio):
        decoded = ffmpeg.decode(audio)
        n_samples, n_channels = decoded.y.shape
        doubt = _doubt(decoded.sr, n_samples, len(data))
        header = Header(sr=decoded.sr, n_samples=n_samples, n_channels=n_channels, subtype=decoded.codec, doubt=doubt)
        return _Opened(header, y=decoded.y)
    if audio.startswith(MAGIC):
        return _opened_flac(audio)
    wav = wav_header(data)
    if wav is not None:
        header = _checked(wav, len(data))
        end = wav.offset + wav.n_samples * wav.frame_bytes
        if any(data[at : at + 4] == b"RIFF" and data[at + 8 : at + 12] == b"WAVE" for at in (end, end + 1)):
            doubt = f"holds WAV files one after another, the first of {wav.n_samples:,} samples: split it"
            header = replace(header, doubt=header.doubt or doubt)
        return _Opened(header, (Piece(data),))
    return _measured(data)


def _untagged(data: bytes) -> bytes:
    """Return a file without the ID3v2 tags in front of it."""
    start = 0
    while size := mpeg.id3_bytes(data, start):
        start += size
    return data[start:] if start else data


def _measured(data: bytes) -> _Opened:
    """Return the header of a file whose length is not told by its first bytes, and its pieces."""
    content = _content(data)
    if content.doubt:
        raise Unusable(content.doubt)
    try:
        infos = [soundfile.info(_Bytes(piece.data)) for piece in content.pieces]
    except soundfile.LibsndfileError as error:
        raise _undecodable(error, data) from error
    lengths = [
        info.frames if piece.n_samples is None else piece.n_samples
        for piece, info in zip(content.pieces, infos, strict=True)
    ]
    doubts = (_doubt(info.samplerate, n, len(data)) for info, n in zip(infos, lengths, strict=True))
    doubt = next(filter(None, doubts), "")
    if not doubt and len({(info.samplerate, info.channels) for info in infos}) > 1:
        said = ", ".join(
            f"{n:,} samples of {info.samplerate:,} Hz with {info.channels} channels"
            for info, n in zip(infos, lengths, strict=True)
        )
        doubt = f"holds streams of several kinds one after another: {said}; split it"
    header = Header(
        sr=infos[0].samplerate,
        n_samples=sum(lengths),
        n_channels=infos[0].channels,
        subtype=infos[0].subtype,
        doubt=doubt,
    )
    return _Opened(header, content.pieces)


def _content(data: bytes) -> Content:
    """Return the audio of a file that is no FLAC, with pieces that have true lengths."""
    if data.startswith(b"OggS"):
        content = ogg.content_of(data)
        if content.doubt:
            n_said, n_decoded = _n_said(content.pieces), _n_decoded(content.pieces)
            doubt = f"{content.doubt}; its pages say {n_said:,} samples, {n_decoded:,} decoded"
            return content._replace(doubt=doubt)
        return content
    samples = sized.samples_of(data)
    if samples is not None:
        content = sized.content_of(data, samples)
        return content if content.doubt or not samples.coded else mpeg.content_of(samples.coded) or content
    if mpeg.id3_bytes(data) or mpeg.frame_at(data, 0):
        return mpeg.content_of(data) or Content((Piece(data),))
    return Content((Piece(data),))


def _undecodable(error: soundfile.LibsndfileError, data: bytes) -> Unusable:
    if "SF_INFO struct incomplete" in error.error_string:  # libsndfile's words for a rate below 1 or past int32
        return Unusable(
            "header is not believable: header says 0 Hz, 2^31 Hz or more, or no channels; "
            f"a recording has {_LOWEST_SR:,} to {_HIGHEST_SR:,} Hz: mend the header or encode it again"
        )
    return Unusable(f"not decodable as audio: {error.error_string} It starts with {data[:8]!r}")


def _plain_header(head: bytes) -> PlainHeader | None:
    """Return the header of WAV or SPHERE of plain samples, where the first bytes tell their number."""
    sphere = sized.sphere_header(head)
    if sphere is not None:
        return sphere if sphere.n_samples and sphere.frame_bytes else None
    return wav_header(head)


def _checked(plain: PlainHeader, size_bytes: int) -> Header:
    n_held = max(0, size_bytes - plain.offset) // plain.frame_bytes
    doubt = _doubt(plain.sr, plain.n_samples, size_bytes)
    if not doubt and n_held < plain.n_samples:
        doubt = truncated(plain.n_samples, n_held)
    return Header(
        sr=plain.sr, n_samples=plain.n_samples, n_channels=plain.n_channels, subtype=plain.subtype, doubt=doubt
    )


def _flac_header(head: bytes, size_bytes: int) -> Header:
    if len(head) < FLAC_HEAD_BYTES:
        raise Unusable(f"file is truncated: it ends inside its FLAC header ({size_bytes:,} bytes)")
    if head[4] & 127 != 0:
        raise Unusable("not decodable as audio: the FLAC header is damaged")
    said = stream_info(head)
    return Header(
        sr=said.sr,
        n_samples=said.n_samples,
        n_channels=said.n_channels,
        subtype="PCM_S8" if said.bits == 8 else f"PCM_{said.bits}",
        md5=said.md5,
        doubt=_doubt(said.sr, said.n_samples, size_bytes),
    )


def _opened_flac(data: bytes) -> _Opened:
    """Return the header of a whole FLAC file, checked against its last frame without a checksum.

    A length that its writer did not know is counted.
    """
    header = _flac_header(data, len(data))
    pieces = (Piece(data),)
    if not _LOWEST_SR <= header.sr <= _HIGHEST_SR:
        return _Opened(header, pieces)
    n_files = flac.n_streams(data)
    if n_files > 1:
        doubt = f"holds {n_files} FLAC files one after another, the first of {header.n_samples:,} samples: split it"
        return _Opened(replace(header, doubt=doubt), pieces)
    if header.md5 and header.n_samples:
        return _Opened(header, pieces)
    n_held = flac.n_samples_by_frames(data)
    if header.n_samples == 0 and len(data) > FLAC_HEAD_BYTES:
        if n_held is None:
            n_whole = _n_decoded(pieces)
            doubt = (
                "file is truncated or damaged: its header says no length, and its last frame is not whole; "
                f"{n_whole:,} samples decoded"
            )
            return _Opened(replace(header, doubt=doubt), pieces)
        mended = flac.with_length(data, n_held)
        return _Opened(_flac_header(mended, len(mended)), (Piece(mended),))
    if header.believable and n_held is not None and n_held > header.n_samples:
        doubt = f"file is damaged: header says {header.n_samples:,} samples, its frames hold {n_held:,}"
        header = replace(header, doubt=doubt)
    return _Opened(header, pieces)


def _doubt(sr: int, n_samples: int, size_bytes: int) -> str:
    if not _LOWEST_SR <= sr <= _HIGHEST_SR:
        return (
            f"header says {sr:,} Hz, a recording has {_LOWEST_SR:,} to {_HIGHEST_SR:,} Hz: "
            "mend the header or encode it again"
        )
    if n_samples <= 0:
        return (
            f"header says {n_samples:,} samples, so the file is empty or its length unknown "
            f"({size_bytes:,} bytes): encode it again"
        )
    if n_samples > MAX_SAMPLES_PER_BYTE * size_bytes:
        return f"header is not believable: it claims {n_samples:,} samples in {size_bytes:,} bytes"
    return ""


def _decoded(pieces: Sequence[Piece], header: Header) -> NDArray[np.int16 | np.float32]:
    """Decode all pieces and join them, ``(n_samples, n_channels)``."""
    dtype = "int16" if header.subtype in _INT16_SUBTYPES else "float32"
    try:
        parts = [_samples(piece, dtype) for piece in pieces]
    except soundfile.LibsndfileError as error:
        raise Unusable(
            f"file is truncated or damaged: header says {header.n_samples:,} samples, {_n_decoded(pieces):,} decoded"
        ) from error
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _samples(piece: Piece, dtype: str) -> NDArray[np.int16 | np.float32]:
    """Decode a piece to its end, ``(n_samples, n_channels)``."""
    info = soundfile.info(_Bytes(piece.data))
    n_known = info.frames
    if info.subtype.startswith("DWVW"):
        with _Sequential(_Bytes(piece.data)) as file:
            in_order: NDArray[np.int16 | np.float32] = file.read(n_known, dtype=dtype, always_2d=True)
            return in_order
    is_known = piece.n_samples is None or piece.n_samples == n_known
    data, n_before = (piece.data, 0) if is_known else (piece.padded, piece.n_silent)
    n_samples = n_known if is_known else n_before + (piece.n_samples or 0)
    y: NDArray[np.int16 | np.float32] = soundfile.read(_Bytes(data), n_samples, dtype=dtype, always_2d=True)[0]
    return y[n_before:]


def _n_said(pieces: Sequence[Piece]) -> int:
    """Return how many samples the pieces say they have."""
    n = 0
    for piece in pieces:
        with contextlib.suppress(soundfile.LibsndfileError):
            n += soundfile.info(_Bytes(piece.data)).frames
    return n


def _n_decoded(pieces: Sequence[Piece]) -> int:
    """Return how many samples of some pieces can be decoded, up to the first that can't."""
    n = 0
    for piece in pieces:
        # Block by block, because libsndfile does not say how far a failed read came.
        with contextlib.suppress(soundfile.LibsndfileError), _Sequential(_Bytes(piece.padded)) as file:
            while n_read := len(file.read(_COUNTING_BLOCK, dtype="int16")):
                n += n_read
    return max(0, n - sum(piece.n_silent for piece in pieces))


def decode_part(data: bytes, start: int, n_samples: int) -> tuple[NDArray[np.int16 | np.float32], Header]:
    """Decode a part of an audio file, the very samples that `decode` has there.

    Of FLAC, plain WAV and SPHERE no more is decoded than is needed. Other files are decoded whole, and
    the last one is kept for its other parts.

    Parameters
    ----------
    data : bytes
        The whole file.
    start, n_samples : int
        First sample, and how many.

    Returns
    -------
    y : ndarray (n_samples, n_channels)
        As `decode` has them.
    header : Header
        Of the whole file.

    Raises
    ------
    Unusable
        The file can't be decoded, or ends before the part does.
    PackageMissing
        It takes a package that is not installed.
    """
    whole, header = None, None
    if tells(data[:HEAD_BYTES]):
        header = read_header(data[:HEAD_BYTES], len(data))
        if not header.believable:
            raise Unusable(header.doubt)
    else:
        whole, header = _last_decoded(data)
    if not 0 <= start < start + n_samples <= header.n_samples:
        raise Unusable(
            f"samples {start:,} to {start + n_samples:,} are wanted of a recording of {header.n_samples:,} samples"
        )
    if whole is not None:
        return whole[start : start + n_samples], header
    dtype = "int16" if header.subtype in _INT16_SUBTYPES else "float32"
    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            file.seek(start)
            y: NDArray[np.int16 | np.float32] = file.read(n_samples, dtype=dtype, always_2d=True)
    except soundfile.LibsndfileError as error:
        raise Unusable(f"file is truncated or damaged near sample {start:,}: {error.error_string}") from error
    if len(y) != n_samples:
        raise Unusable(f"file is truncated: {n_samples:,} samples are wanted from {start:,} on, {len(y):,} decoded")
    return y, header


_last: tuple[bytes, NDArray[np.int16 | np.float32], Header] | None = None


def _last_decoded(data: bytes) -> tuple[NDArray[np.int16 | np.float32], Header]:
    global _last
    digest = hashlib.blake2b(data).digest()
    kept = _last
    if kept is None or kept[0] != digest:
        kept = (digest, *decode(data))
        _last = kept
    return kept[1], kept[2]
