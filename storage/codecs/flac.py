"""An encoder of FLAC streams (RFC 9639) that gives the same bytes on every machine.

libFLAC analyses with sums of floats, whose order depends on its version and on the processor. Here
every sum is one of whole numbers. What remains, the recursion of Levinson and Durbin, is a fixed
sequence of float64 operations. Any decoder reads the streams.

A block of samples is stored as the least of

- a constant;
- a linear prediction of order 0 to 8 from the samples before, and Rice codes of what it misses, in
  up to sixteen parts with a parameter each;
- the samples themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.compiling import kernels
from melmill.flac import CRC8, crc16_tables, crc_table

kernel = kernels(Path(__file__).parent)

BLOCK = 4096
SAMPLE_BITS = 16
N_TAPS = 8
# Products of eight such coefficients with 16-bit samples fit into 32 bits.
COEFFICIENT_BITS = 13
MAX_PARTS = 16
MAX_RICE = 14
# What an order must gain, in bits: its coefficient, and a first sample that is not coded.
_ORDER_BITS = 21
# Windowed samples have this many bits and a sign, so that sums of 128 products fit into 32 bits.
_WINDOWED_BITS = 12
_SUMMED = 128
_WINDOW_BITS = 15

_STREAM_INFO = 34
_HEAD = 4 + 4 + _STREAM_INFO
# More than the headers, first samples, coefficients and checksums of a block.
_BLOCK_HEAD = 96

# Arrays and numbers of compiled code.
Words = Any
Int = Any
_I: Any = np.int32
_U: Any = np.uint64


def encode_flac(samples: NDArray[np.int16], sample_rate: int) -> bytes:
    """Return the FLAC stream of one channel of samples.

    Parameters
    ----------
    samples : ndarray of int16, shape (n_samples,)
        At least one.
    sample_rate : int
        What the stream says, Hz, 1 to 1,048,575.
    """
    n_samples = len(samples)
    stream = np.empty(_HEAD + samples.nbytes + _BLOCK_HEAD * -(-n_samples // BLOCK), dtype=np.uint8)
    stream[:_HEAD] = np.frombuffer(_head(n_samples, sample_rate), dtype=np.uint8)
    end = _encode_blocks(np.ascontiguousarray(samples), _WINDOW, _CRC8, _CRC16, stream, _HEAD)
    return stream[:end].tobytes()


def _head(n_samples: int, sample_rate: int) -> bytes:
    """Return the magic and STREAMINFO (section 8.2), which leaves out frame sizes and MD5."""
    packed = (sample_rate << 44) | ((SAMPLE_BITS - 1) << 36) | n_samples
    info = BLOCK.to_bytes(2, "big") * 2 + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    return b"fLaC" + bytes([0x80, 0, 0, _STREAM_INFO]) + info


def _window() -> NDArray[np.int16]:
    """Return ones with ramps ``3 t**2 - 2 t**3`` over a quarter at each end, in 15 bits."""
    quarter = BLOCK // 4
    t = np.arange(1, BLOCK + 1, dtype=np.int64)
    t = np.minimum(np.minimum(t, t[::-1]), quarter)
    ramps: NDArray[np.int64] = t * t * (3 * quarter - 2 * t) * (2**_WINDOW_BITS - 1) // quarter**3
    return ramps.astype(np.int16)


_WINDOW = _window()
_CRC8 = crc_table(CRC8, 8).astype(np.uint16)
_CRC16 = crc16_tables().astype(np.uint16)
# An error of so much more energy costs as many bits as one more order.
_ORDER_COST = 2.0 ** (2 * _ORDER_BITS / BLOCK)


@kernel
def _encode_blocks(samples: Words, window: Words, crc8: Words, crc16: Words, out: Words, at: Int) -> Int:
    """Write all frames into `out` from byte `at` on; return where they end."""
    words = np.zeros((SAMPLE_BITS * BLOCK) // 64 + _BLOCK_HEAD // 8, np.uint64)
    x, u = np.zeros(N_TAPS + BLOCK, np.int32), np.empty(BLOCK, np.uint32)
    taps, rice = np.zeros(N_TAPS, np.int32), np.zeros(MAX_PARTS, np.int64)
    for number in range((len(samples) + BLOCK - 1) // BLOCK):
        block = samples[number * BLOCK : (number + 1) * BLOCK]
        n = len(block)
        start = at
        at = _frame_header(out, at, number, n, crc8)
        lowest, highest = block[0], block[0]
        for i in range(n):
            x[N_TAPS + i] = block[i]
            lowest, highest = min(lowest, block[i]), max(highest, block[i])
        words[0] = 0
        if lowest == highest:
            end = _put(words, _put(words, 0, 0, 8), _I(lowest) & 0xFFFF, SAMPLE_BITS)
        else:
            order, shift = 0, 0
            if n == BLOCK:
                order, shift = _predictor(x[N_TAPS:], max(abs(_I(lowest)), abs(_I(highest))), window, taps)
            else:
                for j in range(N_TAPS):
                    taps[j] = 0
            _residual(x, taps, shift, u[:n])
            n_parts = 1
            while n_parts < MAX_PARTS and n % (2 * n_parts) == 0 and n >= 4 * N_TAPS * n_parts:
                n_parts *= 2
            bits = _choose_rice(u[:n], order, n_parts, rice)
            if bits + order * (SAMPLE_BITS + COEFFICIENT_BITS) + 15 < SAMPLE_BITS * n:
                end = _subframe(words, x, order, taps, shift, n_parts)
                end = _rice_codes(words, end, u[:n], order, rice[:n_parts])
            else:
                end = _verbatim(words, x[N_TAPS : N_TAPS + n])
        at = _flush(words, end, out, at)
        check = _crc(out[start:at], crc16)
        out[at], out[at + 1] = check >> _U(8), check & _U(255)
        at += 2
    return at


@kernel
def _frame_header(out: Words, at: Int, number: Int, n: Int, crc8: Words) -> Int:
    """Write a frame's header (section 9.1); return where it ends."""
    start = at
    out[at], out[at + 1] = 0xFF, 0xF8  # sync code; blocks of one size
    # Size of the block: 4096, or in the two bytes below. The rate is in STREAMINFO.
    out[at + 2] = 0xC0 if n == 4096 else 0x70
    out[at + 3] = 4 << 1  # one channel of 16 bits
    at += 4
    if number < 0x80:
        out[at] = number
        at += 1
    else:  # as UTF-8 codes a number
        n_more = 1
        while number >= 1 << (5 * n_more + 6):
            n_more += 1
        out[at] = ((0xFF00 >> (n_more + 1)) & 0xFF) | (number >> (6 * n_more))
        for i in range(n_more):
            out[at + 1 + i] = 0x80 | ((number >> (6 * (n_more - 1 - i))) & 0x3F)
        at += 1 + n_more
    if n != 4096:
        out[at], out[at + 1] = (n - 1) >> 8, (n - 1) & 0xFF
        at += 2
    check = np.int64(0)
    for i in range(start, at):
        check = np.int64(crc8[check ^ out[i]])
    out[at] = check
    return at + 1


