"""Ogg: pages, and the streams that follow one another in a file.

libsndfile takes the length of the first stream from the last page that it finds. So it takes a file
that was cut for whole, and leaves out the streams behind the first.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from melmill.stages.formats.containers.content import Content, Piece
from melmill.stages.formats.containers.mpeg import tag_bytes

_MAGIC = b"OggS"
_HEADER_BYTES = 27
_CRC = slice(22, 26)
_FIRST, _LAST = 2, 4
# Bytes with their bits in reverse order.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Page(NamedTuple):
    """Hold what a page says, and its offset and size in bytes.

    `is_continued` tells that its last packet goes on in the next page.
    """

    start: int
    size: int
    flags: int
    granule: int
    serial: int
    number: int
    is_continued: bool


def page_at(data: bytes, at: int) -> Page | None:
    """Return the page that begins at an offset, None if none does or if it is cut off.

    References
    ----------
    RFC 3533, section 6.
    """
    if data[at : at + 4] != _MAGIC or at + _HEADER_BYTES > len(data):
        return None
    n_segments = data[at + 26]
    lacing = data[at + _HEADER_BYTES : at + _HEADER_BYTES + n_segments]
    size = _HEADER_BYTES + n_segments + sum(lacing)
    if len(lacing) < n_segments or at + size > len(data):
        return None
    return Page(
        start=at,
        size=size,
        flags=data[at + 5],
        granule=int.from_bytes(data[at + 6 : at + 14], "little", signed=True),
        serial=int.from_bytes(data[at + 14 : at + 18], "little"),
        number=int.from_bytes(data[at + 18 : at + 22], "little"),
        is_continued=lacing[-1:] == b"\xff",
    )


def is_intact(data: bytes, page: Page) -> bool:
    """Tell whether a page has the checksum that its header says."""
    body = bytearray(data[page.start : page.start + page.size])
    said = bytes(body[_CRC])
    body[_CRC] = bytes(4)
    return said == checksum(bytes(body))


def checksum(page: bytes) -> bytes:
    """Return the CRC of a page whose own field of it is zero.

    zlib computes the same polynomial with bits in reverse order, and with inverted ends.
    """
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "little").translate(_REVERSED)[::-1]


def content_of(data: bytes) -> Content:
    """Return the audio of an Ogg file, with a piece for each stream that follows another.

    There is doubt if a page is damaged, missing, repeated or cut off, or if other bytes lie among the
    pages or behind them. Zeros and tags behind the last page are no audio. A stream without a last page, as an
    interrupted recorder leaves it, is taken as it is if its last packet is whole.
    """
    starts, doubt, cut = [0], "", ""
    # Number of the next page by serial of the streams that have not ended.
    running: dict[int, int] = {}
    at = 0
    while at < len(data):
        page = page_at(data, at)
        if page is None:
            doubt = doubt or _behind(data, at, is_running=bool(running))
            break
        if not is_intact(data, page):
            doubt = doubt or f"file is damaged: the Ogg page at byte {at:,} differs from its checksum"
        if page.flags & _FIRST:
            if page.serial in running and not _is_behind(running):
                doubt = doubt or f"file is damaged: an Ogg stream begins once more at byte {at:,}"
            if at and (not running or _is_behind(running)):
                doubt = doubt or cut
                starts.append(at)
                running = {}
            running[page.serial] = page.number
        if page.serial in running:
            if page.number != running[page.serial]:
                doubt = doubt or f"file is damaged: pages are missing before byte {at:,} of its Ogg stream"
            running[page.serial] = page.number + 1
            if page.flags & _LAST:
                del running[page.serial]
            goes_on = page.is_continued and not page.flags & _LAST
            cut = f"file is truncated: the Ogg page at byte {at:,} ends inside a packet" if goes_on else ""
        else:
            doubt = doubt or f"file is damaged: the Ogg page at byte {at:,} is of no stream that runs there"
        at += page.size
    doubt = doubt or cut
    ends = [*starts[1:], len(data)]
    pieces = tuple(Piece(_ended(data[start:end])) for start, end in zip(starts, ends, strict=True))
    return Content(pieces, doubt)


def _behind(data: bytes, at: int, *, is_running: bool) -> str:
    """Return why bytes that are no page must not follow the pages, empty where they may."""
    if is_running or data.find(_MAGIC, at) >= 0:
        return f"file is truncated: at byte {at:,} of {len(data):,} no whole Ogg page begins"
    end = at
    while size := tag_bytes(data, end):
        end += size
    if data[end:].strip(b"\0"):
        return f"file is damaged or joined: {len(data) - end:,} bytes behind its last Ogg page are no Ogg page"
    return ""


def _ended(stream: bytes) -> bytes:
    """Return a stream whose last page says so; libsndfile can't read the end of others of Opus."""
    page = page_at(stream, max(0, stream.rfind(_MAGIC)))
    if page is None or page.flags & _LAST:
        return stream
    last = bytearray(stream[page.start : page.start + page.size])
    last[5] |= _LAST
    last[_CRC] = bytes(4)
    last[_CRC] = checksum(bytes(last))
    return stream[: page.start] + bytes(last) + stream[page.start + page.size :]


def _is_behind(running: dict[int, int]) -> bool:
    """Tell whether streams have gone past their first pages, which lie together."""
    return any(number > 1 for number in running.values())
