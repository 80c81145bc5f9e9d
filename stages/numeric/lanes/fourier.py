"""Real FFTs of any length, of `LANES` frames at once.

A real frame of even length is transformed in place as a complex one of half its length, by
decimation in frequency. The way back decimates in time. Neither reorders anything: `place` says
where a bin lies. Factors 8, 5, 4, 3 and 2 have butterflies of their own, other primes a plain sum.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.butterflies import pass2, pass3, pass4, pass5, pass8, pass_prime
from melmill.stages.numeric.lanes.vector import LANES, Flat, inlined, kernel, load, store, zeros
from melmill.stages.numeric.melspec import Precision


class Fourier(NamedTuple):
    """The tables of a real FFT of one length.

    `work` arrays hold ``2 size`` rows. Samples 2 m and 2 m + 1 of a frame are the complex number m.
    For an odd length a row of zeros follows every sample.
    """

    size: int
    packed: bool
    radices: NDArray[np.int64]
    twiddles: NDArray[np.floating]
    place: NDArray[np.int64]
    real_twiddles: NDArray[np.floating]


@lru_cache(maxsize=16)
def fourier(n_fft: int, dtype: Precision = "float32") -> Fourier:
    """Return the tables of a real FFT of `n_fft` samples."""
    size = n_fft // 2 if n_fft % 2 == 0 else n_fft
    radices = _factors(size)
    twiddles, place, rest, length = [], np.zeros(size, dtype=np.int64), np.arange(size), size
    for radix in radices:
        part = length // radix
        angles = np.outer(np.arange(part), np.arange(1, radix)) / length
        twiddles.append(_turn(angles).ravel())
        place += rest % radix * part
        rest, length = rest // radix, part
    return Fourier(
        size=size,
        packed=n_fft % 2 == 0,
        radices=np.array(radices, dtype=np.int64),
        twiddles=np.concatenate(twiddles or [np.empty(0)]).astype(dtype),
        place=place,
        real_twiddles=_turn(np.arange(1 + n_fft // 2) / n_fft).ravel().astype(dtype),
    )


def _turn(angle: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return ``exp(-2 pi i angle)`` as pairs."""
    turn = np.exp(-2j * np.pi * angle)
    return np.stack([turn.real, turn.imag], axis=-1)


def _factors(size: int) -> list[int]:
    factors = []
    for radix in (8, 4, 2, 3, 5):
        while size % radix == 0:
            factors.append(radix)
            size //= radix
    prime = 7
    while size > 1:
        while size % prime == 0:
            factors.append(prime)
            size //= prime
        prime += 2
    return factors


@inlined
def _pass(work: Flat, size: int, length: int, radix: int, twiddles: Flat, at: int, back: bool) -> None:
    if radix == 8:
        pass8(work, size, length, twiddles, at, back)
    elif radix == 4:
        pass4(work, size, length, twiddles, at, back)
    elif radix == 2:
        pass2(work, size, length, twiddles, at, back)
    elif radix == 3:
        pass3(work, size, length, twiddles, at, back)
    elif radix == 5:
        pass5(work, size, length, twiddles, at, back)
    else:
        pass_prime(work, size, length, radix, twiddles, at, back)


@kernel
def complex_forward(work: Flat, f: Fourier) -> None:
    """Overwrite `LANES` columns of ``f.size`` complex numbers by their spectra, bin k at ``f.place[k]``."""
    # As int64 at once: the passes would be compiled for the constant 0 too.
    length, at = f.size, np.int64(0)
    for radix in f.radices:
        _pass(work, f.size, length, radix, f.twiddles, at, False)
        length //= radix
        at += 2 * length * (radix - 1)


@kernel
def complex_inverse(work: Flat, f: Fourier) -> None:
    """Overwrite spectra, placed as `complex_forward` leaves them, by their columns times ``f.size``."""
    length, at = 1, len(f.twiddles)
    for i in range(len(f.radices) - 1, -1, -1):
        radix = f.radices[i]
        at -= 2 * length * (radix - 1)
        length *= radix
        _pass(work, f.size, length, radix, f.twiddles, at, True)


