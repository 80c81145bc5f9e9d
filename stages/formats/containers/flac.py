"""FLAC: other lengths in the header, and where the last frame ends.

A writer that can't go back leaves 0 samples in the header. Then the last frame tells the length.
"""

from __future__ import annotations

from melmill.flac import CRC8, CRC16, HEAD_BYTES, MAGIC, crc_table, stream_info

# How STREAMINFO begins: the first of the blocks behind "fLaC", perhaps the only one.
_BEGINNINGS = (MAGIC + b"\x00\x00\x00\x22", MAGIC + b"\x80\x00\x00\x22")
# Bytes at the end of a file that are searched for its last frame.
_SEARCHED_BYTES = 1 << 20
_ID3V1_BYTES = 128


def with_length(data: bytes, n_samples: int) -> bytes:
    """Return a file with another length in its header."""
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | n_samples
    return data[:18] + packed.to_bytes(8, "big") + data[26:]


def n_streams(data: bytes) -> int:
    """Return how many FLAC files follow one another in one."""
    return sum(data.count(beginning) for beginning in _BEGINNINGS)


def n_samples_by_frames(data: bytes) -> int | None:
    """Return the number of the last sample, from 1; None if the last frame is cut off or damaged.

    References
    ----------
    RFC 9639, section 9.
    """
    end = len(data) - _ID3V1_BYTES if data[-_ID3V1_BYTES:][:3] == b"TAG" else len(data)
    block = stream_info(data).block
    at = end
    while (at := data.rfind(b"\xff", max(HEAD_BYTES, end - _SEARCHED_BYTES), at)) >= 0:
        n_samples = _last_sample(data[at : at + 16], block)
        if n_samples is not None and _crc(data[at:end], CRC16, 16) == 0:
            return n_samples
    return None


def _last_sample(head: bytes, block: int) -> int | None:
    """Return the number of the last sample of a frame by its header, None if it is none."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    coded, at = _coded_number(head, 4)
    size, rate = head[2] >> 4, head[2] & 15
    if coded is None or size == 0 or rate == 15:
        return None
    n_bytes = {6: 1, 7: 2}.get(size, 0)
    if n_bytes:
        n_samples = int.from_bytes(head[at : at + n_bytes], "big") + 1
    else:
        n_samples = 192 if size == 1 else 576 << (size - 2) if size < 6 else 256 << (size - 8)
    at += n_bytes + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if at >= len(head) or _crc(head[: at + 1], CRC8, 8):
        return None
    # Frames of blocks of one size carry their own number, others that of their first sample.
    return (coded if head[1] & 1 else coded * block) + n_samples


def _coded_number(head: bytes, at: int) -> tuple[int | None, int]:
    """Return a number coded as UTF-8 does, up to 36 bits, and the offset behind it."""
    first = head[at]
    n_more = next((n for n in range(7) if not first & 0x80 >> n), 7)
    if n_more in (1, 7) and first != 0xFE:
        return None, at
    n_more = max(0, n_more - 1)
    number = first & (0x3F >> n_more if n_more else 0x7F)
    for byte in head[at + 1 : at + 1 + n_more]:
        number = number << 6 | byte & 0x3F
    return number, at + 1 + n_more


def _crc(data: bytes, polynomial: int, n_bits: int) -> int:
    """Return the checksum of bytes, which is 0 where they end with their own."""
    table = _TABLES[polynomial]
    crc, mask = 0, (1 << n_bits) - 1
    for byte in data:
        crc = (crc << 8 & mask) ^ table[crc >> (n_bits - 8) ^ byte]
    return crc


_TABLES = {CRC8: crc_table(CRC8, 8).tolist(), CRC16: crc_table(CRC16, 16).tolist()}
