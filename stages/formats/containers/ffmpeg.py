"""Files that FFmpeg decodes and libsndfile does not, such as MP4, WMA, WebM and WavPack.

They take the optional package PyAV, which brings FFmpeg's libraries.
"""

from __future__ import annotations

import errno
import importlib.util
import io
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.errors import PackageMissing
from melmill.stages.formats.containers.content import truncated
from melmill.stages.numeric.errors import Unusable

if TYPE_CHECKING:
    import av
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

INSTALL = "pip install 'melmill[av]'"
SUFFIXES = (
    "m4a", "m4b", "mp4", "aac", "wma", "webm", "weba", "mka", "amr", "awb", "3gp", "wv", "ac3", "eac3", "ape", "tta",
    "spx",
)  # fmt: skip
"""Suffixes of files that are read where PyAV is installed, without the dot."""

_MAGICS = {
    b"wvpk": "WavPack",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "WMA",
    b"\x1a\x45\xdf\xa3": "WebM or Matroska",
    b"#!AMR": "AMR",
    b"MAC ": "Monkey's Audio",
    b"TTA1": "True Audio",
    b"\x0b\x77": "AC-3",
    b"ADIF": "AAC",
}
# The kinds of boxes that MP4 and QuickTime files begin with.
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
# Sizes of AMR's frames by mode, with the byte of their header: RFC 4867, section 5.3.
_AMR_NB = (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1)
_AMR_WB = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1)
# Bit rates of AC-3, kbit/s, by code: ETSI TS 102 366, table 4.13.
_AC3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
# Rates that a frame of AAC can name: ISO/IEC 14496-3, table 1.18.
_N_AAC_RATES = 13
# Demuxers that estimate a length from the bit rate.
_ESTIMATING = ("aac", "ac3", "eac3", "amr", "amrnb", "amrwb")
# Opus is decoded at this rate, Hz.
_OPUS_SR = 48000
# A header's length may be rounded, and decoders hold back their last frames.
_TOLERANCE_S = 0.1


class Decoded(NamedTuple):
    """Hold the samples of a file, ``(n_samples, n_channels)``, its rate, Hz, and its codec.

    The samples are int16 where the codec has 16 bits, otherwise float32 of full scale 1.
    """

    y: NDArray[np.int16 | np.float32]
    sr: int
    codec: str


@cache
def is_installed() -> bool:
    """Tell whether this process can import PyAV."""
    return importlib.util.find_spec("av") is not None


def format_of(data: bytes) -> str:
    """Return the name of a format that FFmpeg reads, by a file's first bytes; empty for others.

    >>> format_of(b"wvpk...."), format_of(b"RIFF....")
    ('WavPack', '')
    """
    if data[4:8] in _BOXES:
        return "MP4"
    if data[:4] == b"OggS" and data[28:36] == b"Speex   ":
        return "Speex"
    if _begins_adts(data):
        return "AAC"
    return next((name for magic, name in _MAGICS.items() if data.startswith(magic)), "")


