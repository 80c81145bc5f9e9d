"""Audio files as chunks, pages and frames, and mutations of those."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

_PLACEHOLDERS = (0, 0, 1, 7, 8, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_IDS = (b"LIST", b"JUNK", b"data", b"fmt ", b"fact", b"COMM", b"SSND", b"ID3 ", b"bext", b"\0\0\0\0", b"PAD ")
# Positions of a page's fields: RFC 3533, section 6.
_OGG_SERIAL, _OGG_SEQUENCE, _OGG_CRC = slice(14, 18), slice(18, 22), slice(22, 26)


@dataclass(frozen=True)
class Chunk:
    """A piece of a file: its head, whose last bytes may be the size, its body, and padding.

    `order` is the byte order of the size and `size_bytes` how many bytes it has, 0 for none.
    """

    head: bytes
    body: bytes
    pad: bytes = b""
    order: str = "little"
    size_bytes: int = 0

    @property
    def data(self) -> bytes:
        """All its bytes."""
        return self.head + self.body + self.pad


def chunks(data: bytes) -> list[Chunk]:
    """Return the pieces of a file; joined they are the file. Other formats are one piece."""
    match data[:4]:
        case b"RIFF" | b"RF64":
            return _iff(data, "little")
        case b"RIFX" | b"FORM":
            return _iff(data, "big")
        case b"caff":
            return [Chunk(data[:8], b""), *_run(data, 8, "big", 4, 8, pad=1)]
        case b"riff":
            return [Chunk(data[:40], b""), *_wave64(data)]
        case b"OggS":
            return _pieces(data, [match.start() for match in re.finditer(b"OggS\0", data)])
        case b"fLaC":
            return _flac(data)
    if data[:3] == b"ID3" or data[:1] == b"\xff":
        return _pieces(data, [match.start() for match in re.finditer(rb"\xff[\xe0-\xff][\x10-\xef]", data)])
    return [Chunk(data[:24], data[24:])]


def _iff(data: bytes, order: str) -> list[Chunk]:
    return [Chunk(data[:12], b""), *_run(data, 12, order, 4, 4, pad=2)]


def _run(data: bytes, at: int, order: str, name_bytes: int, size_bytes: int, pad: int) -> list[Chunk]:
    found = []
    while at < len(data):
        begin = at + name_bytes + size_bytes
        size = int.from_bytes(data[at + name_bytes : begin], order)  # type: ignore[arg-type]
        end = min(begin + size, len(data))
        after = min(end + -size % pad, len(data))
        found.append(Chunk(data[at:begin], data[begin:end], data[end:after], order, size_bytes))
        at = after
    return found


def _wave64(data: bytes) -> list[Chunk]:
    found, at = [], 40
    while at < len(data):
        size = max(24, int.from_bytes(data[at + 16 : at + 24], "little"))
        end = min(at + size, len(data))
        after = min(end + -size % 8, len(data))
        found.append(Chunk(data[at : at + 24], data[at + 24 : end], data[end:after], "little", 8))
        at = after
    return found


def _flac(data: bytes) -> list[Chunk]:
    found, at, last = [Chunk(data[:4], b"")], 4, False
    while not last and at + 4 <= len(data):
        last, size = bool(data[at] & 128), int.from_bytes(data[at + 1 : at + 4], "big")
        found.append(Chunk(data[at : at + 4], data[at + 4 : at + 4 + size], b"", "big", 3))
        at += 4 + size
    frames = [match.start() + at for match in re.finditer(rb"\xff[\xf8\xf9]", data[at:])]
    return [*found, *_pieces(data[at:], [frame - at for frame in frames])]


def _pieces(data: bytes, starts: Sequence[int]) -> list[Chunk]:
    bounds = [*dict.fromkeys((0, *starts)), len(data)]
    return [Chunk(data[a : a + 8], data[a + 8 : b]) for a, b in pairwise(bounds) if a < b]


def mutated(data: bytes, rng: Random) -> bytes:
    """Return a file some of whose pieces are moved, repeated, left out, added or have another size."""
    pieces = chunks(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(pieces))
        match rng.randrange(6):
            case 0:
                pieces[at] = _resized(pieces[at], rng)
            case 1:
                pieces.insert(rng.randrange(len(pieces) + 1), pieces[at])
            case 2 if len(pieces) > 1:
                pieces.pop(at)
            case 3:
                other = rng.randrange(len(pieces))
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case 4:
                pieces.insert(at + 1, _added(pieces[-1], rng))
            case _:
                n = rng.choice((1, 2, 4))
                body = bytearray(pieces[at].body)
                del body[len(body) - n :]
                pieces[at] = replace(pieces[at], body=bytes(body))
    made = b"".join(piece.data for piece in pieces)
    return sealed_ogg(made) if made[:4] == b"OggS" and rng.random() < 0.7 else made


def _resized(chunk: Chunk, rng: Random) -> Chunk:
    n = chunk.size_bytes or 4
    limit = (1 << 8 * n) - 1
    size = rng.choice(
        (*_PLACEHOLDERS, limit, limit >> 1, len(chunk.body) + 1, len(chunk.body) - 1, 2 * len(chunk.body))
    )
    return replace(chunk, head=chunk.head[:-n] + (size & limit).to_bytes(n, chunk.order))  # type: ignore[arg-type]


def _added(like: Chunk, rng: Random) -> Chunk:
    n, body = like.size_bytes or 4, rng.randbytes(rng.choice((0, 1, 2, 26, 1000)))
    return Chunk(rng.choice(_IDS) + len(body).to_bytes(n, like.order), body)  # type: ignore[arg-type]


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 1 << 31 else 0)) & 0xFFFFFFFF
        table.append(crc)
    return table


_CRC = _crc_table()


def ogg_crc(page: bytes) -> int:
    """Return the checksum of an Ogg page, whose own field counts as 0 (RFC 3533, section 6)."""
    crc = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _CRC[crc >> 24 ^ byte]
    return crc


@dataclass(frozen=True)
class Page:
    """A page of an Ogg file as it stands: its bytes, and whether its checksum is right."""

    data: bytes
    whole: bool

    @property
    def first(self) -> bool:
        """Whether it begins a stream."""
        return bool(self.data[5] & 2)

    @property
    def last(self) -> bool:
        """Whether it ends a stream."""
        return bool(self.data[5] & 4)

    @property
    def serial(self) -> bytes:
        """Number of its stream."""
        return self.data[_OGG_SERIAL]

    @property
    def sequence(self) -> int:
        """Number of the page in its stream."""
        return int.from_bytes(self.data[_OGG_SEQUENCE], "little")


def ogg_pages(data: bytes) -> list[Page] | None:
    """Return the pages of an Ogg file; None where other bytes are among them or the last is cut."""
    pages, at = [], 0
    while at < len(data):
        head = data[at : at + 27]
        if len(head) < 27 or head[:5] != b"OggS\0":
            return None
        table = data[at + 27 : at + 27 + head[26]]
        end = at + 27 + head[26] + sum(table)
        if len(table) < head[26] or end > len(data):
            return None
        page = data[at:end]
        pages.append(Page(page, ogg_crc(page).to_bytes(4, "little") == page[_OGG_CRC]))
        at = end
    return pages


def sealed_ogg(data: bytes, serial: bytes | None = None) -> bytes:
    """Return an Ogg file whose pages have right checksums, and one serial number where it is given."""
    made = b""
    for piece in chunks(data):
        page = bytearray(piece.data)
        if len(page) >= 27:
            if serial is not None:
                page[_OGG_SERIAL] = serial
            end = min(len(page), 27 + page[26] + sum(page[27 : 27 + page[26]]))
            page[_OGG_CRC] = ogg_crc(bytes(page[:end])).to_bytes(4, "little")
        made += bytes(page)
    return made
