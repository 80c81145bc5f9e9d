"""The checksums of FLAC: RFC 9639, sections 9.1.8 and 9.3. Its encoder and its decoder use them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Polynomials of the checksums of a frame's header and of a frame.
CRC8, CRC16 = 0x07, 0x8005


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
