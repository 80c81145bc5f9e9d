"""Headers and samples of audio files, from their bytes.

The first bytes of FLAC and plain WAV files are enough for their headers, so that a corpus is
planned without reading its samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from melmill.stages.numeric.errors import Unusable

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBTYPES = {
    (_PCM, 8): "PCM_U8",
    (_PCM, 16): "PCM_16",
    (_PCM, 24): "PCM_24",
    (_PCM, 32): "PCM_32",
    (_FLOAT, 32): "FLOAT",
    (_FLOAT, 64): "DOUBLE",
}
# A writer to a pipe cannot go back to fill in the size. It leaves 0, or a size just below 2^31 or 2^32: 0x7FFFF000 is
# sox's, and others subtract the header's length.
_PLACEHOLDERS = (range(1), range(0x7FFF0000, 0x80000001), range(0xFFFF0000, 0x100000000))


class WavHeader(NamedTuple):
    """Hold rate (Hz), samples per channel, channels, and the sample format by libsndfile's name.

    `frame_bytes` is the size of a sample of all channels, `offset` where the first begins, in
    bytes.
    """

    sr: int
    n_samples: int
    n_channels: int
    subtype: str
    frame_bytes: int
    offset: int


def wav_header(head: bytes) -> WavHeader | None:
    r"""Return the header of a RIFF WAVE file of plain samples; None if the first bytes hold none.

    That is another format, coded samples, or a data chunk that begins later or has no size.

    References
    ----------
    Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0, 1991, chapter
    3.

    >>> fmt = b"fmt \x10\0\0\0" + bytes([1, 0, 2, 0, 0x22, 0x56, 0, 0, 0x88, 0x58, 1, 0, 4, 0, 16, 0])
    >>> wav_header(b"RIFF....WAVE" + fmt + b"data\x28\0\0\0")
    WavHeader(sr=22050, n_samples=10, n_channels=2, subtype='PCM_16', frame_bytes=4, offset=44)
    """
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    at, described = 12, b""
    while at + 8 <= len(head):
        name, size = head[at : at + 4], _number(head[at + 4 : at + 8])
        if name == b"fmt ":
            described = head[at + 8 : at + 8 + size]
        if name == b"data":
            return None if any(size in sizes for sizes in _PLACEHOLDERS) else _header(described, size, at + 8)
        at += 8 + size + size % 2
    return None


def _header(described: bytes, size_bytes: int, offset: int) -> WavHeader | None:
    if len(described) < 16:
        return None
    coding, bits = _number(described[:2]), _number(described[14:16])
    if coding == _EXTENSIBLE:
        coding = _number(described[24:26])
    subtype, frame_bytes = _SUBTYPES.get((coding, bits)), _number(described[12:14])
    if subtype is None or frame_bytes == 0:
        return None
    return WavHeader(
        sr=_number(described[4:8]),
        n_samples=size_bytes // frame_bytes,
        n_channels=_number(described[2:4]),
        subtype=subtype,
        frame_bytes=frame_bytes,
        offset=offset,
    )


def _number(field: bytes) -> int:
    return int.from_bytes(field, "little")


FLAC = b"fLaC"
# First bytes that are read of a file: a WAV file may hold a few chunks before its samples.
HEAD_BYTES = 4096
# "fLaC", one block header (4 bytes) and STREAMINFO (34 bytes): RFC 9639, section 8.2.
FLAC_HEAD_BYTES = 42
# More samples per byte are not plausible: a frame of silence takes some 14 bytes for 4096 samples.
MAX_SAMPLES_PER_BYTE = 2000
# Rates of recordings, Hz: below, speech is not intelligible; the highest is what FLAC can say.
_LOWEST_SR, _HIGHEST_SR = 1000, (1 << 20) - 1
_INT16_SUBTYPES = frozenset({"PCM_16", "PCM_S8", "PCM_U8"})
_COUNTING_BLOCK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Hold what a file claims of itself.

    Parameters
    ----------
    sr, n_samples, n_channels : int
        Sampling rate (Hz), samples per channel, channels.
    subtype : str
        Sample format by libsndfile's name (``PCM_16``).
    md5 : bytes
        Checksum of the PCM of a FLAC file; empty where the file has none.
    doubt : str
        Why the claimed rate or length can't be believed; empty where both can be.
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


def tells(head: bytes) -> bool:
    """Tell whether these first bytes are enough for `read_header`: of FLAC or plain WAV."""
    return head.startswith(FLAC) or wav_header(head) is not None


def read_header(head: bytes, size_bytes: int) -> Header:
    """Read the header of an audio file of `size_bytes`.

    Parameters
    ----------
    head : bytes
        First bytes that are enough according to `tells`, `FLAC_HEAD_BYTES` for FLAC; otherwise the
        whole file.
    size_bytes : int

    Raises
    ------
    Unusable
        The file is empty, no audio that libsndfile knows, or ends inside its header.
    """
    if size_bytes == 0:
        raise Unusable("file is empty (0 bytes)")
    if head.startswith(FLAC):
        return _flac_header(head, size_bytes)
    wav = wav_header(head)
    if wav is not None:
        n_held = max(0, size_bytes - wav.offset) // wav.frame_bytes
        doubt = _doubt(wav.sr, wav.n_samples, size_bytes)
        if not doubt and n_held < wav.n_samples:
            doubt = f"file is truncated: header says {wav.n_samples:,} samples, the file holds {n_held:,}"
        return Header(sr=wav.sr, n_samples=wav.n_samples, n_channels=wav.n_channels, subtype=wav.subtype, doubt=doubt)
    if len(head) < size_bytes:
        raise ValueError(
            f"only FLAC and plain WAV are read from their first bytes, got {len(head)} of {size_bytes} bytes of a file"
        )
    try:
        info = soundfile.info(io.BytesIO(head))
    except soundfile.LibsndfileError as error:
        if "SF_INFO struct incomplete" in error.error_string:  # libsndfile's words for a rate below 1 or past int32
            raise Unusable(
                "header is not believable: header says 0 Hz, 2^31 Hz or more, or no channels; "
                f"a recording has {_LOWEST_SR:,} to {_HIGHEST_SR:,} Hz: mend the header or encode it again"
            ) from error
        raise Unusable(f"not decodable as audio: {error.error_string} It starts with {head[:8]!r}") from error
    return Header(
        sr=info.samplerate,
        n_samples=info.frames,
        n_channels=info.channels,
        subtype=info.subtype,
        doubt=_doubt(info.samplerate, info.frames, size_bytes),
    )


def _flac_header(head: bytes, size_bytes: int) -> Header:
    if len(head) < FLAC_HEAD_BYTES:
        raise Unusable(f"file is truncated: it ends inside its FLAC header ({size_bytes:,} bytes)")
    # 20 bits rate, 3 bits channels - 1, 5 bits bits per sample - 1, 36 bits samples: RFC 9639,
    # section 8.2.
    packed = int.from_bytes(head[18:26], "big")
    sr, bits = packed >> 44, (packed >> 36 & 31) + 1
    n_samples = packed & (1 << 36) - 1
    if head[4] & 127 != 0:
        raise Unusable("not decodable as audio: the FLAC header is damaged")
    md5 = head[26:42]
    return Header(
        sr=sr,
        n_samples=n_samples,
        n_channels=(packed >> 41 & 7) + 1,
        subtype="PCM_S8" if bits == 8 else f"PCM_{bits}",
        md5=md5 if any(md5) else b"",
        doubt=_doubt(sr, n_samples, size_bytes),
    )


def _doubt(sr: int, n_samples: int, size_bytes: int) -> str:
    if not _LOWEST_SR <= sr <= _HIGHEST_SR:
        return (
            f"header says {sr:,} Hz, a recording has {_LOWEST_SR:,} to {_HIGHEST_SR:,} Hz: "
            "mend the header or encode it again"
        )
    if n_samples == 0:
        return (
            f"header says 0 samples, so the file is empty or its length unknown ({size_bytes:,} bytes): encode it again"
        )
    if n_samples > MAX_SAMPLES_PER_BYTE * size_bytes:
        return f"header is not believable: it claims {n_samples:,} samples in {size_bytes:,} bytes"
    return ""


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
    """
    header = read_header(data, len(data))
    if not header.believable:
        raise Unusable(header.doubt)
    dtype = "int16" if header.subtype in _INT16_SUBTYPES else "float32"
    try:
        y, _ = soundfile.read(io.BytesIO(data), dtype=dtype, always_2d=True)
    except soundfile.LibsndfileError as error:
        raise Unusable(_broken_off(data, header)) from error
    if len(y) != header.n_samples:
        raise Unusable(f"file is truncated: header says {header.n_samples:,} samples, {len(y):,} decoded")
    # STREAMINFO's checksum is over interleaved little-endian samples of the file's own width.
    if header.md5 and header.subtype == "PCM_16" and hashlib.md5(y.astype("<i2", copy=False)).digest() != header.md5:
        raise Unusable(
            f"the {len(y):,} samples decoded differ from the checksum in the FLAC header: one of them is damaged"
        )
    return y, header


def _broken_off(data: bytes, header: Header) -> str:
    """Return how far a file can be decoded that can't be decoded to its end, in words."""
    n_decoded = 0
    # Read again block by block, because libsndfile does not say how far a failed read came.
    with contextlib.suppress(soundfile.LibsndfileError), soundfile.SoundFile(io.BytesIO(data)) as file:
        while n_decoded < header.n_samples:
            file.read(min(_COUNTING_BLOCK, header.n_samples - n_decoded), dtype="int16")
            n_decoded = file.tell()
    return f"file is truncated or damaged: header says {header.n_samples:,} samples, {n_decoded:,} decoded"
