"""The frames of a FLAC file, decoded by compiled code: RFC 9639, section 9.

It takes what corpora of speech are kept in: one channel of 16 bits. The samples of a frame depend on
those before, so `LANES` frames are restored side by side. Nothing is forgiven: a checksum that
differs, a reserved bit, a byte left over, and the file is not decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from melmill import vector
from melmill.compiling import kernels
from melmill.flac import CRC8, MAGIC, crc16_tables, crc_table, stream_info
from melmill.vector import LANES, Flat, inlined, load, store, zeros

kernel = kernels(Path(__file__), Path(vector.__file__))

_BITS = 16
_MAX_ORDER = 32
# Samples of a frame that are brought to their places together: they fit the first cache.
_TILE = 32
# Bits that `_peek` is sure to hold, and bytes that it may see behind the end.
_SEEN = 57
_PADDING_BYTES = 24
_NOT_WHOLE = -1
# Sums of products with samples of 16 bits that fit into 32 bits, and any sums of 32 coefficients.
_MAX_SUM = (1 << 16) - 1
_ANY_SUM = 1 << 31
_HEADER_CRC = crc_table(CRC8, 8).tolist()

# A whole number of compiled code, of 64 bits.
Number = Any


class _Checksums(NamedTuple):
    """Tables for the checksums of headers ``(256,)``, and of frames, eight bytes at once ``(8 * 256,)``."""

    crc8: NDArray[np.int64]
    crc16: NDArray[np.int64]


class _Frames(NamedTuple):
    """What `LANES` frames are made of, until they are restored.

    `samples` is ``(block, LANES)``. It holds the first `order` samples of a frame, then what the
    predictor misses. `coefficients` is ``(_MAX_ORDER, LANES)``, that of the nearest sample first.
    """

    samples: NDArray[np.int32]
    coefficients: NDArray[np.int32]
    shift: NDArray[np.int32]
    order: NDArray[np.int64]
    wasted: NDArray[np.int64]
    size: NDArray[np.int64]


def decoded(data: bytes) -> NDArray[np.int16] | None:
    """Return the samples ``(n_samples,)`` of a whole file of one channel of 16 bits.

    The checksum of all samples, in the header of the file, is left to the caller.

    Returns
    -------
    ndarray of int16 or None
        None for files of another kind, and for files that are cut, damaged or unusual.
    """
    stream = _plain_stream(data)
    if stream is None:
        return None
    return _samples(data[stream.start :], stream, 0, stream.n_samples)


def decoded_part(data: bytes, start: int, stop: int) -> NDArray[np.int16] | None:
    """Return the samples from `start` to `stop` of a file like those of `decoded`; None as there.

    Only the frames that hold them are decoded and proven. They are found by their headers.
    """
    stream = _plain_stream(data)
    if stream is None or not 0 <= start < stop <= stream.n_samples:
        return None
    # A last frame of fewer samples has another header, and is reached from the one before.
    n_whole = stream.n_samples // stream.block
    first, last = max(0, min(start // stream.block, n_whole - 1)), -(-stop // stream.block)
    begin = stream.start if first == 0 else data.find(_header(data, stream, first), stream.start)
    end = len(data) if last >= n_whole else data.find(_header(data, stream, last), begin)
    if min(begin, end) < 0:
        return None
    n_samples = (stream.n_samples if last >= n_whole else last * stream.block) - first * stream.block
    y = _samples(data[begin:end], stream, first, n_samples)
    return None if y is None else y[start - first * stream.block : stop - first * stream.block]


class _Stream(NamedTuple):
    """Hold what is known before decoding: the first frame's byte, samples of a block and in all.

    `limit` is the largest sum of a predictor's coefficients that is let pass. Sums of products have
    32 bits here. Where they may not fit, the file's checksum of all samples must prove them.
    """

    start: int
    block: int
    n_samples: int
    limit: int


def _plain_stream(data: bytes) -> _Stream | None:
    """Return what is known of a file before decoding it, None for kinds that are not decoded here."""
    said, start = stream_info(data), _audio_start(data)
    is_plain = said.n_channels == 1 and said.bits == _BITS and said.block == int.from_bytes(data[10:12], "big")
    # A frame has up to 65,536 samples, and ten bytes or more.
    if not is_plain or said.block < 16 or not 0 < 10 * said.n_samples <= (len(data) - start) * said.block:
        return None
    return _Stream(start, said.block, said.n_samples, _ANY_SUM if said.md5 else _MAX_SUM)


def _audio_start(data: bytes) -> int:
    """Return where the first frame begins, behind all blocks of metadata."""
    at, is_last = len(MAGIC), False
    while not is_last and at < len(data):
        is_last = data[at] >= 128
        at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
    return at


def _header(data: bytes, stream: _Stream, number: int) -> bytes:
    """Return the header of a whole frame: that of the first one with another number (section 9.1)."""
    first = data[stream.start : stream.start + 16]
    size, rate = first[2] >> 4, first[2] & 15
    n_more = {6: 1, 7: 2}.get(size, 0) + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    # Numbers are coded as characters are, which end at 0x10FFFF: the longest file has fewer frames here.
    coded = chr(min(number, 0x10FFFF)).encode("utf-8", "surrogatepass")
    header = first[:4] + coded + first[5 : 5 + n_more]
    return header + bytes([reduce(lambda crc, byte: _HEADER_CRC[crc ^ byte], header, 0)])


def _samples(frames: bytes, stream: _Stream, first: int, n_samples: int) -> NDArray[np.int16] | None:
    """Return `n_samples` in frames from number `first` on; None unless each is whole and nothing is left over."""
    padded = np.zeros(len(frames) + _PADDING_BYTES, dtype=np.uint8)
    padded[: len(frames)] = np.frombuffer(frames, dtype=np.uint8)
    lanes = _Frames(
        samples=np.empty(stream.block * LANES, dtype=np.int32),
        coefficients=np.zeros(_MAX_ORDER * LANES, dtype=np.int32),
        shift=np.zeros(LANES, dtype=np.int32),
        order=np.zeros(LANES, dtype=np.int64),
        wasted=np.zeros(LANES, dtype=np.int64),
        size=np.zeros(LANES, dtype=np.int64),
    )
    y = np.empty(n_samples, dtype=np.int16)
    end = _decode(padded, len(frames), first, stream.block, stream.limit, _checksums(), lanes, y)
    return y if end == len(frames) else None


@cache
def _checksums() -> _Checksums:
    return _Checksums(crc_table(CRC8, 8), crc16_tables().ravel())


def _operation(typing: Callable[..., Any]) -> Any:  # noqa: ANN401
    return intrinsic(typing)


@_operation
def _peek(_: Any, data: Any, at: Any) -> Any:  # noqa: ANN401
    """Return the bits from bit `at` on, at the top of a word of 64; its last 7 may be missing."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        word = ir.IntType(64)
        bytes_ = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        place = builder.gep(bytes_, [builder.lshr(args[1], word(3))], inbounds=True)
        little = builder.load(builder.bitcast(place, word.as_pointer()), align=1)
        return builder.shl(builder.bswap(little), builder.and_(args[1], word(7)))

    return types.uint64(data, types.int64), generate