@kernel
def _predictor(x: Words, largest: Int, window: Words, taps: Words) -> tuple[Int, Int]:
    """Choose a block's linear predictor: set `taps`, return its order and shift.

    Levinson and Durbin's recursion gives the coefficients of all orders. One order more must lessen
    the error by more than its own bits.
    """
    sums = _autocorrelation(x, largest, window)
    now, before, chosen = np.zeros(N_TAPS), np.zeros(N_TAPS), np.zeros(N_TAPS)
    error, cost = np.float64(sums[0]), 1.0
    least, order = error, 0
    for m in range(N_TAPS):
        if not error > 0.0:
            break
        rest = np.float64(sums[m + 1])
        for j in range(m):
            rest -= before[j] * np.float64(sums[m - j])
        reflection = rest / error
        for j in range(m):
            now[j] = before[j] - reflection * before[m - 1 - j]
        now[m] = reflection
        for j in range(m + 1):
            before[j] = now[j]
        error *= 1.0 - reflection * reflection
        cost *= _ORDER_COST
        if error * cost < least:
            least, order = error * cost, m + 1
            for j in range(m + 1):
                chosen[j] = now[j]
    return order, _quantise(chosen, taps)


@kernel
def _autocorrelation(x: Words, largest: Int, window: Words) -> Words:
    """Return the sums of products of windowed samples, of lags 0 to 8."""
    shift = _WINDOW_BITS
    while largest > 1 << _WINDOWED_BITS:
        largest >>= 1
        shift += 1
    windowed = np.empty(len(x), np.int16)
    by = _I(shift)
    for i in range(len(x)):
        windowed[i] = np.int16(_I(x[i] * _I(window[i])) >> by)
    sums = np.zeros(N_TAPS + 1, np.int64)
    for lag in range(N_TAPS + 1):
        for begin in range(0, len(x) - lag, _SUMMED):
            late = windowed[begin + lag : begin + lag + _SUMMED]
            early = windowed[begin : begin + len(late)]
            part = _I(0)
            for i in range(len(late)):
                part = _I(part + _I(_I(early[i]) * _I(late[i])))
            sums[lag] += part
    return sums