def decode(data: bytes) -> Decoded:
    """Decode the first audio stream of a file, as FFmpeg gives it.

    The encoder's delay, edit lists and padding at the end are left out where the file tells them.

    Parameters
    ----------
    data : bytes
        A file of which `format_of` knows the format.

    Raises
    ------
    PackageMissing
        PyAV is not installed.
    Unusable
        It can't be decoded, is shorter than its header says, or changes its rate or channels.
    """
    if not is_installed():
        raise PackageMissing(f"reading {format_of(data)} needs the package av: {INSTALL}")
    import av

    _check_frames(data)
    try:
        with av.open(io.BytesIO(data), mode="r", metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise Unusable("holds no audio stream")
            return _read(container, container.streams.audio[0])
    except av.FFmpegError as error:
        _check_memory(error)
        raise Unusable(f"not decodable as {format_of(data)}: {error.strerror} ({len(data):,} bytes)") from error


def _read(container: InputContainer, stream: AudioStream) -> Decoded:
    """Decode a stream to its end, and check it against the header.

    Raises
    ------
    Unusable
        It can't be decoded, has too few samples, or changes its rate or channels.
    """
    import av

    blocks: list[NDArray[np.int16 | np.float32]] = []
    kinds: dict[tuple[int, int], None] = {}
    n_packets, problem = 0, ""
    try:
        # Without this, FFmpeg makes up samples for what is damaged.
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
        for packet in container.demux(stream):
            n_packets += packet.size > 0
            for frame in packet.decode():
                y = _samples(frame)
                blocks.append(y if blocks else y[_left_of_delay(stream, packet, y) :])
                kinds[frame.sample_rate, frame.layout.nb_channels] = None
    except av.FFmpegError as error:
        _check_memory(error)
        problem = error.strerror or "unknown error"
    if len(kinds) > 1:
        said = " and ".join(f"{sr:,} Hz with {n} channels" for sr, n in kinds)
        raise Unusable(f"changes its rate or channels inside: {said}")
    sr = next(iter(kinds), (stream.rate, 0))[0]
    n_samples = sum(map(len, blocks))
    missing = max(0, stream.frames - n_packets) * (stream.codec_context.frame_size or 0)
    claimed_s = _claimed_s(container, stream)
    n_claimed = n_samples + missing
    if claimed_s is not None and n_samples < (claimed_s - _TOLERANCE_S) * sr:
        n_claimed = max(n_claimed, round(claimed_s * sr))
    if problem:
        raise Unusable(
            f"file is truncated or damaged: header says {n_claimed:,} samples, {n_samples:,} decoded: {problem}"
        )
    if n_claimed > n_samples:
        raise Unusable(truncated(n_claimed, n_samples))
    if not blocks:
        raise Unusable("holds no samples of audio")
    return Decoded(np.concatenate(blocks), sr, stream.codec_context.codec.name.removeprefix("lib").upper())


def _left_of_delay(stream: AudioStream, packet: Packet[AudioStream], y: NDArray[Any]) -> int:
    """Return how many samples of the encoder's delay FFmpeg left in the first frame of Opus.

    FFmpeg 8 reckons the delay of WebM files at the rate of the recording, not at the 48 kHz of
    Opus. The right one is in the header of Opus: RFC 7845, section 5.1.
    """
    head = stream.codec_context.extradata or b""
    if not head.startswith(b"OpusHead") or not packet.duration or packet.time_base is None:
        return 0
    delay = int.from_bytes(head[10:12], "little")
    n_samples = round(packet.duration * packet.time_base * _OPUS_SR)
    n_left = delay - (n_samples - len(y))
    return n_left if delay <= n_samples and 0 < n_left < delay else 0


def _check_memory(error: av.FFmpegError) -> None:
    """Raise MemoryError where FFmpeg found no memory, which is no fault of the file."""
    if error.errno == errno.ENOMEM:
        raise MemoryError("FFmpeg found no memory") from error


def _samples(frame: AudioFrame) -> NDArray[np.int16 | np.float32]:
    """Return the samples of a frame ``(n_samples, n_channels)``."""
    raw: NDArray[Any] = frame.to_ndarray()
    y = raw.T if frame.format.is_planar else raw.reshape(-1, frame.layout.nb_channels)
    if y.dtype == np.uint8:
        return ((y.astype(np.int16) - 128) * 256).astype(np.int16)
    if y.dtype == np.int16:
        return y.astype(np.int16)
    if y.dtype.kind == "i":
        return (y / 2.0 ** (8 * y.itemsize - 1)).astype(np.float32)
    return y.astype(np.float32)


def _claimed_s(container: InputContainer, stream: AudioStream) -> float | None:
    """Return the length that a header says, s; None if it says none or only estimates it."""
    if any(name in _ESTIMATING for name in container.format.name.split(",")):
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is None or len(container.streams) > 1:
        return None
    return float(container.duration - max(0, container.start_time or 0)) / 1_000_000


def _is_adts(data: bytes, at: int) -> bool:
    return len(data) > at + 6 and data[at] == 0xFF and data[at + 1] & 0xF6 == 0xF0


def _begins_adts(data: bytes) -> bool:
    """Tell whether a file begins with a frame of AAC, and goes on with another or ends.

    The first bytes alone could be those of a frame of FLAC.
    """
    size = _frame_bytes(data, 0) if _is_adts(data, 0) else 0
    if not size or data[2] >> 2 & 15 >= _N_AAC_RATES:
        return False
    return size == len(data) or (_is_adts(data, size) and data[1:3] == data[size + 1 : size + 3])


def _check_frames(data: bytes) -> None:
    """Raise Unusable for a stream without a header that ends inside a frame; FFmpeg takes it."""
    at = 9 if data.startswith(b"#!AMR-WB\n") else 6 if data.startswith(b"#!AMR\n") else 0
    n_frames = 0
    while at < len(data) and (size := _frame_bytes(data, at)):
        n_frames, at = n_frames + 1, at + size
    if at > len(data):
        raise Unusable(
            f"file is truncated: it ends inside a frame; {n_frames:,} frames begin, {n_frames - 1:,} are whole"
        )


def _frame_bytes(data: bytes, at: int) -> int:
    """Return the size of the frame of AAC, AMR or AC-3 at an offset, bytes; 0 for anything else."""
    if data.startswith(b"#!AMR"):
        return (_AMR_WB if data.startswith(b"#!AMR-WB") else _AMR_NB)[data[at] >> 3 & 15]
    if _is_adts(data, at):
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        return size if size >= 7 else 0
    if data[at : at + 2] == b"\x0b\x77" and at + 6 <= len(data):
        if data[at + 5] >> 3 > 10:  # Enhanced AC-3
            return 2 * (((data[at + 2] & 7) << 8 | data[at + 3]) + 1)
        rate, code = data[at + 4] >> 6, data[at + 4] & 63
        if rate < 3 and code >> 1 < len(_AC3_KBITS):
            kbits = _AC3_KBITS[code >> 1]
            return (4 * kbits, 2 * (kbits * 320 // 147 + (code & 1)), 6 * kbits)[rate]
    return 0
