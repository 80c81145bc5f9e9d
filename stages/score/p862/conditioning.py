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
_WIDE_BAND_MEMORY, _MEMORY = 1024, 512  # samples
_TINY, _INAUDIBLE = 1e-15, 1e-12  # of samples at the scale of 16 bits


class Conditioned(NamedTuple):
    """A signal behind its buffer, `n` samples with both buffers, and padding behind.

    The `model` hears the one, `aligned` is what delays are found in.
    """

    n: int
    model: Samples
    aligned: Samples


def conditioned(
    reference: NDArray[np.float32 | np.float64], estimate: NDArray[np.float32 | np.float64], rate: Rate, mode: Mode
) -> tuple[Conditioned, Conditioned]:
    """Return both signals at the level of P.862 and filtered.

    Each is brought to the same power in the band of speech, over the length of the longer.

    Parameters
    ----------
    reference, estimate : ndarray, shape (n_samples,)
        Any scale.
    rate : Rate
    mode : {"wb", "nb"}
    """
    n = max(reference.size, estimate.size) + rate.padding
    form = layout(n)
    padded = np.zeros((2, form.size), dtype=np.float32)
    padded[0, : reference.size], padded[1, : estimate.size] = reference, estimate
    Z = spectrum(padded[0], padded[1], form)
    powers = np.array(_powers(Z, _band(form.size, rate.sr))) / (form.size * n)
    scales = np.sqrt(_TARGET_POWER / powers, out=np.zeros(2), where=powers > 0).astype(np.float32)
    heard = signals(Z, _handset(form.size, rate.sr), form) if mode == "nb" else padded
    x, y = (
        _one(signal * scale, raw.size, rate, mode)
        for signal, scale, raw in zip(heard, scales, (reference, estimate), strict=True)
    )
    return x, y


def _one(y: Samples, n_samples: int, rate: Rate, mode: Mode) -> Conditioned:
    start, end, n = rate.start, rate.start + n_samples, n_samples + 2 * rate.start
    model = np.zeros(n + rate.padding, dtype=np.float32)
    model[start : end + rate.padding] = y[: n_samples + rate.padding]
    if mode == "wb":
        ramp = np.arange(_FADE, dtype=np.float32) / _FADE
        model[start - 1 : start - 1 + _FADE] *= ramp
        model[end - _FADE + 1 : end + 1] *= ramp[::-1]
        model[start:end] = cascade(model[start:end], WIDE_BAND_SECTION, _WIDE_BAND_MEMORY)
    return Conditioned(n, model, _for_alignment(model, n, rate))


def _for_alignment(model: Samples, n: int, rate: Rate) -> Samples:
    out = model.copy()
    start, end, step = rate.start, n - rate.start, rate.window
    ramp = (np.arange(step, dtype=np.float32) + np.float32(0.5)) / step
    out[start:end] -= np.float32(np.sum(out[start:end], dtype=np.float64) / n)
    out[start : start + step] *= ramp
    out[end - step : end] *= ramp[::-1]
    out[start:] = cascade(out[start:], rate.sections, _MEMORY)
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


def cascade(y: Samples, sections: NDArray[np.float64], memory: int) -> Samples:
    """Return a signal filtered by second-order sections, one after another.

    Parameters
    ----------
    y : ndarray, shape (n_samples,)
    sections : ndarray, shape (n_sections, 5)
        ``b0, b1, b2, a1, a2``.
    memory : int
        Samples after which the sections have forgotten all but 1e-12 of a signal.
    """
    # The signal is cut in stretches, which begin early enough to forget how they began.
    stretch = -(-y.size // LANES)
    padded = np.zeros(memory + LANES * stretch, dtype=np.float32)
    padded[memory : memory + y.size] = y
    out = np.empty(LANES * stretch, dtype=np.float32)
    _filter(padded, memory, sections.astype(np.float32), out)
    return out[: y.size]


@kernel
def _filter(padded: Flat, memory: int, sections: Flat, out: Flat) -> None:
    """Filter `LANES` stretches side by side, each with what comes before it."""
    n_sections, stretch = sections.shape[0], out.size // LANES
    state, row = np.zeros(2 * n_sections * LANES, np.float32), np.empty(LANES, np.float32)
    # Neither the states nor what leaves may fade into numbers that are slow to compute with.
    tiny, least = np.float32(_TINY), zeros(padded) + np.float32(_INAUDIBLE)
    for i in range(memory + stretch):
        for lane in range(LANES):
            row[lane] = padded[lane * stretch + i]
        y = load(row, 0)
        for s in range(n_sections):
            at = 2 * s * LANES
            z1, z2 = load(state, at), load(state, at + LANES)
            now = y + tiny - z1 * sections[s, 3] - z2 * sections[s, 4]
            y = now * sections[s, 0] + z1 * sections[s, 1] + z2 * sections[s, 2]
            store(state, at + LANES, z1)
            store(state, at, now)
        if i >= memory:
            store(row, 0, kept(y, larger(y, zeros(row) - y), least))
            for lane in range(LANES):
                out[lane * stretch + i - memory] = row[lane]
