"""One level for both signals, and the filters in front of the model and of the alignment."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from melmill.stages.numeric.lanes.vector import LANES, Flat, load, store
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
_SETTLED = 1024  # samples after which no filter here remembers more than 1e-12


class Conditioned(NamedTuple):
    """A signal behind its buffer, `n` samples with both buffers, and padding behind.

    The `model` hears the one, `aligned` is what delays are found in.
    """

    n: int
    model: Samples
    aligned: Samples


def conditioned(y: NDArray[np.float32 | np.float64], longest: int, rate: Rate, mode: Mode) -> Conditioned:
    """Return a signal at the level of P.862 and filtered.

    Parameters
    ----------
    y : ndarray, shape (n_samples,)
        Any scale.
    longest : int
        Samples of the longer of both signals: the level is that of the power per sample of these.
    rate : Rate
    mode : {"wb", "nb"}
    """
    start, n = rate.start, y.size + 2 * rate.start
    model = np.zeros(n + rate.padding, dtype=np.float32)
    part = model[start : start + y.size + rate.padding]
    part[: y.size] = y
    size = 1 << (part.size - 1).bit_length()
    spectrum = rfft(part, size)
    in_band = irfft(spectrum * _gains("calibration", size, rate.sr), size)[: part.size]
    power = float(np.dot(in_band.astype(np.float64), in_band)) / (longest + rate.padding)
    scale = np.float32(np.sqrt(_TARGET_POWER / power)) if power > 0 else np.float32(0)
    if mode == "nb":
        part[:] = irfft(spectrum * _gains("handset", size, rate.sr), size)[: part.size] * scale
    else:
        part *= scale
        ramp = np.arange(_FADE, dtype=np.float32) / _FADE
        model[start - 1 : start - 1 + _FADE] *= ramp
        end = n - start
        model[end - _FADE + 1 : end + 1] *= ramp[::-1]
        model[start:end] = cascade(model[start:end], WIDE_BAND_SECTION)
    return Conditioned(n, model, _for_alignment(model, n, rate))


def _for_alignment(model: Samples, n: int, rate: Rate) -> Samples:
    out = model.copy()
    start, end, step = rate.start, n - rate.start, rate.window
    ramp = (np.arange(step, dtype=np.float32) + np.float32(0.5)) / step
    out[start:end] -= np.float32(np.sum(out[start:end], dtype=np.float64) / n)
    out[start : start + step] *= ramp
    out[end - step : end] *= ramp[::-1]
    out[start:] = cascade(out[start:], rate.sections)
    return out


@lru_cache(maxsize=16)
def _gains(name: str, size: int, sr: int) -> NDArray[np.float32]:
    """Return the gain of each bin; 0 dB of the curve is at 1 kHz."""
    curve = CALIBRATION_BAND if name == "calibration" else HANDSET
    hz = np.arange(size // 2 + 1) * (sr / size)
    gain_db = np.interp(hz, curve[:, 0], curve[:, 1]) - np.interp(1000.0, curve[:, 0], curve[:, 1])
    return np.asarray(10.0 ** (gain_db / 20.0), dtype=np.float32)


def cascade(y: Samples, sections: NDArray[np.float64]) -> Samples:
    """Return a signal filtered by second-order sections, one after another.

    Parameters
    ----------
    y : ndarray, shape (n_samples,)
    sections : ndarray, shape (n_sections, 5)
        ``b0, b1, b2, a1, a2``.
    """
    # The signal is cut in LANES stretches, which begin early enough to forget how they began.
    stretch = -(-y.size // LANES)
    padded = np.zeros(_SETTLED + LANES * stretch, dtype=np.float64)
    padded[_SETTLED : _SETTLED + y.size] = y
    columns = np.empty((_SETTLED + stretch, LANES))
    for lane in range(LANES):
        columns[:, lane] = padded[lane * stretch : lane * stretch + len(columns)]
    _filter(columns, sections)
    return np.asarray(columns[_SETTLED:].T.reshape(-1)[: y.size], dtype=np.float32)


@kernel
def _filter(columns: Flat, sections: Flat) -> None:
    """Overwrite columns, shape (n_samples, LANES), by what comes out of the sections."""
    n_sections = sections.shape[0]
    state = np.zeros(2 * n_sections * LANES)
    for i in range(columns.shape[0]):
        y = load(columns, i * LANES)
        for s in range(n_sections):
            at = 2 * s * LANES
            z1, z2 = load(state, at), load(state, at + LANES)
            now = y - z1 * sections[s, 3] - z2 * sections[s, 4]
            y = now * sections[s, 0] + z1 * sections[s, 1] + z2 * sections[s, 2]
            store(state, at + LANES, z1)
            store(state, at, now)
        store(columns, i * LANES, y)
