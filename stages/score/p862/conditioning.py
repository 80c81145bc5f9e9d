"""One level for both signals, and the filters in front of the model and of the alignment."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.vector import LANES, Flat, kept, larger, load, store, zeros
from melmill.stages.score.p862.spectrum import layout, signals, spectrum
from melmill.stages.score.p862.tables import (  # fmt: skip
    CALIBRATION_BAND,
    HANDSET,
    WIDE_BAND_SECTION,
    Mode,
    Rate,
    kernel,
)

Samples = NDArray[np.float32]

_TARGET_POWER = 1e7  # in the calibration band
_FADE = 16  # samples at both ends of a wide-band signal
_MEMORY = 512  # samples after which the filter of the alignment has forgotten all but 1e-12
_TINY, _INAUDIBLE = 1e-15, 1e-12  # of samples at the scale of 16 bits


class Conditioned(NamedTuple):
    """Reference and estimate, each behind a buffer.

    `n` counts the samples of each with a buffer at either end. The `model` hears the one array,
    `aligned` is what delays are found in: both ``(2, n_samples)``, with padding behind the longer.
    """

    n: tuple[int, int]
    model: Samples
    aligned: Samples


def conditioned(
    reference: NDArray[np.float32 | np.float64], estimate: NDArray[np.float32 | np.float64], rate: Rate, mode: Mode
) -> Conditioned:
    """Return both signals at the level of P.862 and filtered.

    Each is brought to the same power in the band of speech, over the length of the longer.

    Parameters
    ----------
    reference, estimate : ndarray, shape (n_samples,)
        Any scale.
    rate : Rate
    mode : {"wb", "nb"}
    """
    sizes, start = (reference.size, estimate.size), rate.start
    n = max(sizes) + rate.padding
    form = layout(n)
    padded = np.zeros((2, form.size), dtype=np.float32)
    peaks = np.array([np.max(np.abs(y)) for y in (reference, estimate)])
    for row, y, peak in zip(padded, (reference, estimate), peaks, strict=True):
        # Of one size, so that the rounding errors of neither reach the other.
        row[: y.size] = y / (peak or 1.0)
    Z = spectrum(padded[0], padded[1], form)
    powers = np.where(peaks > 0, _powers(Z, _band(form.size, rate.sr)), 0.0) / (form.size * n)
    ratios = np.divide(_TARGET_POWER, powers, out=np.zeros(2), where=powers > 0)
    scales = np.sqrt(ratios).astype(np.float32)
    heard = signals(Z, _handset(form.size, rate.sr), form) if mode == "nb" else padded
    model = np.zeros((2, start + n + start), dtype=np.float32)
    for y, scale, signal, size in zip(model, scales, heard, sizes, strict=True):
        np.multiply(signal[: size + rate.padding], scale, out=y[start : start + size + rate.padding])
    if mode == "wb":
        _high_pass(model, sizes, start)
    aligned = _for_alignment(model, sizes, rate)
    return Conditioned((sizes[0] + 2 * start, sizes[1] + 2 * start), model, aligned)


def _high_pass(model: Samples, sizes: tuple[int, int], start: int) -> None:
    """Apply the filter of P.862.2 to the samples of the signals, in place."""
    ramp = np.arange(_FADE, dtype=np.float32) / _FADE
    for y, size in zip(model, sizes, strict=True):
        end = start + size
        y[start - 1 : start - 1 + _FADE] *= ramp
        y[end - _FADE + 1 : end + 1] *= ramp[::-1]
    longest = start + max(sizes)
    _filter_in_order(model, start, longest, WIDE_BAND_SECTION)
    for y, size in zip(model, sizes, strict=True):
        y[start + size :] = 0


@kernel
def _filter_in_order(signals: Flat, start: int, end: int, section: Flat) -> None:
    """Filter a stretch of two signals in place.

    The section's poles lie so near to 1 that single precision leaves noise at the threshold of
    hearing. So every operation is that of P.862's code: rounded to single precision, in its order.
    """
    b0, b1, b2 = section[0], section[1], section[2]
    a1, a2 = section[3], section[4]
    x1 = x2 = y1 = y2 = np.float32(0)
    for i in range(start, end):
        x0 = signals[0, i] - a1 * x1 - a2 * x2
        y0 = signals[1, i] - a1 * y1 - a2 * y2
        signals[0, i] = b0 * x0 + b1 * x1 + b2 * x2
        signals[1, i] = b0 * y0 + b1 * y1 + b2 * y2
        x1, x2, y1, y2 = x0, x1, y0, y1


def _for_alignment(model: Samples, sizes: tuple[int, int], rate: Rate) -> Samples:
    """Return the signals without their means, faded at both ends and filtered."""
    out, start, step = model.copy(), rate.start, rate.window
    ramp = (np.arange(step, dtype=np.float32) + np.float32(0.5)) / step
    for y, size in zip(out, sizes, strict=True):
        end = start + size
        y[start:end] -= np.float32(np.sum(y[start:end]) / (size + 2 * start))
        y[start : start + step] *= ramp
        y[end - step : end] *= ramp[::-1]
    out[:, start:] = cascade(out[:, start:], rate.sections)
    return out


class _Bins(NamedTuple):
    """Places of frequencies and of their negatives in a spectrum, and gains of their powers."""

    at: NDArray[np.int64]
    mirrored: NDArray[np.int64]
    gains: NDArray[np.float32]


@lru_cache(maxsize=16)
def _band(size: int, sr: int) -> _Bins:
    """Return the bins of the band that sets the level."""
    form, gains = layout(size), _gains(CALIBRATION_BAND, size, sr)
    k = np.flatnonzero(gains > 1e-10)
    return _Bins(form.place(k), form.place(size - k), np.square(gains[k]))


@lru_cache(maxsize=16)
def _handset(size: int, sr: int) -> NDArray[np.float32]:
    """Return the handset's gain at each place of a spectrum."""
    gains = _gains(HANDSET, size, sr)
    k = np.arange(size)
    place = layout(size).place(k)
    out = np.empty(size, dtype=np.float32)
    out[place // (2 * LANES) * LANES + place % LANES] = gains[np.minimum(k, size - k)]
    return out


def _gains(curve: NDArray[np.float64], size: int, sr: int) -> NDArray[np.float32]:
    """Return the gain of each bin up to half the rate; 0 dB of the curve is at 1 kHz."""
    hz = np.arange(size // 2 + 1) * (sr / size)
    gain_db = np.interp(hz, curve[:, 0], curve[:, 1]) - np.interp(1000.0, curve[:, 0], curve[:, 1])
    return np.asarray(10.0 ** (gain_db / 20.0), dtype=np.float32)


@kernel
def _powers(Z: Flat, band: _Bins) -> tuple[float, float]:
    """Return the energies of x and y in a band of the spectrum of ``x + i y``, times its size."""
    first, second = 0.0, 0.0
    for i in range(band.at.size):
        k, m = band.at[i], band.mirrored[i]
        re, im, re_, im_ = Z[k], Z[k + LANES], Z[m], Z[m + LANES]
        gain = float(band.gains[i])
        first += gain * ((re + re_) ** 2 + (im - im_) ** 2)
        second += gain * ((im + im_) ** 2 + (re - re_) ** 2)
    return first / 2, second / 2


def cascade(signals: Samples, sections: NDArray[np.float64]) -> Samples:
    """Return two signals filtered by second-order sections, one after another.

    Parameters
    ----------
    signals : ndarray, shape (2, n_samples)
    sections : ndarray, shape (n_sections, 5)
        ``b0, b1, b2, a1, a2``.
        They forget within `_MEMORY` samples.
    """
    # Signals are cut in stretches, which begin early enough to forget how they began.
    n, memory = signals.shape[1], _MEMORY
    stretch = -(-n // LANES)
    padded = np.zeros((2, memory + LANES * stretch), dtype=np.float32)
    padded[:, memory : memory + n] = signals
    out = np.empty((2, LANES * stretch), dtype=np.float32)
    _filter(padded, memory, sections.astype(np.float32), out)
    return out[:, :n]


@kernel
def _filter(padded: Flat, memory: int, sections: Flat, out: Flat) -> None:
    """Filter `LANES` stretches side by side, each with what comes before it, of two signals in turns."""
    n_sections, stretch, size = sections.shape[0], out.shape[1] // LANES, padded.shape[1]
    state, row = np.zeros(4 * n_sections * LANES, np.float32), np.empty(2 * LANES, np.float32)
    # Neither the states nor what leaves may fade into numbers that are slow to compute with.
    tiny, least = np.float32(_TINY), zeros(padded) + np.float32(_INAUDIBLE)
    flat, flat_out = padded.reshape(-1), out.reshape(-1)
    for i in range(memory + stretch):
        for lane in range(LANES):
            row[lane], row[LANES + lane] = flat[lane * stretch + i], flat[size + lane * stretch + i]
        x, y = load(row, 0), load(row, LANES)
        for s in range(n_sections):
            b0, b1, b2, a1, a2 = sections[s, 0], sections[s, 1], sections[s, 2], sections[s, 3], sections[s, 4]
            at = 4 * s * LANES
            x1, x2 = load(state, at), load(state, at + LANES)
            y1, y2 = load(state, at + 2 * LANES), load(state, at + 3 * LANES)
            # In this order little waits for the section before.
            x0, y0 = (x + tiny) - (x1 * a1 + x2 * a2), (y + tiny) - (y1 * a1 + y2 * a2)
            x, y = x0 * b0 + (x1 * b1 + x2 * b2), y0 * b0 + (y1 * b1 + y2 * b2)
            store(state, at + LANES, x1)
            store(state, at, x0)
            store(state, at + 3 * LANES, y1)
            store(state, at + 2 * LANES, y0)
        if i >= memory:
            store(row, 0, kept(x, larger(x, zeros(row) - x), least))
            store(row, LANES, kept(y, larger(y, zeros(row) - y), least))
            for lane in range(LANES):
                flat_out[lane * stretch + i - memory] = row[lane]
                flat_out[(LANES + lane) * stretch + i - memory] = row[LANES + lane]
