"""The passes of a mixed-radix FFT over complex rows, in place.

A pass over sub-transforms of `length` takes elements that lie ``length / radix`` apart through one
butterfly. Forwards the twiddle factors follow it (decimation in frequency). `back` takes the
conjugate way, twiddles first (decimation in time). It reads and writes every number with its parts
swapped: ``swap(z conj(w)) = swap(z) w``.
"""

from __future__ import annotations

import math

import numpy as np

from melmill.stages.numeric.lanes.vector import LANES, Flat, Lanes, inlined, kernel, load, store, zeros

# A complex number as (re, im).
Complex = tuple[Lanes, Lanes]

_ROW = 2 * LANES
_SIN60 = math.sqrt(3) / 2
_COS72, _COS144 = math.cos(2 * math.pi / 5), math.cos(4 * math.pi / 5)
_SIN72, _SIN144 = math.sin(2 * math.pi / 5), math.sin(4 * math.pi / 5)


@inlined
def _get(work: Flat, row: int, back: bool) -> Complex:
    if back:
        return load(work, row + LANES), load(work, row)
    return load(work, row), load(work, row + LANES)


@inlined
def _put(work: Flat, row: int, a: Complex, back: bool) -> None:
    if back:
        store(work, row, a[1])
        store(work, row + LANES, a[0])
    else:
        store(work, row, a[0])
        store(work, row + LANES, a[1])


@inlined
def _get_turned(work: Flat, row: int, twiddles: Flat, at: int, back: bool) -> Complex:
    a: Complex = _get(work, row, back)
    if back:
        a = _turned(a, twiddles, at)
    return a


@inlined
def _put_turned(work: Flat, row: int, a: Complex, twiddles: Flat, at: int, back: bool) -> None:
    _put(work, row, a if back else _turned(a, twiddles, at), back)


@inlined
def _turned(a: Complex, twiddles: Flat, at: int) -> Complex:
    c, s = twiddles[at], twiddles[at + 1]
    return a[0] * c - a[1] * s, a[0] * s + a[1] * c


@inlined
def _sum(a: Complex, b: Complex) -> Complex:
    return a[0] + b[0], a[1] + b[1]


@inlined
def _difference(a: Complex, b: Complex) -> Complex:
    return a[0] - b[0], a[1] - b[1]


@inlined
def _less_i(a: Complex, b: Complex) -> Complex:
    """Return a - i b."""
    return a[0] + b[1], a[1] - b[0]


@inlined
def _plus_i(a: Complex, b: Complex) -> Complex:
    """Return a + i b."""
    return a[0] - b[1], a[1] + b[0]


@inlined
def _times(a: Complex, factor: float) -> Complex:
    return a[0] * factor, a[1] * factor


@inlined
def _four(a: Complex, b: Complex, c: Complex, d: Complex) -> tuple[Complex, Complex, Complex, Complex]:
    even, odd = _sum(a, c), _sum(b, d)
    even_, odd_ = _difference(a, c), _difference(b, d)
    return _sum(even, odd), _less_i(even_, odd_), _difference(even, odd), _plus_i(even_, odd_)


@kernel
def pass2(work: Flat, size: int, length: int, twiddles: Flat, at: int, back: bool) -> None:
    """Take every pair through its butterfly."""
    part = length // 2
    for base in range(0, size, length):
        for k in range(part):
            row, far, t = (base + k) * _ROW, part * _ROW, at + 2 * k
            a, b = _get(work, row, back), _get_turned(work, row + far, twiddles, t, back)
            _put(work, row, _sum(a, b), back)
            _put_turned(work, row + far, _difference(a, b), twiddles, t, back)


@kernel
def pass3(work: Flat, size: int, length: int, twiddles: Flat, at: int, back: bool) -> None:
    """Take every three elements through their butterfly."""
    part = length // 3
    for base in range(0, size, length):
        for k in range(part):
            row, far, t = (base + k) * _ROW, part * _ROW, at + 4 * k
            a = _get(work, row, back)
            b = _get_turned(work, row + far, twiddles, t, back)
            c = _get_turned(work, row + 2 * far, twiddles, t + 2, back)
            total, slope = _sum(b, c), _times(_difference(b, c), _SIN60)
            middle = _difference(a, _times(total, 0.5))
            _put(work, row, _sum(a, total), back)
            _put_turned(work, row + far, _less_i(middle, slope), twiddles, t, back)
            _put_turned(work, row + 2 * far, _plus_i(middle, slope), twiddles, t + 2, back)


@kernel
def pass4(work: Flat, size: int, length: int, twiddles: Flat, at: int, back: bool) -> None:
    """Take every four elements through their butterfly."""
    part = length // 4
    for base in range(0, size, length):
        for k in range(part):
            row, far, t = (base + k) * _ROW, part * _ROW, at + 6 * k
            a, b, c, d = _four(
                _get(work, row, back),
                _get_turned(work, row + far, twiddles, t, back),
                _get_turned(work, row + 2 * far, twiddles, t + 2, back),
                _get_turned(work, row + 3 * far, twiddles, t + 4, back),
            )
            _put(work, row, a, back)
            _put_turned(work, row + far, b, twiddles, t, back)
            _put_turned(work, row + 2 * far, c, twiddles, t + 2, back)
            _put_turned(work, row + 3 * far, d, twiddles, t + 4, back)


