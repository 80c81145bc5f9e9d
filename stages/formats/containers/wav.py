"""Headers of RIFF WAVE files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from melmill.stages.formats.containers.content import is_placeholder

Order = Literal["little", "big"]
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBTYPES = {
    (_PCM, 8): "PCM_U8",
    (_PCM, 16): "PCM_16",
    (_PCM, 24): "PCM_24",
    (_PCM, 32): "PCM_32",
    (_FLOAT, 32): "FLOAT",
    (_FLOAT, 64): "DOUBLE",
}


class PlainHeader(NamedTuple):
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


class Chunk(NamedTuple):
    """Hold name, offset of the content, and size in bytes as the header says it."""

    name: bytes
    start: int
    size: int


def wav_header(head: bytes) -> PlainHeader | None:
    r"""Return the header of a RIFF WAVE file of plain samples; None if the first bytes hold none.

    That is another format, coded samples, or a data chunk that begins later or has no size.

    References
    ----------
    Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0, 1991, chapter
    3.

    >>> fmt = b"fmt \x10\0\0\0" + bytes([1, 0, 2, 0, 0x22, 0x56, 0, 0, 0x88, 0x58, 1, 0, 4, 0, 16, 0])
    >>> wav_header(b"RIFF....WAVE" + fmt + b"data\x28\0\0\0")
    PlainHeader(sr=22050, n_samples=10, n_channels=2, subtype='PCM_16', frame_bytes=4, offset=44)
    """
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    described = b""
    for chunk in chunks(head):
        if chunk.name == b"fmt ":
            described = head[chunk.start : chunk.start + chunk.size]
        if chunk.name == b"data":
            return None if is_placeholder(chunk.size) else plain(described, chunk.size, chunk.start)
    return None


def chunks(head: bytes, order: Order = "little") -> Iterator[Chunk]:
    """Yield the chunks of a RIFF or IFF file whose headers its first bytes hold.

    Parameters
    ----------
    head : bytes
    order : {"little", "big"}
        Byte order of sizes.
    """
    at = 12
    while at + 8 <= len(head):
        size = int.from_bytes(head[at + 4 : at + 8], order)
        yield Chunk(head[at : at + 4], at + 8, size)
        at += 8 + size + size % 2


def plain(described: bytes, size_bytes: int, offset: int, order: Order = "little") -> PlainHeader | None:
    """Return the header that a ``fmt`` chunk and the size of the samples make; None if coded."""
    if len(described) < 16:
        return None
    n_channels, sr, frame_bytes, bits = (
        int.from_bytes(described[start:stop], order) for start, stop in ((2, 4), (4, 8), (12, 14), (14, 16))
    )
    subtype = _SUBTYPES.get((coding_of(described, order), bits))
    if subtype is None or frame_bytes == 0:
        return None
    return PlainHeader(
        sr=sr,
        n_samples=size_bytes // frame_bytes,
        n_channels=n_channels,
        subtype=subtype,
        frame_bytes=frame_bytes,
        offset=offset,
    )


def coding_of(described: bytes, order: Order = "little") -> int:
    """Return the number of the coding that a ``fmt`` chunk names."""
    coding = int.from_bytes(described[:2], order)
    return int.from_bytes(described[24:26], order) if coding == _EXTENSIBLE else coding
