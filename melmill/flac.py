"""What all that reads or writes FLAC knows (RFC 9639): its header and its checksums."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAGIC = b"fLaC"
# "fLaC", one block header (4 bytes) and STREAMINFO (34 bytes): section 8.2.
HEAD_BYTES = 42
# Polynomials of the checksums of a frame's header and of a frame: sections 9.1.8 and 9.3.
CRC8, CRC16 = 0x07, 0x8005


class StreamInfo(NamedTuple):
    """Hold what STREAMINFO says: Hz, samples per channel (0: unknown), channels, and more.

    `bits` is the width of a sample, `block` the samples of a block where all have as many, and `md5`
    the checksum of the PCM, empty where there is none.
    """

    sr: int
    n_samples: int
    n_channels: int
    bits: int
    block: int
    md5: bytes


def stream_info(head: bytes) -> StreamInfo:
    """Return what the first `HEAD_BYTES` of a file say: RFC 9639, section 8.2."""
    # 20 bits rate, 3 bits channels - 1, 5 bits bits per sample - 1, 36 bits samples.
    packed = int.from_bytes(head[18:26], "big")
    return StreamInfo(
        sr=packed >> 44,
        n_samples=packed & (1 << 36) - 1,
        n_channels=(packed >> 41 & 7) + 1,
        bits=(packed >> 36 & 31) + 1,
        block=int.from_bytes(head[8:10], "big"),
        md5=head[26:42] if any(head[26:42]) else b"",
    )


def crc_table(polynomial: int, n_bits: int) -> NDArray[np.int64]:
    """Return the checksum of every byte, ``(256,)``, by the polynomial of a CRC of `n_bits`.

    >>> [hex(crc) for crc in crc_table(CRC16, 16)[:3]]
    ['0x0', '0x8005', '0x800f']
    """
    top, mask = 1 << (n_bits - 1), (1 << n_bits) - 1
    table = np.arange(256, dtype=np.int64) << (n_bits - 8)
    for _ in range(8):
        table = np.where(table & top, table << 1 ^ polynomial, table << 1) & mask
    return table


def crc16_tables() -> NDArray[np.int64]:
    """Return the CRC-16 of every byte with 0 to 7 zeros behind it, ``(8, 256)``: eight bytes at once."""
    tables = [crc_table(CRC16, 16)]
    for _ in range(7):
        tables.append((tables[-1] << 8 & 0xFFFF) ^ tables[0][tables[-1] >> 8])
    return np.stack(tables)
