"""One level for both signals, and the filters in front of the model and of the alignment."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.vector import LANES, Flat, Lanes, inlined, kept, larger, load, store, zeros
from melmill.stages.score.p862.spectrum import Workspace, layout, signals, spectrum
from melmill.stages.score.p862.tables import (  # fmt: skip
    CALIBRATION_BAND,
    HANDSET,
    WIDE_BAND_SECTION,
    Mode,
    Rate,
    kernel,
)

Samples = NDArray[np.float32]

_workspace = Workspace()

_TARGET_POWER = 1e7  # in the calibration band
_FADE = 16  # samples at both ends of a wide-band signal
_CHUNK = 32  # samples by which a section is behind the one before
_TINY = 1e-30  # of samples at the scale of 16 bits


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
    work = _workspace.arrays(form)
    heard, in_band, scratch, Z = work[0].reshape(2, -1), work[1].reshape(2, -1), work[2], work[3]
    heard[:] = 0
    peaks = [float(np.max(np.abs(y))) for y in (reference, estimate)]
    for row, y, own in zip(heard, (reference, estimate), peaks, strict=True):
        # By powers of two to one size, so that the rounding errors of neither reach the other.
        step = math.floor(math.log2(own / max(peaks))) if own > 0 else 0
        np.multiply(y / y.dtype.type(max(peaks) or 1.0), 2.0**-step, out=row[: y.size], casting="same_kind")
    spectrum(heard[0], heard[1], form, scratch, Z)
    signals(Z, _gains("calibration", form.size, rate.sr), form, scratch, in_band)
    if mode == "nb":
        signals(Z, _gains("handset", form.size, rate.sr), form, scratch, heard)
    model = np.zeros((2, start + n + start), dtype=np.float32)
    for i, size in enumerate(sizes):
        stretch = slice(size + rate.padding)
        power = _energy(in_band[i, stretch]) / n
        scale = math.sqrt(_TARGET_POWER / power) if power > 0 and peaks[i] > 0 else 0.0
        np.multiply(heard[i, stretch], np.float32(scale), out=model[i, start:][stretch])
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
    cascade(model[:, start:longest], WIDE_BAND_SECTION)
    for y, size in zip(model, sizes, strict=True):
        y[start + size :] = 0


def _for_alignment(model: Samples, sizes: tuple[int, int], rate: Rate) -> Samples:
    """Return the signals without their means, faded at both ends and filtered."""
    out, start, step = model.copy(), rate.start, rate.window
    ramp = (np.arange(step, dtype=np.float32) + np.float32(0.5)) / np.float32(step)
    for y, size in zip(out, sizes, strict=True):
        end = start + size
        y[start:end] -= _sum(y[start:end]) / np.float32(size + 2 * start)
        y[start : start + step] *= ramp
        y[end - step : end] *= ramp[::-1]
    cascade(out[:, start:], rate.sections)
    return out


@kernel
def _sum(y: Flat) -> np.float32:
    """Return the sum in single precision, term by term."""
    total = np.float32(0)
    for value in y:
        total += value
    return total


@lru_cache(maxsize=16)
def _gains(name: Literal["calibration", "handset"], size: int, sr: int) -> NDArray[np.float32]:
    """Return the gain of a filter at each place of a spectrum; 0 dB of its curve is at 1 kHz."""
    curve = CALIBRATION_BAND if name == "calibration" else HANDSET
    hz = np.arange(size // 2 + 1) * (sr / size)
    gain_db = np.interp(hz, curve[:, 0], curve[:, 1]) - np.interp(1000.0, curve[:, 0], curve[:, 1])
    gains = 10.0 ** (gain_db / 20.0)
    k = np.arange(size)
    place = layout(size).place(k)
    out = np.empty(size, dtype=np.float32)
    out[place // (2 * LANES) * LANES + place % LANES] = gains[np.minimum(k, size - k)]
    return out


@kernel
def _energy(y: Flat) -> float:
    """Return the sum of squares; in blocks, as single precision ends with few numbers."""
    total, lanes, block = 0.0, np.empty(LANES, np.float32), 64 * LANES
    whole = y.size // block * block
    for start in range(0, whole, block):
        part = zeros(y)
        for i in range(start, start + block, LANES):
            part = part + load(y, i) * load(y, i)
        store(lanes, 0, part)
        for lane in range(LANES):
            total += float(lanes[lane])
    for i in range(whole, y.size):
        total += float(y[i]) ** 2
    return total


def cascade(signals: Samples, sections: NDArray[np.float32]) -> None:
    """Filter two signals by second-order sections, one after another, in place.

    Every operation is that of P.862's code, rounded to single precision, in its order: the rounding
    errors of poles near 1 are at the threshold of hearing, and where a signal is silent they decide
    which delays are found.

    Parameters
    ----------
    signals : ndarray of float32, shape (2, n_samples)
    sections : ndarray of float32, shape (n_sections, 5)
        ``b0, b1, b2, a1, a2``; at most `LANES` sections.
    """
    if len(sections) == 1:
        _filter_by_one(signals[0], signals[1], sections[0])
        return
    coefficients = np.zeros((5, LANES), dtype=np.float32)
    coefficients[:, : len(sections)] = sections.T
    _filter(signals[0], signals[1], coefficients.reshape(-1), len(sections))


@kernel
def _filter_by_one(x: Flat, y: Flat, section: Flat) -> None:
    b0, b1, b2, a1, a2 = section[0], section[1], section[2], section[3], section[4]
    x1 = x2 = y1 = y2 = np.float32(0)
    for i in range(x.size):
        if i % _CHUNK == 0:
            x1, x2 = x1 if abs(x1) > _TINY else np.float32(0), x2 if abs(x2) > _TINY else np.float32(0)
            y1, y2 = y1 if abs(y1) > _TINY else np.float32(0), y2 if abs(y2) > _TINY else np.float32(0)
        x0, y0 = x[i] - a1 * x1 - a2 * x2, y[i] - a1 * y1 - a2 * y2
        x[i], y[i] = b0 * x0 + b1 * x1 + b2 * x2, b0 * y0 + b1 * y1 + b2 * y2
        x1, x2, y1, y2 = x0, x1, y0, y1


@inlined
def _size(value: Lanes, like: Flat) -> Lanes:
    return larger(value, zeros(like) - value)


@kernel
def _filter(x: Flat, y: Flat, coefficients: Flat, n_sections: int) -> None:
    """Filter x and y: each section has a lane, and is a chunk of samples behind the section before.

    Rows hold the inputs of all sections at one time. What section s makes of row t is the input of
    section ``s + 1`` in row ``t + _CHUNK``.
    """
    row, rows = LANES + 1, 2 * _CHUNK
    xs, ys = np.zeros(rows * row, np.float32), np.zeros(rows * row, np.float32)
    b0, b1, b2 = load(coefficients, 0), load(coefficients, LANES), load(coefficients, 2 * LANES)
    a1, a2 = load(coefficients, 3 * LANES), load(coefficients, 4 * LANES)
    x1, x2, y1, y2 = zeros(xs), zeros(xs), zeros(xs), zeros(xs)
    least = zeros(xs) + np.float32(_TINY)
    late = (n_sections - 1) * _CHUNK
    for start in range(0, x.size + late, _CHUNK):
        here, there = start % rows, (start + _CHUNK) % rows
        for i in range(_CHUNK):
            is_inside = start + i < x.size
            xs[(here + i) * row] = x[start + i] if is_inside else np.float32(0)
            ys[(here + i) * row] = y[start + i] if is_inside else np.float32(0)
        for i in range(_CHUNK):
            x0 = load(xs, (here + i) * row) - a1 * x1 - a2 * x2
            y0 = load(ys, (here + i) * row) - a1 * y1 - a2 * y2
            store(xs, (there + i) * row + 1, b0 * x0 + b1 * x1 + b2 * x2)
            store(ys, (there + i) * row + 1, b0 * y0 + b1 * y1 + b2 * y2)
            x1, x2, y1, y2 = x0, x1, y0, y1
        # Numbers that fade out would be slow to compute with.
        x1, x2 = kept(x1, _size(x1, xs), least), kept(x2, _size(x2, xs), least)
        y1, y2 = kept(y1, _size(y1, xs), least), kept(y2, _size(y2, xs), least)
        for i in range(max(late - start, 0), min(x.size + late - start, _CHUNK)):
            x[start + i - late] = xs[(there + i) * row + n_sections]
            y[start + i - late] = ys[(there + i) * row + n_sections]