@kernel
def _quantise(coefficients: Words, taps: Words) -> Int:
    """Set `taps` to whole coefficients; return the bits that they are shifted by.

    What rounding leaves is carried to the next coefficient.
    """
    limit = (1 << (COEFFICIENT_BITS - 1)) - 1
    shift, scale, largest = 15, 32768.0, 0.0
    for j in range(N_TAPS):
        largest = max(largest, abs(coefficients[j]))
    while shift > 0 and largest * scale > limit:
        shift, scale = shift - 1, scale * 0.5
    carried = 0.0
    for j in range(N_TAPS):
        wanted = coefficients[j] * scale + carried
        tap = min(max(np.floor(wanted + 0.5), -float(limit)), float(limit))
        carried = wanted - tap if coefficients[j] != 0.0 else 0.0
        taps[j] = _I(tap) if coefficients[j] != 0.0 else 0
    return shift


@kernel
def _residual(x: Words, taps: Words, shift: Int, u: Words) -> None:
    """Set `u` to what the predictor misses, folded to numbers from 0 on: 0, -1, 1, -2 ... are 0, 1, 2, 3.

    `x` begins with `N_TAPS` samples that no coefficient of the first ones counted reaches.
    """
    n = len(u)
    a1, a2, a3, a4, a5, a6, a7, a8 = taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[6], taps[7]
    x1, x2, x3, x4 = x[7 : 7 + n], x[6 : 6 + n], x[5 : 5 + n], x[4 : 4 + n]
    x5, x6, x7, x8 = x[3 : 3 + n], x[2 : 2 + n], x[1 : 1 + n], x[:n]
    x0, by = x[8 : 8 + n], _I(shift)
    for i in range(n):
        near = a1 * x1[i] + a2 * x2[i] + a3 * x3[i] + a4 * x4[i]
        far = a5 * x5[i] + a6 * x6[i] + a7 * x7[i] + a8 * x8[i]
        missed = _I(x0[i] - _I(_I(near + far) >> by))
        u[i] = np.uint32(_I(missed << _I(1)) ^ _I(missed >> _I(31)))


@kernel
def _choose_rice(u: Words, order: Int, n_parts: Int, rice: Words) -> Int:
    """Set the Rice parameter of each part; return a bound of the bits that the codes take."""
    size = len(u) // n_parts
    total: Int = 0
    for part in range(n_parts):
        piece = u[max(order, part * size) : (part + 1) * size]
        energy = _U(0)
        for i in range(len(piece)):
            energy += _U(piece[i])
        count, whole = len(piece), np.int64(energy)
        k = 0
        while k < MAX_RICE and count << (k + 1) <= whole:
            k += 1
        bits = count * (k + 1) + (whole >> k)
        if k < MAX_RICE and count * (k + 2) + (whole >> (k + 1)) < bits:
            k += 1
            bits = count * (k + 1) + (whole >> k)
        rice[part] = k
        total += 4 + bits
    return total


@kernel
def _subframe(words: Words, x: Words, order: Int, taps: Words, shift: Int, n_parts: Int) -> Int:
    """Write a predicted subframe up to its Rice codes (section 9.2); return the bit that they begin at."""
    if order:
        at = _put(words, 0, (0x20 | (order - 1)) << 1, 8)
        for i in range(order):
            at = _put(words, at, x[N_TAPS + i] & 0xFFFF, SAMPLE_BITS)
        at = _put(words, at, COEFFICIENT_BITS - 1, 4)
        at = _put(words, at, shift, 5)
        for j in range(order):
            at = _put(words, at, taps[j] & ((1 << COEFFICIENT_BITS) - 1), COEFFICIENT_BITS)
    else:
        at = _put(words, 0, 0x08 << 1, 8)
    partition_order = 0
    while 1 << partition_order < n_parts:
        partition_order += 1
    return _put(words, at, partition_order, 6)