@kernel
def pass5(work: Flat, size: int, length: int, twiddles: Flat, at: int, back: bool) -> None:
    """Take every five elements through their butterfly."""
    part = length // 5
    for base in range(0, size, length):
        for k in range(part):
            row, far, t = (base + k) * _ROW, part * _ROW, at + 8 * k
            a = _get(work, row, back)
            b = _get_turned(work, row + far, twiddles, t, back)
            c = _get_turned(work, row + 2 * far, twiddles, t + 2, back)
            d = _get_turned(work, row + 3 * far, twiddles, t + 4, back)
            e = _get_turned(work, row + 4 * far, twiddles, t + 6, back)
            near, wide = _sum(b, e), _sum(c, d)
            near_, wide_ = _difference(b, e), _difference(c, d)
            first = _sum(a, _sum(_times(near, _COS72), _times(wide, _COS144)))
            second = _sum(a, _sum(_times(near, _COS144), _times(wide, _COS72)))
            first_ = _sum(_times(near_, _SIN72), _times(wide_, _SIN144))
            second_ = _difference(_times(near_, _SIN144), _times(wide_, _SIN72))
            _put(work, row, _sum(a, _sum(near, wide)), back)
            _put_turned(work, row + far, _less_i(first, first_), twiddles, t, back)
            _put_turned(work, row + 2 * far, _less_i(second, second_), twiddles, t + 2, back)
            _put_turned(work, row + 3 * far, _plus_i(second, second_), twiddles, t + 4, back)
            _put_turned(work, row + 4 * far, _plus_i(first, first_), twiddles, t + 6, back)


@kernel
def pass8(work: Flat, size: int, length: int, twiddles: Flat, at: int, back: bool) -> None:
    """Take every eight elements through their butterfly."""
    part = length // 8
    eighth = work.dtype.type(math.sqrt(0.5))
    for base in range(0, size, length):
        for k in range(part):
            row, far, t = (base + k) * _ROW, part * _ROW, at + 14 * k
            a = _get(work, row, back)
            b = _get_turned(work, row + far, twiddles, t, back)
            c = _get_turned(work, row + 2 * far, twiddles, t + 2, back)
            d = _get_turned(work, row + 3 * far, twiddles, t + 4, back)
            e = _get_turned(work, row + 4 * far, twiddles, t + 6, back)
            f = _get_turned(work, row + 5 * far, twiddles, t + 8, back)
            g = _get_turned(work, row + 6 * far, twiddles, t + 10, back)
            h = _get_turned(work, row + 7 * far, twiddles, t + 12, back)
            y0, y2, y4, y6 = _four(_sum(a, e), _sum(b, f), _sum(c, g), _sum(d, h))
            b_, c_, d_ = _difference(b, f), _difference(c, g), _difference(d, h)
            none = zeros(work)
            y1, y3, y5, y7 = _four(
                _difference(a, e),
                ((b_[0] + b_[1]) * eighth, (b_[1] - b_[0]) * eighth),
                (c_[1], none - c_[0]),
                ((d_[1] - d_[0]) * eighth, none - (d_[0] + d_[1]) * eighth),
            )
            _put(work, row, y0, back)
            _put_turned(work, row + far, y1, twiddles, t, back)
            _put_turned(work, row + 2 * far, y2, twiddles, t + 2, back)
            _put_turned(work, row + 3 * far, y3, twiddles, t + 4, back)
            _put_turned(work, row + 4 * far, y4, twiddles, t + 6, back)
            _put_turned(work, row + 5 * far, y5, twiddles, t + 8, back)
            _put_turned(work, row + 6 * far, y6, twiddles, t + 10, back)
            _put_turned(work, row + 7 * far, y7, twiddles, t + 12, back)


@kernel
def pass_prime(work: Flat, size: int, length: int, radix: int, twiddles: Flat, at: int, back: bool) -> None:
    """Take every `radix` elements through a plain discrete Fourier sum."""
    part = length // radix
    roots = np.empty(2 * radix, work.dtype)
    for q in range(radix):
        roots[2 * q], roots[2 * q + 1] = math.cos(2 * math.pi * q / radix), -math.sin(2 * math.pi * q / radix)
    held = np.empty(radix * _ROW, work.dtype)
    for base in range(0, size, length):
        for k in range(part):
            row, far, t = (base + k) * _ROW, part * _ROW, at + 2 * (radix - 1) * k
            _put(held, 0, _get(work, row, back), False)
            for q in range(1, radix):
                _put(held, q * _ROW, _get_turned(work, row + q * far, twiddles, t + 2 * (q - 1), back), False)
            for m in range(radix):
                total = _get(held, 0, False)
                for q in range(1, radix):
                    total = _sum(total, _turned(_get(held, q * _ROW, False), roots, 2 * (m * q % radix)))
                if m == 0:
                    _put(work, row, total, back)
                else:
                    _put_turned(work, row + m * far, total, twiddles, t + 2 * (m - 1), back)