@kernel
def forward(work: Flat, Z: Flat, f: Fourier) -> None:
    """Write the spectra Z of the frames in `work`, rows (n_bins, 2); `work` is overwritten."""
    complex_forward(work, f)
    if f.packed:
        _unpack(work, Z, f)
    else:
        for k in range(f.size // 2 + 1):
            row = 2 * LANES * f.place[k]
            store(Z, 2 * LANES * k, load(work, row))
            store(Z, 2 * LANES * k + LANES, load(work, row + LANES))


@kernel
def inverse(Z: Flat, work: Flat, f: Fourier) -> None:
    """Write the frames of spectra, times n_fft.

    Imaginary parts of bins that are real by nature are ignored.
    """
    if f.packed:
        _pack(Z, work, f)
    else:
        store(work, 0, load(Z, 0))
        store(work, LANES, zeros(work))
        for k in range(1, f.size // 2 + 1):
            re, im = load(Z, 2 * LANES * k), load(Z, 2 * LANES * k + LANES)
            row, mirrored = 2 * LANES * f.place[k], 2 * LANES * f.place[f.size - k]
            store(work, row, re)
            store(work, row + LANES, im)
            store(work, mirrored, re)
            store(work, mirrored + LANES, zeros(work) - im)
    complex_inverse(work, f)


@inlined
def _unpack(work: Flat, Z: Flat, f: Fourier) -> None:
    # With the complex bins A = work[k] and B = conj(work[size - k]), the real ones are E + T and
    # conj(E - T) for E = (A + B) / 2 and T = -i/2 exp(-2 pi i k / n_fft) (A - B).
    re, im = load(work, 0), load(work, LANES)
    store(Z, 0, re + im)
    store(Z, LANES, zeros(work))
    store(Z, 2 * LANES * f.size, re - im)
    store(Z, 2 * LANES * f.size + LANES, zeros(work))
    for k in range(1, f.size // 2 + 1):
        low, high = 2 * LANES * k, 2 * LANES * (f.size - k)
        a, b = 2 * LANES * f.place[k], 2 * LANES * f.place[f.size - k]
        ar, ai, br, bi = load(work, a), load(work, a + LANES), load(work, b), load(work, b + LANES)
        er, ei = (ar + br) * 0.5, (ai - bi) * 0.5
        dr, di = (ar - br) * 0.5, (ai + bi) * 0.5
        c, s = f.real_twiddles[2 * k], f.real_twiddles[2 * k + 1]
        tr, ti = di * c + dr * s, di * s - dr * c
        store(Z, low, er + tr)
        store(Z, low + LANES, ei + ti)
        store(Z, high, er - tr)
        store(Z, high + LANES, ti - ei)


@inlined
def _pack(Z: Flat, work: Flat, f: Fourier) -> None:
    re, im = load(Z, 0), load(Z, 2 * LANES * f.size)
    store(work, 0, re + im)
    store(work, LANES, re - im)
    for k in range(1, f.size // 2 + 1):
        low, high = 2 * LANES * k, 2 * LANES * (f.size - k)
        a, b = 2 * LANES * f.place[k], 2 * LANES * f.place[f.size - k]
        ar, ai, br, bi = load(Z, low), load(Z, low + LANES), load(Z, high), load(Z, high + LANES)
        er, ei = ar + br, ai - bi
        tr, ti = ar - br, ai + bi
        c, s = f.real_twiddles[2 * k], f.real_twiddles[2 * k + 1]
        dr, di = tr * c + ti * s, ti * c - tr * s
        store(work, a, er - di)
        store(work, a + LANES, ei + dr)
        store(work, b, er + di)
        store(work, b + LANES, dr - ei)