@_operation
def _n_zeros(_: Any, word: Any) -> Any:  # noqa: ANN401
    """Return how many zeros a word begins with, 64 for 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.ctlz(args[0], ir.IntType(1)(0))

    return types.int64(types.uint64), generate


@inlined
def _unsigned(data: Flat, at: int, n: int) -> Number:
    """Return the number in `n` bits, 1 to 57, from bit `at` on."""
    return np.int64(_peek(data, at) >> np.uint64(64 - n))


@inlined
def _signed(data: Flat, at: int, n: int) -> Number:
    """Return the signed number in `n` bits, 1 to 57, from bit `at` on."""
    return np.int64(_peek(data, at)) >> np.int64(64 - n)


@kernel
def _decode(
    data: Flat, end: int, first: int, block: int, limit: int, checksums: _Checksums, frames: _Frames, y: Flat
) -> Number:
    """Write all samples of frames from number `first` on; return the byte behind, or that one is not whole."""
    at, done = 0, 0
    while done < y.size:
        lane, begun = 0, done
        while lane < LANES and done < y.size:
            size = min(block, y.size - done)
            bit = _read_header(data, at, first + done // block, size, checksums)
            if bit >= 0:
                bit = _read_subframe(data, bit, end * 8, lane, size, limit, frames)
            # Zeros fill the last byte, and two bytes follow with the checksum.
            stop = (bit + 7) // 8 + 2
            if bit < 0 or stop > end or _crc16(data, at, stop, checksums.crc16) != 0:
                return _NOT_WHOLE
            at, done, lane = stop, done + size, lane + 1
        _restore(frames, lane)
        _write(frames, lane, block, y[begun:done])
    return at


@kernel
def _read_header(data: Flat, at: int, number: int, size: int, checksums: _Checksums) -> Number:
    """Return the bit behind the header of a frame that is as expected: RFC 9639, section 9.1."""
    if data[at] != 0xFF or data[at + 1] != 0xF8:
        return _NOT_WHOLE
    size_code, rate_code = data[at + 2] >> 4, data[at + 2] & 15
    # One channel, and as many bits as the file's header says, or 16.
    if rate_code == 15 or (data[at + 3] != 0 and data[at + 3] != 8):
        return _NOT_WHOLE
    coded, behind = _coded_number(data, at + 4)
    said, behind = _block_size(data, behind, size_code)
    if rate_code >= 12:
        behind += 1 if rate_code == 12 else 2
    crc = 0
    for i in range(at, behind + 1):
        crc = checksums.crc8[crc ^ data[i]]
    return (behind + 1) * 8 if crc == 0 and coded == number and said == size else _NOT_WHOLE


@kernel
def _coded_number(data: Flat, at: int) -> tuple[Number, Number]:
    """Return a number coded as UTF-8 does it, and the byte behind."""
    coded, n_more = np.int64(data[at]), 0
    if coded >= 0xC0:
        while n_more < 6 and coded & (0x40 >> n_more):
            n_more += 1
        coded &= 0x3F >> n_more
    for i in range(at + 1, at + 1 + n_more):
        coded = coded << 6 | data[i] & 0x3F
    return coded, at + 1 + n_more


@kernel
def _block_size(data: Flat, at: int, code: int) -> tuple[Number, Number]:
    """Return how many samples a frame has, and the byte behind: RFC 9639, table 14."""
    if code == 6:
        return np.int64(data[at]) + 1, at + 1
    if code == 7:
        return (np.int64(data[at]) << 8 | np.int64(data[at + 1])) + 1, at + 2
    if code >= 8:
        return np.int64(1) << np.int64(code), at
    return np.int64(192) if code == 1 else np.int64(144) << np.int64(code), at


@kernel
def _crc16(data: Flat, start: int, stop: int, table: Flat) -> Number:
    """Return the checksum of bytes, which is 0 where they end with their own."""
    crc, at = 0, start
    while at + 8 <= stop:
        crc = (
            table[7 * 256 + (data[at] ^ crc >> 8)] ^ table[6 * 256 + (data[at + 1] ^ crc & 255)]
            ^ table[5 * 256 + data[at + 2]] ^ table[4 * 256 + data[at + 3]]
            ^ table[3 * 256 + data[at + 4]] ^ table[2 * 256 + data[at + 5]]
            ^ table[256 + data[at + 6]] ^ table[data[at + 7]]
        )  # fmt: skip
        at += 8
    for i in range(at, stop):
        crc = (crc << 8 & 0xFFFF) ^ table[crc >> 8 ^ data[i]]
    return crc


@kernel
def _read_subframe(data: Flat, at: int, end: int, lane: int, size: int, limit: int, frames: _Frames) -> Number:
    """Take a frame's predictor and what it misses; return the bit behind: RFC 9639, section 9.2."""
    kind, wasted = _unsigned(data, at, 7), 0
    at += 8
    if data[(at - 1) // 8] & 1:
        wasted = 1 + _n_zeros(_peek(data, at))
        at += wasted
    frames.wasted[lane], frames.size[lane], frames.order[lane], frames.shift[lane] = wasted, size, 0, 0
    for k in range(_MAX_ORDER):
        frames.coefficients[k * LANES + lane] = 0
    bits = _BITS - wasted
    if bits < 1 or kind > 63:
        return _NOT_WHOLE
    if kind == 0:
        for n in range(size):
            frames.samples[n * LANES + lane] = _signed(data, at, bits)
        return at + bits
    if kind == 1:
        return _read_plain(data, at, end, lane, size, bits, frames)
    order = kind - 31 if kind >= 32 else kind - 8
    if not 0 <= order <= (4 if kind < 32 else size):
        return _NOT_WHOLE
    frames.order[lane] = order
    at = _read_plain(data, at, end, lane, order, bits, frames)
    if at >= 0:
        at = _read_predictor(data, at, end, lane, limit, frames) if kind >= 32 else _take_differences(at, lane, frames)
    return _read_residual(data, at, end, lane, size, frames) if at >= 0 else _NOT_WHOLE


@kernel
def _read_plain(data: Flat, at: int, end: int, lane: int, n: int, bits: int, frames: _Frames) -> Number:
    """Take `n` samples as they are; return the bit behind."""
    if at + n * bits > end:
        return _NOT_WHOLE
    for i in range(n):
        frames.samples[i * LANES + lane] = _signed(data, at, bits)
        at += bits
    return at


@kernel
def _read_predictor(data: Flat, at: int, end: int, lane: int, limit: int, frames: _Frames) -> Number:
    """Take the coefficients of a linear predictor; return the bit behind: RFC 9639, section 9.2.6."""
    width, shift = _unsigned(data, at, 4) + 1, _signed(data, at + 4, 5)
    at += 9
    if width == 16 or shift < 0 or at + frames.order[lane] * width > end:
        return _NOT_WHOLE
    frames.shift[lane] = shift
    total = 0
    for k in range(frames.order[lane]):
        coefficient = _signed(data, at, width)
        frames.coefficients[k * LANES + lane] = coefficient
        total, at = total + abs(coefficient), at + width
    return at if total <= limit else _NOT_WHOLE


@kernel
def _take_differences(at: int, lane: int, frames: _Frames) -> Number:
    """Predict by differences of the frame's order, with binomial coefficients; return the same bit."""
    coefficient, order = -1, frames.order[lane]
    for k in range(order):
        coefficient = -coefficient * (order - k) // (k + 1)
        frames.coefficients[k * LANES + lane] = coefficient
    return at


@kernel
def _read_residual(data: Flat, at: int, end: int, lane: int, size: int, frames: _Frames) -> Number:
    """Take what a predictor misses; return the bit behind: RFC 9639, section 9.2.7."""
    method, depth = _unsigned(data, at, 2), _unsigned(data, at + 2, 4)
    at += 6
    n, each = frames.order[lane], size >> depth
    if method > 1 or each << depth != size or each < n:
        return _NOT_WHOLE
    width = 4 + method
    for partition in range(1 << depth):
        stop = (partition + 1) * each
        k = _unsigned(data, at, width)
        at += width
        if k == (1 << width) - 1:
            bits = _unsigned(data, at, 5)
            at += 5
            if at + (stop - n) * bits > end:
                return _NOT_WHOLE
            while n < stop:
                frames.samples[n * LANES + lane] = _signed(data, at, bits) if bits else 0
                at += bits
                n += 1
        else:
            at = _read_rice(data, at, end, k, frames.samples, n * LANES + lane, stop - n)
            if at < 0:
                return _NOT_WHOLE
            n = stop
    return at


@kernel
def _read_rice(data: Flat, at: int, end: int, k: int, samples: Flat, place: int, n: int) -> Number:
    """Take `n` numbers in Rice's code; return the bit behind."""
    i = 0
    while i < n:
        if at >= end:
            return _NOT_WHOLE
        # Three numbers at a look: where the next look is depends on this one.
        first = _peek(data, at)
        q0 = _n_zeros(first)
        n0 = q0 + 1 + k
        second = first << np.uint64(n0 & 63)
        q1 = _n_zeros(second)
        n1 = q1 + 1 + k
        third = second << np.uint64(n1 & 63)
        q2 = _n_zeros(third)
        n_bits = n0 + n1 + q2 + 1 + k
        if n_bits <= _SEEN and i + 2 < n:
            samples[place] = _number(first, q0, k)
            samples[place + LANES] = _number(second, q1, k)
            samples[place + 2 * LANES] = _number(third, q2, k)
            at, place, i = at + n_bits, place + 3 * LANES, i + 3
            continue
        # A number that is far from the others begins with many zeros.
        q = 0
        while _peek(data, at) >> np.uint64(32) == 0:
            q, at = q + 32, at + 32
            if at >= end:
                return _NOT_WHOLE
        n_zeros = _n_zeros(_peek(data, at))
        q, at = q + n_zeros, at + n_zeros + 1
        samples[place] = _folded(q << k | (_unsigned(data, at, k) if k else 0))
        at, place, i = at + k, place + LANES, i + 1
    return at


@inlined
def _number(word: int, q: int, k: int) -> Number:
    """Return the number that a word begins with: `q` zeros, a one, and `k` bits."""
    return _folded(((q - 1) << k) + np.int64(word << np.uint64(q & 63) >> np.uint64(63 - k)))


@inlined
def _folded(number: int) -> Number:
    """Return 0, -1, 1, -2, 2, ... for 0, 1, 2, 3, 4, ..."""
    return number >> 1 ^ -(number & 1)


@kernel
def _restore(frames: _Frames, n_lanes: int) -> None:
    """Add to what the predictors miss what they predict."""
    top, longest = frames.order[:n_lanes].max(), frames.size[:n_lanes].max()
    samples, coefficients = frames.samples, frames.coefficients
    for lane in range(n_lanes):
        for n in range(frames.order[lane], min(top, frames.size[lane])):
            total = 0
            for k in range(frames.order[lane]):
                total += np.int64(coefficients[k * LANES + lane]) * samples[(n - 1 - k) * LANES + lane]
            samples[n * LANES + lane] += total >> frames.shift[lane]
    shift = load(frames.shift, 0)
    for n in range(top, longest):
        total = zeros(samples)
        # The nearest sample comes last, as it is the last to be known.
        for k in range(top - 1, -1, -1):
            total = total + load(coefficients, k * LANES) * load(samples, (n - 1 - k) * LANES)
        store(samples, n * LANES, load(samples, n * LANES) + (total >> shift))


@kernel
def _write(frames: _Frames, n_lanes: int, block: int, y: Flat) -> None:
    """Write the samples of frames one after the other."""
    for start in range(0, block, _TILE):
        for lane in range(n_lanes):
            at = lane * block
            for n in range(start, min(start + _TILE, frames.size[lane])):
                y[at + n] = frames.samples[n * LANES + lane] << frames.wasted[lane]
