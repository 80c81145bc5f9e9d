"""The header of a WAV file, from its first bytes: a corpus is planned without reading all of its samples."""

from __future__ import annotations

from typing import NamedTuple

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBTYPES = {
    (_PCM, 8): "PCM_U8",
    (_PCM, 16): "PCM_16",
    (_PCM, 24): "PCM_24",
    (_PCM, 32): "PCM_32",
    (_FLOAT, 32): "FLOAT",
    (_FLOAT, 64): "DOUBLE",
}
# What a writer that could not go back leaves as the size of its data.
_OPEN_ENDED = frozenset({0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF})


class WavHeader(NamedTuple):
    """Rate (Hz), samples a channel, channels, and the sample format by libsndfile's name."""

    sr: int
    n_samples: int
    n_channels: int
    subtype: str


def wav_header(head: bytes) -> WavHeader | None:
    r"""Return what a RIFF WAVE file of plain samples says of itself.

    None where `head`, the first bytes of a file, does not tell: another format, coded samples, a data chunk that
    begins later or whose size was never filled in.

    References
    ----------
    Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0, 1991, chapter 3.

    >>> fmt = b"fmt \x10\0\0\0" + bytes([1, 0, 2, 0, 0x22, 0x56, 0, 0, 0x88, 0x58, 1, 0, 4, 0, 16, 0])
    >>> wav_header(b"RIFF....WAVE" + fmt + b"data\x28\0\0\0")
    WavHeader(sr=22050, n_samples=10, n_channels=2, subtype='PCM_16')
    """
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    at, described = 12, b""
    while at + 8 <= len(head):
        name, size = head[at : at + 4], _number(head[at + 4 : at + 8])
        if name == b"fmt ":
            described = head[at + 8 : at + 8 + size]
        if name == b"data":
            return None if size in _OPEN_ENDED else _header(described, size)
        at += 8 + size + size % 2
    return None


def _header(described: bytes, size_bytes: int) -> WavHeader | None:
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
    )


def _number(field: bytes) -> int:
    return int.from_bytes(field, "little")
