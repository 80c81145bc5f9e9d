"""Facts about one recording: level, noise, clipping, bandwidth and mains hum."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.pcm import as_float

Samples = NDArray[np.floating | np.int16]
Floats = NDArray[np.float64]

_STEP = 1.01 / 32768.0  # samples that differ by no more than a step of 16 bits count as equal
_FRAME_S = 0.02
_ACTIVE_DB = 30.0  # frames that lie less than this under the loud ones are active
_DIGITAL_DB = -90.0  # frames below it were never recorded
_LOUD, _LOUDEST, _QUIET = 95, 99, 10  # percentiles of the levels of frames
_PEAK_DB = 10.0  # by which the loudest frames of speech exceed the loud ones
_FLAT = 3  # samples in a row at an extreme that make a flat top
_INTO_FLAT = 0.01  # least step into a flat top, re the extreme
_WINDOW_S = 0.032
_CLIFF_FROM, _CLIFF_TO = 0.1, 0.82  # where a cliff may be, re half the rate
_FLAT_DB = 8.0  # by which the highest bin of a floor exceeds its mean
_BELOW, _ACROSS, _TOP = 0.05, 0.06, 0.99
_MAINS_HZ = (50, 60)
_PARTIALS = 6
_NEAR_HZ, _FAR_HZ = 4, 15
_STEADY = 25  # percentile over time that only what is steady reaches
_FEWEST_WINDOWS = 3
_LINE_DB, _FUNDAMENTAL_DB, _FEWEST_LINES = 12.0, 15.0, 3
_SILENT_DB = -120.0


class Levels(NamedTuple):
    """Hold levels in dBFS and times in s.

    Parameters
    ----------
    level_db : float
        Of the active frames.
    noise_db : float or None
        Of the quiet frames. None where all quiet ones are digital silence.
    active_s, lead_s, tail_s : float
        Time that is active, and before the first and after the last active frame.
    """

    level_db: float
    noise_db: float | None
    active_s: float
    lead_s: float
    tail_s: float


class Hum(NamedTuple):
    """Hold what was found of mains hum: frequency in Hz, level in dBFS, and whether its lines stand out."""

    hz: int
    level_db: float
    stands_out: bool


def facts(y: Samples, sr: int) -> dict[str, float | int | bool | None]:
    """Return what a recording is like.

    Parameters
    ----------
    y : ndarray of float of full scale 1, or of int16, shape (n_samples,)
    sr : int
        Hz.

    Returns
    -------
    dict
        ``peak_db``, ``level_db``, ``noise_db``, ``snr_db``, ``active_s``, ``lead_s``, ``tail_s``,
        ``offset``, ``clipped_runs``, ``bandwidth_hz``, ``cliff_db``, ``hum_hz`` and ``hum_db``. None
        where a recording is too short to tell.
    """
    x = as_float(y).astype(np.float64)
    offset = float(x.mean()) if x.size else 0.0
    found = levels(x - offset, sr)
    edge_hz, cliff_db = bandwidth(x - offset, sr)
    hummed = hum(x, sr)
    snr_db = None if found.noise_db is None else round(found.level_db - found.noise_db, 2)
    return {
        "peak_db": round(_db(float(np.abs(x).max(initial=0.0)) ** 2), 2),
        "level_db": round(found.level_db, 2),
        "noise_db": None if found.noise_db is None else round(found.noise_db, 2),
        "snr_db": snr_db,
        "active_s": round(found.active_s, 3),
        "lead_s": round(found.lead_s, 3),
        "tail_s": round(found.tail_s, 3),
        "offset": round(offset, 6),
        "clipped_runs": clipped_runs(x),
        "bandwidth_hz": edge_hz,
        "cliff_db": cliff_db,
        "hum_hz": hummed.hz if hummed is not None and hummed.stands_out else None,
        "hum_db": round(hummed.level_db, 2) if hummed is not None and hummed.stands_out else None,
    }


def levels(x: Floats, sr: int) -> Levels:
    """Return levels of a recording ``(n_samples,)``, by frames of 20 ms."""
    length = max(1, round(_FRAME_S * sr))
    n_frames = max(1, x.size // length)
    framed = x[: n_frames * length].reshape(n_frames, -1)
    power = np.mean(np.square(framed), axis=1) if framed.size else np.zeros(n_frames)
    level = 10.0 * np.log10(np.maximum(power, 10.0 ** (_SILENT_DB / 10.0)))
    # Where there is little speech, its few loud frames count.
    loud = max(float(np.percentile(level, _LOUD)), float(np.percentile(level, _LOUDEST)) - _PEAK_DB)
    active = level > loud - _ACTIVE_DB
    recorded = level > _DIGITAL_DB
    quiet = level <= np.percentile(level[recorded], _QUIET) if recorded.any() else recorded
    at = np.flatnonzero(active)
    first, last = (int(at[0]), int(at[-1])) if at.size else (0, n_frames - 1)
    noise = power[quiet & recorded]
    return Levels(
        level_db=_db(float(power[active].mean())) if active.any() else _SILENT_DB,
        noise_db=_db(float(noise.mean())) if noise.size else None,
        active_s=float(active.sum()) * length / sr,
        lead_s=first * length / sr,
        tail_s=(n_frames - 1 - last) * length / sr,
    )


def clipped_runs(x: Floats) -> int:
    """Return how many flat tops a recording has at its highest and lowest value.

    A flat top is three samples or more in a row at an extreme, with a step into it: the top of a
    wave that was not clipped is reached slowly.

    >>> y = np.sin(np.arange(4000) * 0.3)
    >>> clipped_runs(y), clipped_runs(np.clip(y, -0.8, 0.8)) > 300
    (0, True)
    """
    found = 0
    for extreme in (x.max(initial=0.0), x.min(initial=0.0)):
        if abs(extreme) < 10 * _STEP:
            continue
        at = np.concatenate([[False], np.abs(x - extreme) <= _STEP, [False]])
        starts = np.flatnonzero(at[1:] & ~at[:-1])
        stops = np.flatnonzero(at[:-1] & ~at[1:])
        long = stops - starts >= _FLAT
        starts, stops = starts[long], stops[long]
        before = np.abs(extreme - x[np.maximum(starts - 1, 0)])
        after = np.abs(extreme - x[np.minimum(stops, x.size - 1)])
        found += int(np.count_nonzero(np.maximum(before, after) > _INTO_FLAT * abs(extreme)))
    return found


def bandwidth(x: Floats, sr: int) -> tuple[float | None, float | None]:
    """Return where the spectrum of a recording breaks off, Hz, and by how much, dB.

    The break is the largest difference between a band and all that lies above it, where that is flat:
    the floor of what was upsampled or coded. A spectrum that falls slowly has none of note. Both are
    None for a recording of less than three windows.
    """
    spectrum = _spectrum(x, sr)
    if spectrum is None:
        return None, None
    n_bins = spectrum.size
    level = np.convolve(np.pad(spectrum, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    sums = np.concatenate([[0.0], np.cumsum(level)])
    top = int(_TOP * n_bins)
    highest_from = np.maximum.accumulate(level[:top][::-1])[::-1]
    below, across = max(1, round(_BELOW * n_bins)), max(1, round(_ACROSS * n_bins))
    edges = np.arange(max(below, int(_CLIFF_FROM * n_bins)), int(_CLIFF_TO * n_bins))
    above = np.minimum(edges + across, top - 1)
    drops = (sums[edges] - sums[edges - below]) / below - highest_from[above]
    unevenness = highest_from[above] - (sums[top] - sums[above]) / (top - above)
    drops = np.where(unevenness <= _FLAT_DB, drops, 0.0)
    best = int(drops.argmax())
    return round(float(edges[best]) * sr / 2.0 / (n_bins - 1), 1), round(float(drops[best]), 2)


def _spectrum(x: Floats, sr: int) -> Floats | None:
    """Return the mean spectrum of the louder half of a recording, dB; None if it is too short."""
    import scipy.fft  # here, as planning needs none of it

    n_fft = 2 ** round(math.log2(_WINDOW_S * sr))
    if x.size < _FEWEST_WINDOWS * n_fft:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(x, n_fft)[:: n_fft // 2]
    loudness = np.mean(np.square(frames), axis=1)
    frames = frames[loudness >= np.median(loudness)]
    total = np.zeros(n_fft // 2 + 1)
    # Blackman-Harris: leakage of Hann's window would fill what is empty.
    window = _blackman_harris(n_fft)
    for at in range(0, len(frames), 256):
        D = scipy.fft.rfft(frames[at : at + 256] * window, axis=1)
        total += np.sum(np.square(D.real) + np.square(D.imag), axis=0)
    return np.asarray(10.0 * np.log10(total / len(frames) + 1e-12))


def _blackman_harris(n: int) -> Floats:
    turn = 2.0 * np.pi * np.arange(n) / n
    return np.asarray(0.35875 - 0.48829 * np.cos(turn) + 0.14128 * np.cos(2 * turn) - 0.01168 * np.cos(3 * turn))


def hum(x: Floats, sr: int) -> Hum | None:
    """Return what a recording has of 50 or 60 Hz and their multiples; None for one under 2 s.

    Only what stays through pauses and speech alike counts. Hum stands out if the fundamental is
    15 dB above its surroundings, or three of six partials are 12 dB above theirs.
    """
    import scipy.fft

    if x.size < (_FEWEST_WINDOWS + 1) * sr // 2 or sr < 2 * (_MAINS_HZ[-1] + _FAR_HZ):
        return None
    frames = np.lib.stride_tricks.sliding_window_view(x, sr)[:: sr // 2]
    top = min(sr // 2, _MAINS_HZ[-1] * _PARTIALS + _FAR_HZ) + 1
    window = _blackman_harris(sr)
    powers = [np.abs(scipy.fft.rfft(frame * window)[:top]) ** 2 for frame in frames]
    steady = np.percentile(np.stack(powers), _STEADY, axis=0) * 2.0 / window.sum() ** 2 + 1e-16
    return max((_hum_of(steady, hz) for hz in _MAINS_HZ), key=lambda found: (found.stands_out, found.level_db))


def _hum_of(steady: Floats, hz: int) -> Hum:
    """Judge the lines of one mains frequency in a steady spectrum with a bin a Hz."""
    prominence, power = [], 0.0
    for centre in range(hz, min(hz * _PARTIALS, steady.size - _FAR_HZ - 1) + 1, hz):
        line = float(steady[centre - 1 : centre + 2].max())
        around = np.concatenate(
            [steady[max(1, centre - _FAR_HZ) : centre - _NEAR_HZ], steady[centre + _NEAR_HZ + 1 : centre + _FAR_HZ + 1]]
        )
        over_db = _db(line) - _db(float(np.median(around)))
        prominence.append(over_db)
        if over_db >= _LINE_DB:
            power += line
    several = sum(over >= _LINE_DB for over in prominence) >= _FEWEST_LINES
    return Hum(hz, _db(power), bool(prominence) and (prominence[0] >= _FUNDAMENTAL_DB or several))


def _db(power: float) -> float:
    return 10.0 * math.log10(power) if power > 1e-12 else _SILENT_DB
