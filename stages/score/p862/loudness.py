"""The model of hearing: power in bands of pitch, made even between both signals, and its loudness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.bands import Runs, apply
from melmill.stages.numeric.lanes.fourier import forward
from melmill.stages.numeric.lanes.vector import LANES, Flat, inlined, load, store
from melmill.stages.score.p862.delays import FrameTables, frame_tables, take_frames
from melmill.stages.score.p862.tables import Rate, kernel

Bands = NDArray[np.float32]  # (n_bands, n_frames), padded to whole groups of LANES frames

_AUDIBLE = 100.0  # times the threshold of hearing, for averages over time
_SILENCE = 1e7  # audible power of a frame that counts in these
_EVEN_POWER, _MOST, _LEAST = 1000.0, 100.0, 0.01
_GAIN_POWER, _MOST_GAIN, _LEAST_GAIN = 5e3, 5.0, 3e-4
_MEMORY = 0.2  # share of the gain of the frame before


def pitch_power(y: NDArray[np.float32], starts: NDArray[np.int64], rate: Rate) -> Bands:
    """Return the power in bands of pitch of the frames from `starts` on.

    A frame that begins below 0 is silent.
    """
    out = np.empty((rate.widths.size, -(-starts.size // LANES) * LANES), dtype=np.float32)
    _pitch_power(y, starts, frame_tables(rate.n_fft), _bands(rate), out)
    return out


def _bands(rate: Rate) -> Runs:
    """Return which bins each band sums up, and by which factor."""
    weights = np.repeat(rate.corrections, np.diff(rate.first))
    return Runs(rate.first[:-1].copy(), rate.first, weights)


@kernel
def _pitch_power(y: Flat, starts: Flat, t: FrameTables, bands: Runs, out: Flat) -> None:
    n, n_frames, n_bands = t.window.size, starts.size, out.shape[0]
    work, Z = np.empty(n * LANES, np.float32), np.empty((n + 2) * LANES, np.float32)
    powers, pitch = np.empty((n // 2 + 1) * LANES, np.float32), np.empty(n_bands * LANES, np.float32)
    for group in range(0, n_frames, LANES):
        take_frames(y, starts, group, n_frames, t.window, work)
        forward(work, Z, t.fourier)
        for row in range(0, powers.size, LANES):
            re, im = load(Z, 2 * row), load(Z, 2 * row + LANES)
            store(powers, row, re * re + im * im)
        for lane in range(LANES):
            powers[lane] = 0  # no band hears a constant
        apply(bands, powers, pitch, 0, 0)
        for b in range(n_bands):
            for lane in range(LANES):
                is_there = group + lane < n_frames and starts[min(group + lane, n_frames - 1)] >= 0
                out[b, group + lane] = pitch[b * LANES + lane] if is_there else 0


def audible_power(bands: Bands, n_frames: int, factor: float, rate: Rate) -> NDArray[np.float64]:
    """Return the power of each frame in bands above a multiple of the threshold of hearing."""
    total = np.zeros(bands.shape[1])
    _add_audible(bands, rate.thresholds * factor, total)
    return total[:n_frames]


@kernel
def _add_audible(bands: Flat, thresholds: Flat, total: Flat) -> None:
    for b in range(1, bands.shape[0]):
        least = np.float32(thresholds[b])
        for f in range(total.size):
            power = bands[b, f]
            total[f] += power if power > least else np.float32(0)


def equalise(reference: Bands, estimate: Bands, n_frames: int, n_averaged: int, rate: Rate) -> None:
    """Give the reference the estimate's long-term spectrum, within 20 dB.

    Frames in which the reference is silent do not count.
    """
    counted = audible_power(reference, n_frames, _AUDIBLE, rate) >= _SILENCE
    means = np.zeros((2, rate.widths.size))
    for bands, mean in zip((reference, estimate), means, strict=True):
        _add_loud(bands, counted.astype(np.float32), rate.thresholds * _AUDIBLE, mean)
    means /= n_averaged
    ratio = (means[1] + _EVEN_POWER) / (means[0] + _EVEN_POWER)
    reference *= np.clip(ratio, _LEAST, _MOST).astype(np.float32)[:, np.newaxis]


@kernel
def _add_loud(bands: Flat, counted: Flat, thresholds: Flat, total: Flat) -> None:
    """Add the powers above a threshold in the frames that count."""
    loud = np.empty(counted.size, np.float32)
    for b in range(bands.shape[0]):
        least = np.float32(thresholds[b])
        for f in range(loud.size):
            loud[f] = counted[f] * bands[b, f] if bands[b, f] > least else np.float32(0)
        total[b] = loud.sum()


def gains(reference: NDArray[np.float64], estimate: NDArray[np.float64], is_first: bool) -> NDArray[np.float32]:
    """Return what follows the estimate's level frame by frame.

    Parameters
    ----------
    reference, estimate : ndarray, shape (n_frames,)
        Audible powers.
    is_first : bool
        Whether the first frame is that of the signal, which has none before it.
    """
    out = np.empty(reference.size)
    _follow((reference + _GAIN_POWER) / (estimate + _GAIN_POWER), is_first, out)
    return np.clip(out, _LEAST_GAIN, _MOST_GAIN).astype(np.float32)


@kernel
def _follow(ratio: Flat, is_first: bool, out: Flat) -> None:
    before = ratio[0] if is_first else 1.0
    for f in range(ratio.size):
        before = out[f] = _MEMORY * before + (1.0 - _MEMORY) * ratio[f]


def loudness(bands: Bands, rate: Rate) -> Bands:
    """Return the loudness density by Zwicker's law, in sone per Bark."""
    out = np.empty_like(bands)
    _loudness(bands, rate.thresholds, rate.exponents, rate.loudness_scale, out)
    return out


@kernel
def _loudness(bands: Flat, thresholds: Flat, exponents: Flat, scale: float, out: Flat) -> None:
    for b in range(bands.shape[0]):
        threshold, exponent = np.float32(thresholds[b]), np.float32(exponents[b])
        over, factor = np.float32(0.5 / thresholds[b]), np.float32(scale * (thresholds[b] / 0.5) ** exponents[b])
        for f in range(bands.shape[1]):
            power = bands[b, f]
            grown = raised(np.float32(0.5) + over * max(power, threshold), exponent)
            out[b, f] = factor * (grown - np.float32(1)) if power > threshold else np.float32(0)


@inlined
def raised(x: float, exponent: float) -> np.float32:
    """Return ``x ** exponent`` of a float32 from 2^-100 to 2^100 to 3e-7, in steps that vectorise."""
    bits = np.float32(x).view(np.int32)
    whole = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    m = np.int32(bits - (whole << np.int32(23))).view(np.float32)
    # log2 of m in [sqrt(1/2), sqrt(2)] by the series of artanh.
    s = (m - np.float32(1)) / (m + np.float32(1))
    z = s * s
    series = ((z * np.float32(0.32059889) + np.float32(0.41219858)) * z + np.float32(0.57707802)) * z
    series = (series + np.float32(0.96179669)) * z + np.float32(2.8853901)
    y = (np.float32(whole) + s * series) * np.float32(exponent)
    n = np.int32(y + np.float32(1024.5)) - np.int32(1024)
    f = (y - np.float32(n)) * np.float32(0.69314718)
    e = (f * np.float32(1 / 720) + np.float32(1 / 120)) * f + np.float32(1 / 24)
    e = ((e * f + np.float32(1 / 6)) * f + np.float32(0.5)) * f * f + (f + np.float32(1))
    return e * np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)
