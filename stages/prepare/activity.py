"""Where something is heard in a recording, by its level."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FRAME_S, STEP_S = 0.005, 0.001
"""Frames of which levels are taken. They decide how sharp an edge is found."""

ABOVE_NOISE_DB = 6.0
"""How far above the noise of a recording a level must be to count."""

LEAST_RANGE_DB = 15.0
"""What is less than that below the loudest frame is never taken for noise."""

QUIETEST_DB = -90.0
"""No level counts below that, dBFS: it is the last step of 16-bit PCM."""

_NOISE_SHARE = 0.05
_LOUD_SHARE = 0.95


class Region(NamedTuple):
    """Hold some samples of a recording: the first, and the one behind the last."""

    start: int
    stop: int


class Levels(NamedTuple):
    """Hold the levels of frames, dBFS ``(n_frames,)``, and how many samples apart they begin."""

    db: NDArray[np.float64]
    step: int
    length: int

    @property
    def noise_db(self) -> float:
        """Level of the noise: what the quietest twentieth of frames stays below."""
        return float(np.quantile(self.db, _NOISE_SHARE, method="lower")) if self.db.size else QUIETEST_DB

    @property
    def loud_db(self) -> float:
        """Level that the loudest twentieth of the frames above the noise passes."""
        return float(np.quantile(self.db, _LOUD_SHARE, method="higher")) if self.db.size else QUIETEST_DB

    @property
    def loudest_db(self) -> float:
        """Level of the loudest frame."""
        return float(self.db.max(initial=QUIETEST_DB))


def frame_levels(y: NDArray[np.float32], sr: int) -> Levels:
    """Return the levels of the frames of a recording.

    A frame that reaches beyond the recording is left out, so a recording shorter than one has none.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
        Full scale is 1.
    sr : int
        Its rate, Hz.
    """
    step, length = max(1, round(STEP_S * sr)), max(1, round(FRAME_S * sr))
    if y.size < length:
        return Levels(np.zeros(0), step, length)
    energy = np.concatenate([[0.0], np.cumsum(y.astype(np.float64) ** 2)])
    starts = np.arange(0, y.size - length + 1, step)
    power = np.maximum(energy[starts + length] - energy[starts], 0.0) / length
    return Levels(10.0 * np.log10(np.maximum(power, 10.0 ** (QUIETEST_DB / 10.0))), step, length)


def active_regions(
    y: NDArray[np.float32],
    sr: int,
    *,
    threshold_db: float,
    hysteresis_db: float,
    min_sound_s: float,
    min_silence_s: float,
) -> list[Region]:
    """Return the parts of a recording in which something is heard, in order.

    A part begins where the level passes a threshold, and goes on as long as it stays above a lower
    one. Both are relative to the loudest frame, and lie above the noise of the recording.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
    sr : int
        Its rate, Hz.
    threshold_db : float
        Level at which a part begins, relative to the loudest frame, dB.
    hysteresis_db : float
        How much lower the level is at which it ends, dB.
    min_sound_s : float
        A shorter part is a click, and counts as silence, s.
    min_silence_s : float
        A shorter silence does not end a part, s.
    """
    levels = frame_levels(y, sr)
    loudest = levels.loudest_db
    if loudest <= QUIETEST_DB:
        return []
    least = max(min(levels.noise_db + ABOVE_NOISE_DB, loudest - LEAST_RANGE_DB), QUIETEST_DB)
    on = max(loudest + threshold_db, least)
    off = max(on - hysteresis_db, least)
    regions = _above(levels, off, on)
    regions = _joined(regions, round(min_silence_s * sr))
    shortest = min(round(min_sound_s * sr), y.size)
    return [Region(a, min(b, y.size)) for a, b in regions if b - a >= shortest]


def _above(levels: Levels, off: float, on: float) -> list[tuple[int, int]]:
    """Return where the level stays above `off`, of the parts in which it passes `on` somewhere."""
    heard = np.concatenate([[False], levels.db > off, [False]])
    first, last = np.flatnonzero(heard[1:] & ~heard[:-1]), np.flatnonzero(heard[:-1] & ~heard[1:])
    loud = np.concatenate([[0], np.cumsum(levels.db >= on)])
    found = []
    for a, b in zip(first.tolist(), last.tolist(), strict=True):
        if loud[b] > loud[a]:
            found.append(_edges(levels, a, b))
    return found


def _edges(levels: Levels, first: int, last: int) -> tuple[int, int]:
    """Return the samples of a part from one frame to before another.

    The first frame that is heard may hold little of what is: its end is where that begins. So it is
    with the last frame.
    """
    start, stop = first * levels.step, (last - 1) * levels.step + levels.length
    inner = levels.length - levels.step
    if first > 0:
        start += inner
    if last < levels.db.size:
        stop -= inner
    return (start, stop) if start < stop else (first * levels.step, (last - 1) * levels.step + levels.length)


def _joined(regions: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Return regions, those joined that are less than `gap` samples apart."""
    joined: list[tuple[int, int]] = []
    for start, stop in regions:
        if joined and start - joined[-1][1] < gap:
            joined[-1] = joined[-1][0], stop
        else:
            joined.append((start, stop))
    return joined