@kernel
def _verbatim(words: Words, x: Words) -> Int:
    """Write samples as they are; return the bit at which they end."""
    at = _put(words, 0, 0x01 << 1, 8)
    for i in range(0, len(x) - 1, 2):
        at = _put(words, at, ((x[i] & 0xFFFF) << SAMPLE_BITS) | (x[i + 1] & 0xFFFF), 2 * SAMPLE_BITS)
    if len(x) % 2:
        at = _put(words, at, x[len(x) - 1] & 0xFFFF, SAMPLE_BITS)
    return at


@kernel
def _rice_codes(words: Words, at: Int, u: Words, order: Int, rice: Words) -> Int:
    """Write parts of Rice codes from bit `at` on; return the bit at which they end.

    A code of parameter k is ``u >> k`` zeros, a one and k bits.
    """
    size = len(u) // len(rice)
    values, lengths = np.empty(size, np.uint32), np.empty(size, np.uint32)
    for part in range(len(rice)):
        piece = u[max(order, part * size) : (part + 1) * size]
        n, k = len(piece), np.uint32(rice[part])
        at = _put(words, at, rice[part], 4)
        one, longest = np.uint32(np.uint32(1) << k), np.uint32(0)
        for i in range(n):
            values[i] = one | (piece[i] & np.uint32(one - np.uint32(1)))
            lengths[i] = (piece[i] >> k) + k + np.uint32(1)
            longest = max(longest, lengths[i])
        if longest < 32:
            for i in range(n % 2):
                at = _put(words, at, values[i], lengths[i])
            at = _pairs(words, at, values[n % 2 : n], lengths[n % 2 : n])
        else:
            for i in range(n):
                n_zeros = np.int64(piece[i] >> k)
                while n_zeros > 0:
                    at = _put(words, at, 0, min(32, n_zeros))
                    n_zeros -= 32
                at = _put(words, at, values[i], rice[part] + 1)
    return at


@kernel
def _pairs(words: Words, at: Int, values: Words, lengths: Words) -> Int:
    """Write values of less than 32 bits, two at a time and without branches; return where they end."""
    word, filled = at >> 6, _U(at & 63)
    last = words[word]
    for i in range(0, len(values), 2):
        second = _U(lengths[i + 1])
        n_bits = _U(lengths[i]) + second
        value = ((_U(values[i]) << second) | _U(values[i + 1])) << (_U(64) - n_bits)
        last |= value >> filled
        words[word] = last
        spilled = (value << _U(1)) << (_U(63) - filled)
        filled += n_bits
        full = filled >> _U(6)
        last = spilled if full else last
        word += np.int64(full)
        filled &= _U(63)
    words[word] = last
    return (word << 6) + np.int64(filled)


@kernel
def _put(words: Words, at: Int, value: Int, n_bits: Int) -> Int:
    """Write 1 to 32 bits at bit `at`, behind which nothing is written yet; return where they end."""
    word, filled = at >> 6, _U(at & 63)
    left = _U(value) << _U(64 - n_bits)
    words[word] |= left >> filled
    words[word + 1] = (left << _U(1)) << (_U(63) - filled)
    return at + np.int64(n_bits)


@kernel
def _flush(words: Words, n_bits: Int, out: Words, at: Int) -> Int:
    """Write words as bytes, the highest first; return where they end."""
    for i in range((n_bits + 63) // 64):
        word = words[i]
        for j in range(8):
            out[at + 8 * i + j] = np.uint8(word >> _U(56 - 8 * j))
    return at + (n_bits + 7) // 8


@kernel
def _crc(data: Words, tables: Words) -> Int:
    """Return the CRC-16 of bytes (section 9.3), eight at a time."""
    t0, t1, t2, t3 = tables[0], tables[1], tables[2], tables[3]
    t4, t5, t6, t7 = tables[4], tables[5], tables[6], tables[7]
    byte, n_eights = _U(0xFF), len(data) // 8
    check = _U(0)
    for i in range(n_eights):
        b = data[8 * i : 8 * i + 8]
        # What does not wait for the last check comes first.
        rest = t5[b[2]] ^ t4[b[3]] ^ t3[b[4]] ^ t2[b[5]] ^ t1[b[6]] ^ t0[b[7]]
        check = _U(rest) ^ (_U(t7[_U(b[0]) ^ (check >> _U(8))]) ^ _U(t6[_U(b[1]) ^ (check & byte)]))
    for i in range(8 * n_eights, len(data)):
        check = ((check << _U(8)) & _U(0xFFFF)) ^ _U(t0[(check >> _U(8)) ^ _U(data[i])])
    return check
